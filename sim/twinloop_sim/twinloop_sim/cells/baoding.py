# SPDX-License-Identifier: Apache-2.0
"""Two balls in the palm of a hand: the cell in which the live system and its twin agree."""

from __future__ import annotations

from typing import Any

from twinloop_sim.cell import Cell


def make(hands: int, engine: str = "mujoco", threads: int = 1, **options: Any) -> Cell:
    """Return N hands with two balls each; see `Cell` for the options."""
    return Cell(hands, engine, threads, **options)
