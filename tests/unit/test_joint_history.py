# SPDX-License-Identifier: Apache-2.0
"""Joint positions at the time of a picture."""

from __future__ import annotations

import numpy as np
import pytest
from twinloop.perception.joint_history import JointHistory

MS = 1_000_000


def filled(stamps_ms: list[int]) -> JointHistory:
    history = JointHistory(keep_s=0.5, reach_s=0.03)
    for stamp in stamps_ms:
        history.feed(stamp * MS, [stamp / 10.0, -stamp / 10.0])
    return history


def test_positions_between_two_samples_lie_between_them() -> None:
    np.testing.assert_allclose(filled([100, 110, 120]).at(114 * MS), [11.4, -11.4])


def test_a_time_on_a_sample_gives_that_sample() -> None:
    np.testing.assert_allclose(filled([100, 110, 120]).at(110 * MS), [11.0, -11.0])
    np.testing.assert_allclose(filled([100, 110, 120]).at(100 * MS), [10.0, -10.0])


@pytest.mark.parametrize(
    ("time_ms", "is_known"), [(149, True), (151, False), (71, True), (69, False)]
)
def test_a_time_beyond_the_samples_is_known_only_near_them(time_ms: int, is_known: bool) -> None:
    assert (filled([100, 110, 120]).at(time_ms * MS) is not None) == is_known


def test_nothing_is_known_before_the_first_sample() -> None:
    assert JointHistory().at(0) is None


def test_old_samples_are_forgotten() -> None:
    history = filled(list(range(0, 2000, 10)))
    assert history.at(1400 * MS) is None
    assert history.at(1600 * MS) is not None


def test_samples_out_of_order_change_nothing() -> None:
    history = filled([100, 110, 120])
    history.feed(105 * MS, [99.0, 99.0])
    np.testing.assert_allclose(history.at(105 * MS), [10.5, -10.5])


@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000])
def test_a_clock_that_steps_begins_anew(step_ms: int) -> None:
    history = filled([4_000_000, 4_000_010])
    history.feed((4_000_020 + step_ms) * MS, [1.0, 2.0])
    assert history.at(4_000_005 * MS) is None
    np.testing.assert_allclose(history.at((4_000_020 + step_ms) * MS), [1.0, 2.0])


def test_positions_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="expected finite"):
        JointHistory().feed(0, [0.0, float("nan")])
