# SPDX-License-Identifier: Apache-2.0
"""The ramp keeps its limits for any goals and arrives where it was sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinloop.robots.hand24 import HAND24
from twinloop.safety.ramp import Ramp

DT = 0.01
TOLERANCE = 1e-9

goals = st.lists(st.tuples(st.floats(-1.0, 1.0), st.integers(1, 30)), min_size=1, max_size=12)


def hand_ramp(shape: tuple[int, ...] = ()) -> Ramp:
    return Ramp(HAND24.velocity, HAND24.acceleration, HAND24.jerk, DT, shape)


def differences(positions: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
    """Velocity, acceleration and jerk [T + 3, J] of a motion that begins at rest on `start`."""
    padded = np.concatenate([np.repeat(start[None], 3, axis=0), positions])
    velocity = np.diff(padded, axis=0) / DT
    acceleration = np.diff(velocity, axis=0) / DT
    return velocity, acceleration, np.diff(acceleration, axis=0) / DT


@settings(max_examples=150, deadline=None)
@given(
    start=st.floats(-1.0, 1.0),
    sequence=goals,
    velocity=st.floats(0.1, 10.0),
    acceleration=st.floats(5.0, 500.0),
    jerk=st.floats(200.0, 50_000.0),
)
def test_any_goal_sequence_keeps_every_limit(
    start: float,
    sequence: list[tuple[float, int]],
    velocity: float,
    acceleration: float,
    jerk: float,
) -> None:
    ramp = Ramp([velocity], [acceleration], [jerk], DT)
    rest = np.array([start])
    ramp.reset(rest)
    positions = np.array([ramp.step(np.array([g])) for g, ticks in sequence for _ in range(ticks)])
    v, a, j = differences(positions, rest)
    assert np.abs(v).max() <= velocity * (1 + TOLERANCE) + TOLERANCE
    assert np.abs(a).max() <= acceleration * (1 + TOLERANCE) + 1e-8
    assert np.abs(j).max() <= jerk * (1 + TOLERANCE) + 1e-5
    visited = [start] + [g for g, _ in sequence]
    assert positions.min() >= min(visited) - 1e-12
    assert positions.max() <= max(visited) + 1e-12


@settings(max_examples=60, deadline=None)
@given(start=st.floats(-1.0, 1.0), goal=st.floats(-1.0, 1.0), velocity=st.floats(0.1, 10.0))
def test_a_resting_goal_is_reached_monotonically_and_on_time(
    start: float, goal: float, velocity: float
) -> None:
    ramp = Ramp([velocity], [100.0], [10_000.0], DT)
    ramp.reset([start])
    ticks = int(np.ceil(abs(goal - start) / (velocity * DT))) + ramp.settle_ticks
    positions = np.array([ramp.step(np.array([goal]))[0] for _ in range(ticks + 1)])
    assert positions[-1] == pytest.approx(goal, abs=1e-12)
    assert (np.diff(positions) * np.sign(goal - start) >= -1e-12).all()


def test_one_planner_step_of_the_hand_takes_about_a_control_period() -> None:
    ramp = hand_ramp()
    ramp.reset(np.zeros(24))
    positions = [ramp.step(np.full(24, 0.15)) for _ in range(20)]
    arrival = next(k for k, p in enumerate(positions, 1) if np.abs(p - 0.15).max() < 1e-3)
    assert 0.08 <= arrival * DT <= 0.12


def test_full_speed_towards_a_limit_stops_inside_it() -> None:
    ramp = hand_ramp()
    ramp.reset(HAND24.lower)
    positions = np.array([ramp.step(HAND24.upper.copy()) for _ in range(100)])
    speed = np.abs(np.diff(positions, axis=0)).max() / DT
    assert speed == pytest.approx(HAND24.velocity.max())
    assert (positions <= HAND24.upper + 1e-12).all()
    np.testing.assert_allclose(positions[-1], HAND24.upper, atol=1e-12)


def test_the_stopping_goal_brings_full_speed_to_rest_in_settle_ticks() -> None:
    ramp = hand_ramp()
    ramp.reset(np.zeros(24))
    for _ in range(20):
        ramp.step(np.full(24, 1.0))
    goal = ramp.stopping_goal
    positions = np.array([ramp.step(goal) for _ in range(ramp.settle_ticks + 3)])
    np.testing.assert_allclose(positions[ramp.settle_ticks - 1 :], np.tile(goal, (4, 1)))
    assert ramp.settle_ticks * DT <= 0.1


def test_a_batch_moves_like_its_members_one_by_one() -> None:
    rng = np.random.default_rng(3)
    batch, single = hand_ramp((4,)), [hand_ramp() for _ in range(4)]
    start = rng.uniform(HAND24.lower, HAND24.upper, (4, 24))
    batch.reset(start)
    for ramp, position in zip(single, start, strict=True):
        ramp.reset(position)
    for _ in range(30):
        goal = rng.uniform(HAND24.lower, HAND24.upper, (4, 24))
        together = batch.step(goal)
        apart = np.array([ramp.step(g) for ramp, g in zip(single, goal, strict=True)])
        np.testing.assert_array_equal(together, apart)


def test_limits_may_differ_from_joint_to_joint() -> None:
    slow, fast = Ramp([0.5], [10.0], [500.0], DT), Ramp([5.0], [400.0], [40_000.0], DT)
    both = Ramp([0.5, 5.0], [10.0, 400.0], [500.0, 40_000.0], DT)
    for ramp, size in ((slow, 1), (fast, 1), (both, 2)):
        ramp.reset(np.zeros(size))
    for _ in range(40):
        moved = both.step(np.array([0.3, 0.3]))
        alone = np.concatenate([slow.step(np.array([0.3])), fast.step(np.array([0.3]))])
        np.testing.assert_allclose(moved, alone, atol=1e-15)


def test_resetting_one_row_leaves_the_others_moving() -> None:
    ramp = hand_ramp((3,))
    ramp.reset(np.zeros((3, 24)))
    ramp.step(np.full((3, 24), 0.1))
    before = ramp.state()
    ramp.reset(np.full(24, 0.05), where=1)
    after = ramp.state()
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
    assert (after[:, 1] == 0.05).all()


def test_set_state_continues_the_motion_exactly() -> None:
    ramp, other = hand_ramp(), hand_ramp()
    ramp.reset(np.zeros(24))
    goal = np.full(24, 0.2)
    for _ in range(5):
        ramp.step(goal)
    other.set_state(ramp.state())
    for _ in range(10):
        np.testing.assert_array_equal(ramp.step(goal), other.step(goal))


def test_a_goal_that_is_not_a_number_is_refused_and_changes_nothing() -> None:
    ramp = hand_ramp()
    ramp.reset(np.zeros(24))
    before = ramp.state()
    goal = np.zeros(24)
    goal[7] = np.nan
    with pytest.raises(ValueError, match="finite"):
        ramp.step(goal)
    np.testing.assert_array_equal(ramp.state(), before)


def test_unusable_limits_goals_and_states_are_refused() -> None:
    with pytest.raises(ValueError, match="velocity limits"):
        Ramp([0.0], [1.0], [1.0], DT)
    with pytest.raises(ValueError, match="acceleration limits"):
        Ramp([1.0], [np.nan], [1.0], DT)
    with pytest.raises(ValueError, match="one length"):
        Ramp([1.0, 1.0], [1.0], [1.0], DT)
    with pytest.raises(ValueError, match="dt"):
        Ramp([1.0], [1.0], [1.0], 0.0)
    ramp = hand_ramp()
    with pytest.raises(ValueError, match="shape"):
        ramp.step(np.zeros(23))
    with pytest.raises(ValueError, match="shape"):
        ramp.set_state(np.zeros((2, 24)))
    with pytest.raises(ValueError, match="finite"):
        ramp.reset(np.full(24, np.nan))
