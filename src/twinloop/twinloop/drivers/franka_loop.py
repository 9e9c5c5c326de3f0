# SPDX-License-Identifier: Apache-2.0
"""The loop of a Franka arm: commands by its guard as for any joints, and trajectories beside them.

A trajectory is one source of commands among others: what the arm is told on its way is handed to
the guard, which refuses it while another source commands or while it is stopped, and refuses the
others meanwhile.
"""

from __future__ import annotations

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
from twinloop.motion.semantics import Limits, arm_limits
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

    It is a controller of trajectories too, to be used as
    `twinloop.motion.trajectory_controller.TrajectoryController` is, but for `step`, which the arm's
    own process does.

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
        self.limits: Limits = arm_limits()
        self.slowed_by = 1.0
        self._is_starting = False
        self._tolerances = ControllerSettings().tolerances(len(driver.robot.joint_names))

    # What a controller of trajectories offers.

    @property
    def joint_names(self) -> tuple[str, ...]:
        return self.driver.robot.joint_names

    @property
    def default_tolerances(self) -> Tolerances:
        return self._tolerances

    @property
    def motion(self) -> Status:
        """What became of the newest trajectory."""
        return self.driver.motion

    @property
    def setpoint(self) -> Setpoint:
        """What the arm was told last.

        Raises:
            DeviceLost: nothing, there is none.
        """
        position, velocity = self.driver.told()
        return Setpoint(position, velocity, np.zeros_like(velocity))

    def follow(self, trajectory: Trajectory, tolerances: Tolerances | None = None) -> int:
        """Take a trajectory on; returns its number.

        One that is too fast for the arm near the ends of its travel, where the arm's own limits
        shrink, is followed more slowly.

        Args:
            trajectory: its joints in any order.
            tolerances: default: a controller's own.

        Raises:
            TrajectoryRefused: it cannot be followed; says why. What was followed goes on.
        """
        trajectory = admitted(trajectory, self.joint_names, self.limits)
        trajectory, factor = slowed(trajectory, self.driver.robot)
        if self._state != "running":
            raise TrajectoryRefused(f"the arm is not ready: {self._text}")
        self._is_starting = True
        try:
            position, _ = self.driver.told()
            refusal = self._claim(position)
            if refusal:
                raise TrajectoryRefused(refusal)
            number = self.driver.follow(trajectory, tolerances or self._tolerances)
        except DeviceLost as error:
            raise TrajectoryRefused(str(error)) from error
        except TrajectoryRefused:
            if self.driver.motion.is_over:
                self._let_go()
            raise
        finally:
            self._is_starting = False
        self.slowed_by = factor
        return number

    def give_up(self, why: str) -> None:
        """Cancel the trajectory; the next millisecond already brakes."""
        try:
            self.driver.cancel(why)
        except DeviceLost:
            return

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
            refusal = self._claim(position)
            if refusal:
                self.driver.cancel(refusal)
        elif self._has_it():
            if np.abs(velocity).max() < _REST and not self._is_starting:
                self._let_go(position)
            else:
                self._claim(position)

    def _claim(self, position: ArrayLike) -> str:
        """Command the guard to where the arm is told to be; returns why it refuses, if it does."""
        guard = self.guard
        if guard is None:
            return self._text
        verdict = self.submit(list(self.joint_names), position, self._ros_now(), SOURCE)
        if verdict is None or verdict.refusal is None or verdict.refusal is Refusal.REPEATED:
            return ""
        return verdict.detail

    def _has_it(self) -> bool:
        guard = self.guard
        return guard is not None and guard.state is GuardState.ACTIVE and guard.source == SOURCE

    def _let_go(self, position: Array | None = None) -> None:
        """Have the guard stand where the arm does, free for whoever commands next."""
        with self.lock:
            if self._has_it():
                assert self.guard is not None
                if position is None:
                    position = self.driver.told()[0]
                self.guard.restart(position, self._ros_now(), "the trajectory is over")
