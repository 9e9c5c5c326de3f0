# SPDX-License-Identifier: Apache-2.0
"""The command guard of a control loop, as other threads see it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from twinloop.drivers.base import Array
from twinloop.robots.base import Robot
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GoalChange, GuardSettings, GuardState, Verdict

_EASE = 0.2  # share of a joint's speed at which it is led back inside its limits


class GuardAccess:
    """A guard that comes with the first measured position, and the lock that it is used under.

    Args:
        robot: whose joints it guards.
        period_s: between two ticks, s.
        guard_settings: of the guard; its tick is set to the period.
        ros_now: ROS time, ns.
        steady_now: the steady clock, s.
    """

    def __init__(
        self,
        robot: Robot,
        period_s: float,
        guard_settings: GuardSettings,
        ros_now: Callable[[], int],
        steady_now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.guard: CommandGuard | None = None
        self.lock = threading.RLock()
        self._robot = robot
        self._period_s = period_s
        self._guard_settings = dataclasses.replace(guard_settings, tick_s=period_s)
        self._ros_now = ros_now
        self._steady_now = steady_now
        self._overhang = np.zeros(len(robot.joint_names))

    def submit(
        self, names: Sequence[str], positions: ArrayLike, stamp_ns: int, source: str
    ) -> Verdict | None:
        """Hand a command to the guard; None where there is none yet. See `CommandGuard.submit`."""
        with self.lock:
            if self.guard is None:
                return None
            return self.guard.submit(
                names, positions, stamp_ns, source, self._ros_now(), self._steady_now()
            )

    def submit_hold(self, source: str) -> None:
        """Let a source come to rest; see `CommandGuard.submit_hold`."""
        with self.lock:
            if self.guard is not None:
                self.guard.submit_hold(source, self._ros_now(), self._steady_now())

    def emergency_stop(self, is_pressed: bool) -> None:
        """Take one heartbeat of the emergency stop."""
        with self.lock:
            if self.guard is not None:
                self.guard.emergency_stop(is_pressed, self._ros_now(), self._steady_now())

    def hold(self, reason: str) -> None:
        """Come to rest from the next cycle on, and stay until a source commands."""
        with self.lock:
            if self.guard is not None:
                self.guard.hold(reason, self._ros_now())

    def lose_source(self) -> None:
        """The middleware lost a command source."""
        with self.lock:
            if self.guard is not None:
                self.guard.lose_source(self._ros_now())

    def take_changes(self) -> list[GoalChange]:
        """Goals that the guard set by itself since the last call."""
        with self.lock:
            return self.guard.take_changes() if self.guard is not None else []

    def _stop_guard(self, text: str) -> None:
        with self.lock:
            if self.guard is not None:
                self.guard.stop(text, self._ros_now())

    def _stand(self, position: Array) -> None:
        """Have the guard stand where the joints do; a stop of it stays one."""
        old = self.guard
        if old is None:
            self.guard = CommandGuard(self._robot, self._guard_settings, position)
        elif old.state in (GuardState.HOLDING, GuardState.ACTIVE):
            old.restart(position, self._ros_now(), "connected")

    # Joints that do not stand where the guard does, outside their limits say, stay where they are;
    # once commanded they are led back without a jump.

    def _hang_over(self, position: Array) -> None:
        assert self.guard is not None
        self._overhang = position - self.guard.applied

    def _led_back(self, setpoint: Array) -> Array:
        assert self.guard is not None
        if not self._overhang.any():
            return setpoint
        if self.guard.state is GuardState.ACTIVE:
            step = _EASE * self._robot.velocity * self._period_s
            self._overhang -= np.clip(self._overhang, -step, step)
        return setpoint + self._overhang

    def _is_guard_at_rest(self) -> bool:
        guard = self.guard
        if guard is None:
            return True
        goal = np.clip(guard.goal, self._robot.lower, self._robot.upper)
        return bool(np.array_equal(guard.applied, goal))
