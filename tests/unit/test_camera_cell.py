# SPDX-License-Identifier: Apache-2.0
"""Cells whose balls are tracked in drawn images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from twinloop_sim.cell import Cell
from twinloop_sim.tracker_standin import Sample

SEED = 3


def eyes(hands: int, **cameras: Any) -> Cell:
    return Cell(hands, eyes="cameras", cameras=cameras)


@pytest.fixture(scope="module")
def pair() -> Iterator[Cell]:
    cell = eyes(2, appearance="train", rig_error_m=0.002, rig_error_deg=0.3)
    yield cell
    cell.close()


def wiggled(cell: Cell, steps: int = 3) -> list[np.ndarray]:
    """Observations of some steps about where the hand stands."""
    rng = np.random.default_rng(5)
    return [cell.step(cell.command + rng.normal(0.0, 0.03, 24)) for _ in range(steps)]


def test_balls_are_seen_where_they_are(pair: Cell) -> None:
    wiggled(pair)
    held, truth = pair.observe()[:, 72:78].reshape(2, 2, 3), pair.truth().ball_position
    error_m = np.linalg.norm(held - truth, axis=-1)
    assert (error_m < 0.012).all()  # also of where they were when they were seen
    assert (error_m > 1e-5).all()
    assert pair.is_observable.all()
    np.testing.assert_allclose(pair.sample_age_s, 0.03)


def test_equal_seeds_see_alike_whatever_was_before_and_beside(pair: Cell) -> None:
    pair.reset([SEED, SEED + 1])
    first = wiggled(pair)
    pair.reset([7, SEED])
    second = wiggled(pair)
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before[0], after[1])
        assert (before[1] != after[0]).any()


def test_samples_come_as_late_as_the_stand_ins(pair: Cell) -> None:
    def delivered(cell: Cell) -> list[tuple[int, int]]:
        cell.reset(np.full(cell.hands, SEED))
        found: list[tuple[int, Sample | None]] = []
        for _ in range(20):
            found.append((cell.tick_count + 1, cell.tick(cell.command).sample))
        return [(tick, sample.tick) for tick, sample in found if sample is not None]

    assert (
        delivered(pair)
        == delivered(Cell(1))
        == [(2, 0), (5, 3), (9, 7), (12, 10), (15, 13), (19, 17)]
    )


def test_without_sight_of_a_ball_nothing_is_observable_before_long(pair: Cell) -> None:
    pair.reset([SEED, SEED])
    pair._tracker.offset_m[1] = (0.0, -1.0, 0.0)  # out of all cameras' sight
    try:
        wiggled(pair)
        assert pair.is_observable.tolist() == [True, False]
        pair.reset([SEED, SEED])
        assert pair.is_observable.tolist() == [True, False]
    finally:
        pair._tracker.offset_m[:] = 0.0


def test_what_cameras_cannot_do_is_refused(pair: Cell) -> None:
    with pytest.raises(ValueError, match="'fingers', expected one of standin, cameras"):
        Cell(1, eyes="fingers")
    with pytest.raises(ValueError, match="delivery_ticks"):
        eyes(1, delivery_ticks=9)
    with pytest.raises(RuntimeError, match="with cameras cannot be saved"):
        pair.get_state()
