# SPDX-License-Identifier: Apache-2.0
"""Where the arm is to be in the next millisecond: it streams, follows a trajectory, or brakes."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from twinloop.drivers.franka_arm.limiter import STEP_S, Limiter
from twinloop.motion.semantics import Limits
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import (
    ControllerSettings,
    Status,
    Tolerances,
    TrajectoryController,
    TrajectoryRefused,
)
from twinloop.robots.base import Robot

Array = NDArray[np.float64]

_TAPS = 10  # milliseconds between two targets, of a driver at 100 Hz
_GRACE_S = 1.0  # for a driver to say that it leaves the arm to a trajectory
_BLEED = 0.2  # rad/s at which a difference from the targets is taken back, while these move


class Mode(IntEnum):
    """What a driver lets the arm do."""

    BRAKE = 0
    STREAM = 1
    FOLLOW = 2


class Follower:
    """Setpoints a millisecond apart, all inside the limits.

    Targets that come a hundred times a second are led through two averages of their period, so the
    setpoints have no steps in velocity. Where streaming begins, the arm stays: only how targets
    change moves it, and what they are off is taken back slowly while they do.

    Args:
        robot: names and limits of trajectories.
        settings: default tolerances of trajectories.
    """

    def __init__(self, robot: Robot, settings: ControllerSettings | None = None) -> None:
        self.limiter = Limiter(np.zeros(7))
        self.mode = Mode.BRAKE
        self._weights = np.convolve(np.full(_TAPS, 1.0 / _TAPS), np.full(_TAPS, 1.0 / _TAPS))
        self._targets = np.zeros((2 * _TAPS - 1, 7))
        self._target = np.zeros(7)
        self._reference = np.zeros(7)
        self._velocity = np.zeros(7)
        self._offset = np.zeros(7)
        self._now_s = 0.0
        self._follows = False
        self._until_s = 0.0
        limits = Limits(robot.lower, robot.upper, robot.velocity, robot.acceleration, robot.jerk)
        self._controller = TrajectoryController(robot.joint_names, limits, np.zeros(7), settings)

    @property
    def status(self) -> Status:
        """Of the newest trajectory."""
        return self._controller.status

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing moves, nor will without being told to."""
        return self.limiter.is_at_rest and not self._controller.is_moving

    def stand(self, position: Array) -> None:
        """Begin at rest at a position [7], rad."""
        self.limiter.rebase(position, np.zeros(7), np.zeros(7))
        self._controller.hold(position, "the arm was engaged anew")
        self._follows = False
        self.mode = Mode.BRAKE

    def rebase(self, position: Array, velocity: Array, acceleration: Array) -> None:
        """The arm went on by itself: go on from there. Each [7]: rad, rad/s, rad/s^2."""
        self.limiter.rebase(position, velocity, acceleration)

    def follow(self, trajectory: Trajectory, tolerances: Tolerances) -> int:
        """Take a trajectory on; returns its number.

        Raises:
            TrajectoryRefused: the arm moves otherwise, or the trajectory cannot be followed.
        """
        if not self._follows:
            if not self.limiter.is_at_rest:
                raise TrajectoryRefused("the arm still moves by another command")
            self._controller.hold(self.limiter.position)
        number = self._controller.start(trajectory, tolerances)
        self._follows = True
        self._until_s = self._now_s + _GRACE_S
        return number

    def cancel(self, why: str) -> None:
        """Give the trajectory up; the next step already brakes."""
        self._controller.cancel(why)

    def step(
        self, mode: Mode, target: Array, passed_s: float, q: Array, qd: Array, why: str = ""
    ) -> Array:
        """Advance; returns the setpoint [7], rad.

        Args:
            mode: what is allowed.
            target: newest of streaming [7], rad.
            passed_s: since the last step, s.
            q, qd: measured [7], rad, rad/s.
            why: a trajectory is stopped, where it is.
        """
        self._now_s += passed_s
        if self._follows:
            if mode is Mode.FOLLOW:
                self._until_s = self._now_s
            is_left = mode is Mode.BRAKE or self._now_s > self._until_s
            if mode is not Mode.FOLLOW and is_left:
                self._controller.stop(why)
            setpoint = self._controller.step(self._now_s, q, qd)
            if mode is not Mode.FOLLOW and not self._controller.is_moving:
                self._follows = False
            self.mode = Mode.FOLLOW
            change = setpoint.acceleration * (STEP_S / 2)
            return self.limiter.follow(
                setpoint.position, setpoint.velocity - change, setpoint.acceleration
            )
        if mode is Mode.STREAM:
            return self._stream(target)
        self.mode = Mode.BRAKE
        return self.limiter.brake()

    def _stream(self, target: Array) -> Array:
        if self.mode is not Mode.STREAM:
            if not self.limiter.is_at_rest:
                return self.limiter.brake()
            self.mode = Mode.STREAM
            self._target = target
            self._offset = self.limiter.position - target
            self._targets[:] = self._reference = self.limiter.position
            self._velocity = np.zeros(7)
        if (target != self._target).any():
            self._target = target
            change = _BLEED * STEP_S * _TAPS
            self._offset = self._offset - np.minimum(np.maximum(self._offset, -change), change)
        targets = self._targets
        targets[1:] = targets[:-1]
        targets[0] = target + self._offset
        # Averaged as differences, so that rest is exact: the weights only nearly sum to one.
        reference = targets[0] + self._weights @ (targets - targets[0])
        velocity = (reference - self._reference) / STEP_S
        acceleration = (velocity - self._velocity) / STEP_S
        self._reference, self._velocity = reference, velocity
        return self.limiter.follow(reference, velocity, acceleration)
