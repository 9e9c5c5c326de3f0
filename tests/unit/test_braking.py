# SPDX-License-Identifier: Apache-2.0
"""A stop keeps the limits, is as short as they allow, and stays inside the joints' travel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinloop.robots.hand24 import HAND24
from twinloop.safety.braking import braking
from twinloop.safety.ramp import Ramp

DT = 0.01


def stopped(
    goals: list[tuple[float, int]], velocity: float, acceleration: float, jerk: float
) -> tuple[np.ndarray, int, Ramp]:
    """Positions of a ramp's motion and of the stop at its end; where the stop begins; the ramp."""
    ramp = Ramp([velocity], [acceleration], [jerk], DT)
    positions = [np.zeros(1)] * 3
    positions += [ramp.step(np.array([goal])) for goal, ticks in goals for _ in range(ticks)]
    motion = np.array(positions)
    stop = braking(motion[-3:], np.array([acceleration]), np.array([jerk]), DT)
    return np.concatenate([motion, stop]), len(motion), ramp


@settings(max_examples=40, deadline=None)
@given(
    goals=st.lists(st.tuples(st.floats(-1.0, 1.0), st.integers(1, 12)), min_size=1, max_size=8),
    velocity=st.floats(0.1, 10.0),
    acceleration=st.floats(5.0, 500.0),
    jerk=st.floats(500.0, 50_000.0),
)
def test_a_stop_keeps_every_limit_and_takes_no_longer_than_the_ramp(
    goals: list[tuple[float, int]], velocity: float, acceleration: float, jerk: float
) -> None:
    positions, begin, ramp = stopped(goals, velocity, acceleration, jerk)
    after = np.concatenate([positions, np.repeat(positions[-1:], 3, axis=0)])
    assert np.abs(np.diff(after, 2, axis=0)).max() <= acceleration * DT**2 * (1 + 1e-9) + 1e-9
    assert np.abs(np.diff(after, 3, axis=0)).max() <= jerk * DT**3 * (1 + 1e-9) + 1e-9
    # The last tick of a stop is the first in which nothing moves.
    assert len(positions) - begin <= ramp.settle_ticks + 1


@settings(max_examples=40, deadline=None)
@given(
    goals=st.lists(
        st.tuples(st.sampled_from([-1.0, 1.0, 0.97]), st.integers(1, 80)), min_size=1, max_size=6
    )
)
def test_a_stop_near_the_end_of_a_joints_travel_stays_inside_it(
    goals: list[tuple[float, int]],
) -> None:
    positions, _, _ = stopped(goals, 3.3, 100.0, 10_000.0)
    assert np.abs(positions).max() <= 1.0 + 1e-9


@pytest.mark.parametrize(("speed", "ticks"), [(0.8, 1), (1.14, 2), (3.3, 4)])
def test_a_hand_rests_within_a_few_ticks(speed: float, ticks: int) -> None:
    last = np.outer(np.arange(3), np.full(24, speed * DT))
    stop = braking(last, HAND24.acceleration, HAND24.jerk, DT)
    assert len(stop) == ticks
    steps = np.diff(np.concatenate([last[-1:], stop]), axis=0)
    np.testing.assert_allclose(steps[-1], 0.0, atol=1e-12)


def test_joints_that_stand_stay_exactly_where_they_are() -> None:
    last = np.tile(HAND24.poses["cup"], (3, 1))
    assert braking(last, HAND24.acceleration, HAND24.jerk, DT).shape == (0, 24)
    last[2, 4] += 0.01
    stop = braking(last, HAND24.acceleration, HAND24.jerk, DT)
    others = np.delete(stop, 4, axis=1)
    np.testing.assert_array_equal(others, np.tile(np.delete(last[2], 4), (len(stop), 1)))


def test_a_stop_from_beyond_the_limits_ends_too() -> None:
    last = np.tile(HAND24.poses["cup"], (3, 1))
    last[2] += 0.1
    stop = braking(last, HAND24.acceleration, HAND24.jerk, DT)
    assert len(stop) < 100
    np.testing.assert_allclose(np.diff(stop, axis=0)[-1], 0.0, atol=1e-12)
