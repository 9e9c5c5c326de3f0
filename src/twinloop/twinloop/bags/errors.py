# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with bags, always with the path."""

from __future__ import annotations

from pathlib import Path


class BagError(Exception):
    """A bag cannot be read, written or repaired; the message names the path and what was expected.

    Attributes:
        path: the bag's folder, or the file in it that is at fault.
    """

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self.problem = problem


class BagWriteError(BagError):
    """Writing failed, on a full disk for example. What was written before it can be repaired."""
