# SPDX-License-Identifier: Apache-2.0
"""Times of paths: legs, their sums, and trajectories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinloop.motion.semantics import arm_limits
from twinloop.motion.timing import Leg, assemble, excess, straight_leg
from twinloop.motion.trajectory import Trajectory
from twinloop.robots.panda import PANDA

LIMITS = arm_limits()
NAMES = PANDA.joint_names
DELTAS = st.lists(st.floats(-2.5, 2.5), min_size=7, max_size=7).map(np.array)


@given(DELTAS)
@settings(max_examples=60, deadline=None)
def test_a_leg_arrives_at_rest_within_every_limit(delta: np.ndarray) -> None:
    motion = assemble(NAMES, np.zeros(7), [straight_leg(0, delta, LIMITS)])
    assert excess(motion, LIMITS) <= 1.0 + 1e-9
    np.testing.assert_allclose(motion.position[-1], delta, atol=1e-12)
    np.testing.assert_allclose(motion.position[-2], delta, atol=1e-3)
    np.testing.assert_allclose(motion.velocity[-2], 0.0, atol=0.11)
    # Straight: every point lies on the line.
    share = motion.position @ delta / max(delta @ delta, 1e-300)
    np.testing.assert_allclose(motion.position, np.outer(share, delta), atol=1e-9)
    assert np.all(np.diff(share) >= -1e-12)


def test_a_long_leg_uses_what_the_limits_allow() -> None:
    delta = np.zeros(7)
    delta[0] = 2.0
    motion = assemble(NAMES, np.zeros(7), [straight_leg(0, delta, LIMITS)])
    assert np.abs(motion.velocity).max() == pytest.approx(2.175, rel=0.02)
    # Full speed all the way, and the time to reach and to leave it, rounded up to ticks.
    assert motion.duration <= 2.0 / 2.175 + 2.175 / 15.0 + 0.05


def test_windows_are_exact_between_ticks() -> None:
    leg = straight_leg(0, np.full(7, 0.3), LIMITS)
    motion = assemble(NAMES, np.zeros(7), [leg])
    time = np.arange(0, round(motion.duration * 1e4)) * 1e-4
    fine = motion.at(time)
    velocity = np.gradient(fine, 1e-4, axis=0)
    at_ticks = velocity[100:-100:100]
    np.testing.assert_allclose(at_ticks, motion.velocity[1 : 1 + len(at_ticks)], atol=1e-4)


def test_legs_that_overlap_add_up_and_their_excess_is_seen() -> None:
    first = straight_leg(0, np.full(7, 0.8), LIMITS)
    other = straight_leg(0, np.full(7, -0.8), LIMITS)
    apart = assemble(NAMES, np.zeros(7), [first, Leg(first.end, other.delta, other.windows)])
    assert excess(apart, LIMITS) <= 1.0 + 1e-9
    np.testing.assert_allclose(apart.position[-1], 0.0, atol=1e-12)
    start = first.end - sum(other.windows[1:])
    over = assemble(NAMES, np.zeros(7), [first, Leg(start, other.delta, other.windows)])
    assert excess(over, LIMITS) > 1.0  # braking and setting off the other way at once


def test_the_peak_of_velocity_between_ticks_counts() -> None:
    # Accelerates at +1, then at -1 rad/s^2 within one interval: 0.125 rad/s at its middle.
    motion = Trajectory(
        ("a",),
        np.array([0.0, 1.0]),
        np.array([[0.0], [1 / 6]]),
        np.array([[0.0], [0.0]]),
        np.array([[1.0], [-1.0]]),
    )
    limits = LIMITS.scaled(1.0, 1.0)
    tight = type(limits)(*(np.array([x]) for x in (-1.0, 1.0, 0.2, 10.0, 10.0)))
    assert excess(motion, tight) == pytest.approx(0.25 / 0.2)


def test_no_distance_takes_next_to_no_time() -> None:
    motion = assemble(NAMES, PANDA.poses["ready"], [straight_leg(0, np.zeros(7), LIMITS)])
    assert motion.duration <= 0.05
    np.testing.assert_array_equal(motion.position[-1], PANDA.poses["ready"])
    still = assemble(NAMES, PANDA.poses["ready"], [])
    np.testing.assert_array_equal(still.at(3.0), PANDA.poses["ready"])


def test_motions_follow_each_other_only_where_they_meet() -> None:
    motion = assemble(NAMES, np.zeros(7), [straight_leg(0, np.full(7, 0.5), LIMITS)])
    back = assemble(NAMES, np.full(7, 0.5), [straight_leg(0, np.full(7, -0.5), LIMITS)])
    both = motion.then(back)
    assert both.duration == pytest.approx(motion.duration + back.duration)
    np.testing.assert_allclose(both.at(motion.duration), 0.5)
    with pytest.raises(ValueError, match=r"starts 0\.5 rad"):
        motion.then(motion)
    with pytest.raises(ValueError, match="shape"):
        Trajectory(NAMES, motion.time, motion.position[:-1], motion.velocity, motion.acceleration)
