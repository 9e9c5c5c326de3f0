# SPDX-License-Identifier: Apache-2.0
"""The loop of a Franka arm: commands by its guard as for any joints, and trajectories beside them.

A trajectory is one source of commands among others: what the arm is told on its way is handed to
the guard, which refuses it while another source commands or while it is stopped, and refuses the
others meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from twinloop.drivers.base import Array
from twinloop.drivers.faults import DeviceLost
from twinloop.drivers.franka import FrankaDriver
from twinloop.drivers.franka_arm.follower import Mode
from twinloop.drivers.franka_arm.slowing import slowed
from twinloop.drivers.loop import DriverLoop
from twinloop.motion.admission import admitted
from twinloop.motion.semantics import arm_limits
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import (
    ControllerSettings,
    Following,
    Setpoint,
    Status,
    Tolerances,
    TrajectoryRefused,
)
from twinloop.safety.verdict import GuardSettings, GuardState, Refusal

SOURCE = "panda_arm_controller"
_REST = 1e-3  # rad/s


class FrankaLoop(DriverLoop):
    """Runs a Franka arm behind a command guard, as `DriverLoop` runs other joints.

    Attributes:
        trajectories: its arm as a controller of trajectories.

    Args: see `DriverLoop`.
    """

    driver: FrankaDriver

    def __init__(
        self,
        driver: FrankaDriver,
        guard_settings: GuardSettings,
        ros_now: Callable[[], int],
        *arguments: Any,
        **more: Any,
    ) -> None:
        super().__init__(driver, guard_settings, ros_now, *arguments, **more)
        self.trajectories = ArmTrajectories(self)
        self.slowed_by = 1.0
        self._is_starting = False
        self._settled = (
            0  # number of the trajectory after which the guard stands where the arm does
        )
        self._names = list(driver.robot.joint_names)

    def connect(self) -> None:
        self.driver.is_given_up = self._ending.is_set()
        super().connect()

    def halt(self, reason: str = "the driver was deactivated", patience_s: float = 3.0) -> None:
        self.driver.is_given_up = True
        super().halt(reason, patience_s)

    def follow(self, trajectory: Trajectory, tolerances: Tolerances) -> int:
        """Take a trajectory on; returns its number.

        One that is too fast for the arm near the ends of its travel, where the arm's own limits
        shrink, is followed more slowly.

        Args:
            trajectory: its joints in any order.
            tolerances: on its way and at its end.

        Raises:
            TrajectoryRefused: it cannot be followed; says why. What was followed goes on.
        """
        trajectory = admitted(trajectory, self.driver.robot.joint_names, arm_limits())
        trajectory, factor = slowed(trajectory, self.driver.robot)
        if self._state != "running":
            raise TrajectoryRefused(f"the arm is not ready: {self._text}")
        self._is_starting = True
        try:
            position, _ = self.driver.told()
            refusal = self._claim(position)
            if refusal:
                raise TrajectoryRefused(refusal)
            number = self.driver.follow(trajectory, tolerances)
        except DeviceLost as error:
            raise TrajectoryRefused(str(error)) from error
        except TrajectoryRefused:
            if self.driver.motion.is_over and self._has_it():
                self._let_go(position)
            raise
        finally:
            self._is_starting = False
        self.slowed_by = factor
        return number

    def lose_source(self) -> None:
        """The middleware lost a source of the topic's; a trajectory is none of them."""
        if not self._has_it():
            super().lose_source()

    # The loop's cycle.

    def cycle(self) -> None:
        guard = self.guard
        if guard is None or guard.state in (GuardState.STOPPED, GuardState.EMERGENCY_STOP):
            self.driver.permit(Mode.BRAKE)
        elif self._has_it():
            self.driver.permit(Mode.FOLLOW)
        else:
            self.driver.permit(Mode.STREAM)
        super().cycle()
        if self._is_engaged:
            self._accompany()

    def _accompany(self) -> None:
        """Hand what the arm is told on its way to the guard, and go by its word."""
        status = self.driver.motion
        position, velocity = self.driver.told()
        if status.state is Following.ACTIVE:
            guard = self.guard
            assert guard is not None
            refusal = self._claim(position) if self._has_it() else guard.reason
            if refusal and not self._is_starting:
                self.driver.cancel(refusal)
        elif self._settled != status.number and not self._is_starting:
            if np.abs(velocity).max() < _REST:
                self._settled = status.number
                self._let_go(position)
            elif self._has_it():
                self._claim(position)

    def _claim(self, position: ArrayLike) -> str:
        """Command the guard to where the arm is told to be; returns why it refuses, if it does."""
        guard = self.guard
        if guard is None:
            return self._text
        verdict = self.submit(self._names, position, self._ros_now(), SOURCE)
        if verdict is None or verdict.refusal is None or verdict.refusal is Refusal.REPEATED:
            return ""
        return verdict.detail

    def _has_it(self) -> bool:
        guard = self.guard
        return guard is not None and guard.state is GuardState.ACTIVE and guard.source == SOURCE

    def _let_go(self, position: Array) -> None:
        """Have the guard stand where the arm does, free for whoever commands next."""
        with self.lock:
            guard = self.guard
            if guard is not None and guard.state in (GuardState.HOLDING, GuardState.ACTIVE):
                guard.restart(position, self._ros_now(), "the trajectory is over")


class ArmTrajectories:
    """A Franka arm as a controller of trajectories, for whoever serves its action.

    It is used as `twinloop.motion.trajectory_controller.TrajectoryController` is, but for `step`,
    which the arm's own process does.

    Args:
        loop: of the arm.
    """

    def __init__(self, loop: FrankaLoop) -> None:
        self._loop = loop
        self.joint_names = loop.driver.robot.joint_names
        self.default_tolerances = ControllerSettings().tolerances(len(self.joint_names))

    @property
    def status(self) -> Status:
        """What became of the newest trajectory."""
        return self._loop.driver.motion

    @property
    def setpoint(self) -> Setpoint:
        """What the arm was told last; nothing is known where it is not there."""
        try:
            position, velocity = self._loop.driver.told()
        except DeviceLost:
            position = velocity = np.full(len(self.joint_names), np.nan)
        return Setpoint(position, velocity, np.zeros_like(velocity))

    @property
    def is_moving(self) -> bool:
        """Whether what the arm is told moves, be it to brake."""
        return bool(np.abs(self.setpoint.velocity).max() >= _REST)

    def start(self, trajectory: Trajectory, tolerances: Tolerances | None = None) -> int:
        """See `FrankaLoop.follow`."""
        return self._loop.follow(trajectory, tolerances or self.default_tolerances)

    def cancel(self, why: str = "cancelled") -> None:
        """Give the trajectory up; the next millisecond already brakes."""
        with contextlib.suppress(DeviceLost):
            self._loop.driver.cancel(why)
