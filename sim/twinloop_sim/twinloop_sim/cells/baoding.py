# SPDX-License-Identifier: Apache-2.0
"""Two balls in the palm of a hand: the cell in which the live system and its twin agree."""

from __future__ import annotations

from typing import Any

from twinloop_sim.cell import Cell
from twinloop_sim.variation import Variation


def make(
    hands: int,
    engine: str = "mujoco",
    threads: int = 1,
    variation: dict[str, Any] | None = None,
    **options: Any,
) -> Cell:
    """Return N hands with two balls each; see `Cell` for the options.

    `variation` has the fields of `Variation`, and is that of all hands; None: they are nominal.
    """
    if variation is not None:
        options["variations"] = [Variation.model_validate(variation)] * hands
    return Cell(hands, engine, threads, **options)
