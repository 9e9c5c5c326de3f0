# SPDX-License-Identifier: Apache-2.0
"""Setpoints of a Franka arm keep to its limits, whatever is asked, allowed or missed."""

from __future__ import annotations

import numpy as np
import pytest
from twinloop.drivers.franka_arm.follower import Follower, Mode
from twinloop.drivers.franka_arm.limiter import STEP_S, Limiter
from twinloop.drivers.franka_arm.limits import LIMITS, bounded
from twinloop.drivers.franka_arm.slowing import slowed
from twinloop.motion.semantics import arm_limits
from twinloop.motion.timing import assemble, straight_leg
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import (
    ControllerSettings,
    Following,
    TrajectoryRefused,
)
from twinloop.robots.dclaw import DCLAW
from twinloop.robots.panda import PANDA

ROBOT = bounded(PANDA)
READY = PANDA.poses["ready"]
TOLERANCES = ControllerSettings().tolerances(7)
# libfranka's own, which the arm answers with a reflex; see `limits.py`.
ACCELERATION, JERK = 10.0, 5000.0
OFFSET = np.array([0.30, 0.20, 0.20, 0.30, 0.35, 0.35, 0.35])
DECELERATION = np.array([6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0])
VELOCITY = np.array([2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26])


def check(positions: np.ndarray) -> None:
    """Assert that positions [T, 7], rad, a millisecond apart, are what an FR3 accepts."""
    assert (positions > LIMITS.lower).all()
    assert (positions < LIMITS.upper).all()
    velocity = np.diff(positions, axis=0) / STEP_S
    acceleration = np.diff(velocity, axis=0) / STEP_S
    at = positions[1:]
    up = np.sqrt(2 * DECELERATION * (LIMITS.upper - at)) - OFFSET
    down = np.sqrt(2 * DECELERATION * (at - LIMITS.lower)) - OFFSET
    tolerance = 0.031
    assert (velocity <= np.minimum(VELOCITY, np.maximum(up, 0.0)) - tolerance + 1e-6).all()
    assert (-velocity <= np.minimum(VELOCITY, np.maximum(down, 0.0)) - tolerance + 1e-6).all()
    assert np.abs(acceleration).max() < ACCELERATION
    assert np.abs(np.diff(acceleration, axis=0)).max() / STEP_S < JERK


def motion_to(goal: np.ndarray, start: np.ndarray = READY, share: float = 0.5) -> Trajectory:
    leg = straight_leg(0, goal - start, arm_limits().scaled(share, 0.3 * share / 0.5))
    return assemble(PANDA.joint_names, start, [leg])


def test_whatever_the_reference_does_the_limiter_keeps_inside() -> None:
    rng = np.random.default_rng(3)
    limiter, told = Limiter(READY), []
    for _ in range(25):
        reference = rng.uniform(LIMITS.lower - 0.5, LIMITS.upper + 0.5)
        corner = np.where(rng.random(7) < 0.5, LIMITS.lower, LIMITS.upper)
        wanted = reference if rng.random() < 0.7 else corner
        speed = rng.normal(0.0, 2.0, 7) * (rng.random() < 0.5)
        for _ in range(rng.integers(1, 900)):
            told.append(limiter.follow(wanted, speed, rng.normal(0.0, 30.0, 7)))
    check(np.array(told))


def test_a_reference_inside_the_limits_is_followed_exactly() -> None:
    limiter = Limiter(READY)
    rate = 2 * np.pi * 0.5
    for t in np.arange(1, 3001) * STEP_S:
        position = READY + 0.15 * (1 - np.cos(rate * t))
        velocity = np.full(7, 0.15 * rate * np.sin(rate * t))
        acceleration = np.full(7, 0.15 * rate**2 * np.cos(rate * t))
        told = limiter.follow(position, velocity - acceleration * STEP_S / 2, acceleration)
        np.testing.assert_allclose(told, position, atol=1e-5)


def test_a_step_is_reached_without_overshoot() -> None:
    limiter = Limiter(READY)
    goal = READY + np.array([1.0, 0.5, -1.0, 0.7, 1.0, 1.0, -1.0])
    way = np.array([limiter.follow(goal, np.zeros(7), np.zeros(7)) for _ in range(2500)])
    assert ((way - goal) * np.sign(goal - READY)).max() < 1e-9
    np.testing.assert_allclose(way[-1], goal, atol=1e-6)


class Bench:
    """A follower, and an arm that is where it is told; it extrapolates where nothing comes."""

    def __init__(self) -> None:
        self.follower = Follower(ROBOT)
        self.follower.stand(READY)
        self.told = [READY]
        self.mode, self.target = Mode.STREAM, READY

    def run(self, steps: int, passed: int = 1) -> None:
        for _ in range(steps):
            measured = self.told[-1]
            self.told.append(
                self.follower.step(self.mode, self.target, passed * STEP_S, measured, np.zeros(7))
            )

    def miss(self, cycles: int) -> None:
        """Cycles go by: the arm goes on with the acceleration it has, and its driver sees that."""
        velocity = (self.told[-1] - self.told[-2]) / STEP_S
        acceleration = (velocity - (self.told[-2] - self.told[-3]) / STEP_S) / STEP_S
        for _ in range(cycles):
            velocity = velocity + acceleration * STEP_S
            self.told.append(self.told[-1] + velocity * STEP_S)
        self.follower.rebase(self.told[-1], velocity, acceleration)
        self.run(1, cycles + 1)


