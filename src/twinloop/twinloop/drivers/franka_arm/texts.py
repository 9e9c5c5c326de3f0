# SPDX-License-Identifier: Apache-2.0
"""libfranka's words, as short as they may be."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return what libfranka's words come to: the errors' names where there are some."""
    inside = text.partition("[")[2].partition("]")[0].replace('"', "")
    return inside or " ".join(text.removeprefix("libfranka gripper: ").split()).removeprefix(
        "libfranka: "
    )
