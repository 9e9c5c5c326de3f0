# SPDX-License-Identifier: Apache-2.0
"""The controller that follows trajectories: limits, tolerances, preemption, stops, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinloop.motion.admission import TrajectoryRefused, filled
from twinloop.motion.following import Motion, Path, StopOfJoints, StopOnPath, stop_on
from twinloop.motion.semantics import arm_limits
from twinloop.motion.timing import assemble, straight_leg
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import (
    ControllerSettings,
    Following,
    TrajectoryController,
)
from twinloop.robots.panda import PANDA

LIMITS = arm_limits()
NAMES = PANDA.joint_names
READY = PANDA.poses["ready"]
TICK_S = 0.01
STILL = np.zeros(7)


def move(delta: np.ndarray | float, start: np.ndarray = READY, scale: float = 1.0) -> Trajectory:
    way = np.broadcast_to(np.asarray(delta, dtype=np.float64), 7)
    return assemble(NAMES, start, [straight_leg(0, way, LIMITS.scaled(scale, scale))])


class Arm:
    """A controller and servos that follow exactly, but for an error that can be set."""

    def __init__(self, settings: ControllerSettings | None = None) -> None:
        self.controller = TrajectoryController(NAMES, LIMITS, READY, settings)
        self.error = np.zeros(7)
        self.now_s = 100.0
        self.controller.step(self.now_s, READY, STILL)
        self.told = [READY.copy()]

    def run(self, seconds: float) -> Arm:
        for _ in range(round(seconds / TICK_S)):
            now = self.controller.setpoint
            self.now_s += TICK_S
            q = now.position + self.error
            self.told.append(self.controller.step(self.now_s, q, now.velocity).position.copy())
        return self

    @property
    def state(self) -> Following:
        return self.controller.status.state

    def check_limits(self) -> None:
        """Backward differences of what was told never exceed a limit."""
        told = np.array(self.told)
        for order, most in ((1, LIMITS.velocity), (2, LIMITS.acceleration), (3, LIMITS.jerk)):
            rate = np.abs(np.diff(told, order, axis=0)) / TICK_S**order
            assert (rate <= 1.002 * most).all(), (order, (rate / most).max())
        assert (told >= LIMITS.lower - 1e-4).all()
        assert (told <= LIMITS.upper + 1e-4).all()


def test_a_trajectory_is_followed_exactly_and_ends_in_success() -> None:
    arm, motion = Arm(), move(0.4)
    assert arm.controller.start(motion) == 1
    arm.run(motion.duration)
    np.testing.assert_allclose(np.array(arm.told), motion.position, atol=1e-9)
    assert arm.state is Following.ACTIVE
    arm.run(TICK_S)
    assert arm.state is Following.SUCCEEDED
    assert not arm.controller.is_moving
    arm.run(0.2)
    np.testing.assert_array_equal(arm.told[-1], motion.position[-1])
    arm.check_limits()


def test_what_begins_elsewhere_is_followed_when_it_has_the_time() -> None:
    arm, motion = Arm(), move(0.2, start=READY + np.eye(7)[5] * 0.06).later(0.25)
    np.testing.assert_array_equal(motion.at([0.0, 0.25]), motion.position[[0, 0]])
    arm.controller.start(motion)
    arm.run(motion.duration + TICK_S)
    assert arm.state is Following.SUCCEEDED
    np.testing.assert_allclose(arm.told[-1], motion.position[-1], atol=1e-9)
    arm.check_limits()


def test_joints_come_in_any_order() -> None:
    arm, motion = Arm(), move([0.3, 0.0, 0.1, 0.0, 0.0, 0.2, 0.0])
    mixed = [3, 0, 6, 1, 5, 2, 4]
    arrays = {n: getattr(motion, n)[:, mixed] for n in ("position", "velocity", "acceleration")}
    arm.controller.start(replace(motion, joint_names=tuple(NAMES[i] for i in mixed), **arrays))
    arm.run(motion.duration)
    np.testing.assert_allclose(arm.told[-1], motion.position[-1], atol=1e-9)


@given(
    st.lists(st.floats(-0.6, 0.6), min_size=7, max_size=7).map(np.array),
    st.floats(0.0, 1.0),
    st.sampled_from([1.0, 0.5, 0.2]),
)
@settings(max_examples=40, deadline=None)
def test_a_cancelled_motion_comes_to_rest_within_limits_on_its_path(
    delta: np.ndarray, share: float, scale: float
) -> None:
    arm, motion = Arm(), move(delta, scale=scale)
    arm.controller.start(motion)
    at_s = float(np.round(share * motion.duration, 2))
    arm.run(at_s)
    before = arm.controller.setpoint
    arm.controller.cancel()
    assert arm.state in (Following.CANCELLED, Following.SUCCEEDED)
    arm.run(TICK_S)
    if np.abs(before.velocity).max() > 0.05 and motion.duration - at_s > 0.3:
        # Braking has begun within the cycle: it falls behind where the motion would be.
        way = motion.at(at_s + TICK_S) - arm.told[-2]
        assert (arm.told[-1] - arm.told[-2]) @ way < way @ way
    arm.run(2.0)
    assert not arm.controller.is_moving
    np.testing.assert_array_equal(arm.told[-1], arm.told[-2])
    arm.check_limits()


def test_a_stop_in_mid_motion_is_quick_and_stays_on_the_path() -> None:
    arm, motion = Arm(), move([1.2, -0.3, 0.9, -0.5, 0.2, 0.4, -1.0], scale=0.5)
    arm.controller.start(motion)
    arm.run(motion.duration / 2)
    speed = np.abs(arm.controller.setpoint.velocity)
    arm.controller.cancel()
    arm.run(1.5)
    still = next(i for i in range(len(arm.told)) if (np.diff(arm.told[i:], axis=0) == 0.0).all())
    took_s = TICK_S * still - motion.duration / 2
    # One and a half times what constant deceleration at the limit takes.
    assert took_s <= 1.6 * (speed / LIMITS.acceleration).max() + 0.05
    line = (motion.position[-1] - READY) / np.linalg.norm(motion.position[-1] - READY)
    off = np.array(arm.told) - READY
    assert np.abs(off - np.outer(off @ line, line)).max() < 1e-9


def test_a_path_that_brakes_hard_by_itself_is_left_joint_by_joint() -> None:
    # Joint 2 brakes at its limit: slowing the path down too would exceed it.
    t = TICK_S * np.arange(21)
    a = np.zeros((21, 7))
    a[:, 1] = -7.5
    v = np.zeros((21, 7))
    v[:, 1] = 2.0 - 7.5 * t
    x = READY + np.zeros((21, 7))
    x[:, 1] += 2.0 * t - 7.5 * t**2 / 2
    path = Path(Trajectory(NAMES, t, x, v, a))
    stop = stop_on(path, 0.03, LIMITS)
    assert isinstance(stop, StopOfJoints)
    np.testing.assert_allclose(stop.duration, (2.0 - 7.5 * 0.03) / 7.5, atol=0.01)
    assert isinstance(stop_on(Path(move(0.5, scale=0.3)), 0.5, LIMITS), StopOnPath)


@given(
    st.lists(st.floats(-1.5, 1.5), min_size=7, max_size=7).map(np.array),
    st.lists(st.floats(-7.0, 7.0), min_size=7, max_size=7).map(np.array),
)
@settings(max_examples=30, deadline=None)
def test_joints_stop_from_any_speed_and_acceleration(v: np.ndarray, a: np.ndarray) -> None:
    stop = StopOfJoints(Motion(READY, v, a, STILL), LIMITS)
    times = np.linspace(0.0, stop.duration, 150)
    motions = [stop.at(t) for t in times]
    acceleration = np.array([m.acceleration for m in motions])
    assert (np.abs(acceleration) <= LIMITS.acceleration + 1e-9).all()
    np.testing.assert_allclose(motions[0].velocity, v, atol=1e-9)
    np.testing.assert_allclose(stop.at(stop.duration - 1e-9).velocity, 0.0, atol=1e-6)
    end = stop.at(stop.duration).position
    moved = np.trapezoid([m.velocity for m in motions[:-1]], times[:-1], axis=0)
    np.testing.assert_allclose(end - READY, moved, atol=2e-3)


def test_a_newer_trajectory_takes_over_after_a_stop_on_the_path() -> None:
    arm, motion = Arm(), move(0.5, scale=0.4)
    arm.controller.start(motion)
    arm.run(motion.duration / 2)
    rest = Arm()
    rest.controller.start(motion)
    rest.run(motion.duration / 2)
    rest.controller.cancel()
    rest.run(2.0)
    back = move(-0.3, start=rest.told[-1], scale=0.4)
    assert arm.controller.start(back) == 2
    assert arm.state is Following.ACTIVE
    arm.run(back.duration + 2.0)
    assert arm.state is Following.SUCCEEDED
    np.testing.assert_allclose(arm.told[-1], back.position[-1], atol=1e-6)
    arm.check_limits()


def test_a_point_in_the_future_is_joined_from_a_moving_arm() -> None:
    arm, motion = Arm(), move(0.5, scale=0.3)
    arm.controller.start(motion)
    arm.run(motion.duration / 2)
    target = READY + 0.1
    arm.controller.start(filled(NAMES, [2.0], [target]))
    arm.run(2.1)
    assert arm.state is Following.SUCCEEDED
    np.testing.assert_allclose(arm.told[-1], target, atol=1e-9)
    arm.check_limits()


def test_a_small_gap_at_the_start_is_closed_within_limits() -> None:
    arm = Arm()
    motion = move(0.3, start=READY + 0.015, scale=0.5)
    arm.controller.start(motion)
    arm.run(motion.duration + 0.5)
    assert arm.state is Following.SUCCEEDED
    np.testing.assert_allclose(arm.told[-1], motion.position[-1], atol=1e-9)
    arm.check_limits()


def test_an_arm_that_does_not_follow_is_stopped_on_its_way() -> None:
    arm, motion = Arm(), move(0.8)
    arm.controller.start(motion)
    arm.run(0.3)
    arm.error[3] = 0.12
    arm.run(1.0)
    assert arm.state is Following.PATH_TOLERANCE
    assert "panda_joint4 is 0.1200 rad off its path, 0.1000 allowed" in arm.controller.status.detail
    assert not arm.controller.is_moving
    assert np.abs(arm.told[-1] - motion.position[-1]).max() > 0.1
    arm.check_limits()


def test_what_is_measured_as_nan_is_outside_the_tolerance() -> None:
    arm = Arm()
    arm.controller.start(move(0.5))
    arm.error[0] = np.nan
    arm.run(0.1)
    assert arm.state is Following.PATH_TOLERANCE


@pytest.mark.parametrize(
    ("goal_time_s", "expected"), [(0.2, Following.GOAL_TOLERANCE), (0.0, Following.ACTIVE)]
)
def test_an_arm_that_stays_off_its_goal_fails_when_the_goal_time_is_over(
    goal_time_s: float, expected: Following
) -> None:
    arm, motion = Arm(), move(0.3)
    tolerances = replace(arm.controller.default_tolerances, goal_time_s=goal_time_s)
    arm.controller.start(motion, tolerances)
    arm.error[6] = 0.03
    arm.run(motion.duration + 0.15)
    assert arm.state is Following.ACTIVE
    arm.run(0.5)
    assert arm.state is expected
    if expected is Following.ACTIVE:
        arm.error[6] = 0.0
        arm.run(0.05)
        assert arm.state is Following.SUCCEEDED


def test_a_stalled_caller_finds_the_arm_where_it_was() -> None:
    arm = Arm()
    arm.controller.start(move(0.8))
    arm.run(0.3)
    arm.now_s += 5.0
    before = arm.told[-1]
    arm.run(TICK_S)
    speed = np.abs(arm.controller.setpoint.velocity).max()
    assert np.abs(arm.told[-1] - before).max() <= 0.021 * speed + 0.001


def broken(**changes: object) -> Trajectory:
    return replace(move(0.3), **changes)  # type: ignore[arg-type]


def with_value(name: str, value: float, joint: int = 2, point: int = 5) -> Trajectory:
    motion = move(0.3)
    array = getattr(motion, name).copy()
    array[point, joint] = value
    return replace(motion, **{name: array})


REFUSED = {
    "other joints": (broken(joint_names=("a", *NAMES[1:])), "it is of joints ['a'"),
    "repeated joints": (broken(joint_names=(NAMES[1], *NAMES[1:])), "expected ['panda_joint1'"),
    "too few joints": (
        Trajectory(NAMES[:6], np.zeros(1), np.zeros((1, 6)), np.zeros((1, 6)), np.zeros((1, 6))),
        "it is of joints",
    ),
    "no points": (
        Trajectory(NAMES, np.zeros(0), np.zeros((0, 7)), np.zeros((0, 7)), np.zeros((0, 7))),
        "it has no point",
    ),
    "NaN position": (with_value("position", np.nan), "position of panda_joint3 is not finite"),
    "infinite velocity": (with_value("velocity", np.inf), "velocity of panda_joint3 is not finite"),
    "NaN acceleration": (with_value("acceleration", np.nan), "acceleration of panda_joint3"),
    "times that stand still": (
        broken(time=np.zeros(len(move(0.3).time))),
        "its points' times do not increase",
    ),
    "NaN time": (broken(time=np.full(len(move(0.3).time), np.nan)), "times do not increase"),
    "start too far away": (
        move(0.1, start=READY + np.eye(7)[4] * 0.03),
        "it begins too far from where the arm is: panda_joint5 at 0.0300 rad",
    ),
    "beyond a position": (move([0, 0, 0, 2.3, 0, 0, 0]), "panda_joint4 comes to -0.0560 rad"),
    "too fast": (
        filled(NAMES, [0.0, 0.3], [READY, READY + 0.5]),
        "exceeds a limit: ",
    ),
    "a velocity beyond its limit": (with_value("velocity", 3.0), "exceeds a limit"),
    "moves at its end": (with_value("velocity", 0.5, point=-1), "its last point is not at rest"),
    "moves at its start": (with_value("velocity", 0.5, point=0), "its first point is not at rest"),
    "a far point too soon": (
        filled(NAMES, [0.1], [READY + 0.3]),
        "the way to its first point in 0.100 s exceeds a limit",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_trajectory_is_refused_by_name_and_the_present_one_goes_on(name: str) -> None:
    bad, why = REFUSED[name]
    arm, motion = Arm(), move(0.4)
    arm.controller.start(motion)
    # The arm has not left yet: what starts where it is could take over.
    with pytest.raises(TrajectoryRefused) as refusal:
        arm.controller.start(bad)
    assert why in str(refusal.value)
    assert refusal.value.is_of_other_joints == ("joints" in name)
    arm.run(motion.duration + 0.1)
    assert arm.state is Following.SUCCEEDED


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"position": np.zeros((2, 6))}, "its positions have shape (2, 6), expected (2, 7)"),
        ({"velocity": np.zeros((3, 7))}, "its velocities have shape (3, 7), expected (2, 7)"),
        ({"acceleration": np.zeros((2, 1))}, "its accelerations have shape (2, 1)"),
        ({"time": [1.0, -1.0]}, "times do not increase"),
    ],
)
def test_points_of_other_lengths_are_refused(changes: dict, why: str) -> None:
    given = {"time": [0.0, 1.0], "position": [READY, READY]} | changes
    with pytest.raises(TrajectoryRefused) as refusal:
        filled(NAMES, **given)
    assert why in str(refusal.value)


def test_a_stop_of_the_robots_own_ends_a_trajectory_with_its_reason() -> None:
    arm = Arm()
    arm.controller.start(move(0.8))
    arm.run(0.3)
    arm.controller.stop("emergency stop pressed")
    assert arm.state is Following.STOPPED
    assert arm.controller.status.detail == "emergency stop pressed"
    arm.run(1.5)
    assert not arm.controller.is_moving
    arm.check_limits()


def test_positions_alone_make_a_smooth_motion() -> None:
    arm = Arm()
    points = READY + np.outer([0.0, 0.2, 0.3, 0.1], np.ones(7))
    arm.controller.start(filled(NAMES, [0.0, 1.0, 2.0, 3.0], points))
    arm.run(3.1)
    assert arm.state is Following.SUCCEEDED
    np.testing.assert_allclose(arm.told[200], points[2], atol=1e-9)
    arm.check_limits()