def test_nothing_moves_until_the_targets_do_wherever_they_are() -> None:
    bench = Bench()
    bench.target = READY + 0.02
    bench.run(300)
    assert (np.array(bench.told) == READY).all()
    for k in range(100):
        bench.target = READY + 0.02 + 0.001 * k
        bench.run(10)
    bench.run(300)
    # It moved as the targets did, and has taken back what it was off.
    np.testing.assert_allclose(bench.told[-1], bench.target, atol=1e-5)
    check(np.array(bench.told))


def test_a_driver_that_goes_silent_leaves_the_arm_at_rest() -> None:
    bench = Bench()
    for k in range(50):
        bench.target = READY + 0.01 * k
        bench.run(10)
    bench.mode = Mode.BRAKE
    bench.run(250)
    assert bench.follower.is_at_rest
    rest = bench.told[-1]
    # Back again, it stays where it came to rest.
    bench.mode = Mode.STREAM
    bench.run(300)
    np.testing.assert_allclose(bench.told[-1], rest, atol=1e-12)
    check(np.array(bench.told))


def test_a_trajectory_is_followed_to_its_end() -> None:
    bench = Bench()
    goal = READY + np.array([0.3, 0.2, -0.3, 0.2, 0.4, 0.3, -0.5])
    trajectory = motion_to(goal)
    bench.follower.follow(trajectory, TOLERANCES)
    bench.mode = Mode.FOLLOW
    bench.run(round(trajectory.duration / STEP_S) + 50)
    assert bench.follower.status.state is Following.SUCCEEDED
    np.testing.assert_allclose(bench.told[-1], goal, atol=1e-4)
    times = (np.arange(len(bench.told)) - 1) * STEP_S
    np.testing.assert_allclose(bench.told, trajectory.at(times), atol=2e-4)
    check(np.array(bench.told))


@pytest.mark.parametrize("mode", [Mode.BRAKE, Mode.STREAM])
def test_a_trajectory_that_is_no_longer_allowed_is_stopped_on_its_path(mode: Mode) -> None:
    bench = Bench()
    bench.follower.follow(motion_to(READY + 0.4), TOLERANCES)
    bench.mode = Mode.FOLLOW
    bench.run(400)
    bench.mode = mode
    bench.run(600)
    assert bench.follower.status.state is Following.STOPPED
    assert bench.follower.is_at_rest
    told = np.array(bench.told)
    # All joints go the same way: on the path they stay equal.
    assert np.ptp(told - READY, axis=1).max() < 1e-4
    check(told)


def test_what_the_arm_did_by_itself_meanwhile_is_gone_on_from() -> None:
    bench = Bench()
    rng = np.random.default_rng(7)
    bench.follower.follow(motion_to(READY + 0.5), TOLERANCES)
    bench.mode = Mode.FOLLOW
    for _ in range(12):
        bench.run(int(rng.integers(20, 100)))
        bench.miss(int(rng.integers(1, 15)))
    bench.run(600)
    np.testing.assert_allclose(bench.told[-1], READY + 0.5, atol=1e-4)
    check(np.array(bench.told))


def test_any_order_of_modes_targets_trajectories_and_gaps_keeps_inside() -> None:
    rng = np.random.default_rng(11)
    bench = Bench()
    for _ in range(150):
        bench.mode = Mode(int(rng.integers(3)))
        bench.target = np.clip(bench.told[-1] + rng.normal(0.0, 0.3, 7), ROBOT.lower, ROBOT.upper)
        if bench.follower.is_at_rest and rng.random() < 0.6:
            goal = np.clip(READY + rng.uniform(-0.6, 0.6, 7), ROBOT.lower, ROBOT.upper)
            trajectory, _ = slowed(motion_to(goal, bench.told[-1]), ROBOT)
            bench.follower.follow(trajectory, TOLERANCES)
            bench.mode = Mode.FOLLOW
        bench.run(int(rng.integers(3, 300)))
        if rng.random() < 0.4:
            bench.miss(int(rng.integers(1, 15)))
    check(np.array(bench.told))


def test_a_motion_that_the_arm_would_refuse_is_slowed_down() -> None:
    start = np.array([0.0, 1.0, 0.0, -1.5, 0.0, 1.5, 0.0])
    goal = start + np.array([0.0, 0.7, 0.0, 0.0, 0.0, 0.0, 0.0])
    trajectory = motion_to(goal, start, share=1.0)
    slow, factor = slowed(trajectory, ROBOT)
    assert 1.2 < factor < 5.0
    assert slow.duration == pytest.approx(factor * trajectory.duration)
    same, one = slowed(motion_to(READY + 0.1), ROBOT)
    assert one == 1.0
    assert same.duration == motion_to(READY + 0.1).duration


def test_a_motion_far_too_fast_is_refused_by_joint() -> None:
    times = np.array([0.0, 0.1, 0.2])
    position = np.array([[0.0] * 7, [0.5] * 7, [1.0] * 7]) + READY
    flat = np.zeros((3, 7))
    with pytest.raises(TrajectoryRefused, match="asks for 6.1 times as long"):
        slowed(Trajectory(PANDA.joint_names, times, position, flat, flat), ROBOT)


def test_another_robot_than_a_franka_is_refused() -> None:
    with pytest.raises(ValueError, match="has 9"):
        bounded(DCLAW)
