# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that does nothing but say on stdout what happens to it."""

from __future__ import annotations

from twinloop.nodes.base import Node, run


class DummyNode(Node):
    def __init__(self) -> None:
        super().__init__("dummy")

    def configure(self) -> None:
        print("configured", flush=True)

    def activate(self) -> None:
        print("started", flush=True)

    def deactivate(self) -> None:
        print("stopped", flush=True)


if __name__ == "__main__":
    run(DummyNode)
