# SPDX-License-Identifier: Apache-2.0
"""Opens and closes a parallel gripper, as ros2_controllers' GripperActionController does.

::

    gripper = GripperController(PANDA_GRIPPER, width_m)
    gripper.start(0.02, max_effort_n=30.0)          # raises GripperRefused
    target = gripper.step(now_s, measured_width_m)  # each tick
    gripper.status                                  # REACHED, or STALLED: it holds something
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from twinloop.motion.errors import MotionError
from twinloop.robots.panda import FINGER_TRAVEL_M


class GripperRefused(MotionError):
    """A gripper command cannot be followed."""


class Grip(StrEnum):
    """What became of the newest command."""

    IDLE = "idle"
    MOVING = "moving"
    REACHED = "reached"
    STALLED = "stalled"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    STOPPED = "stopped"


@dataclass(frozen=True)
class GripperStatus:
    """State of one command.

    Attributes:
        state: what became of it.
        number: counts the commands that were taken on, from 1.
        width_m: that was measured last.
        detail: one sentence for a person.
    """

    state: Grip = Grip.IDLE
    number: int = 0
    width_m: float = 0.0
    detail: str = ""

    @property
    def is_over(self) -> bool:
        return self.state is not Grip.MOVING


@dataclass(frozen=True)
class GripperSettings:
    """Of a parallel gripper; widths are between the fingers.

    Attributes:
        widest_m: how far it opens.
        speed: of the width, m/s: Franka's fingers each go at 0.1 m/s at most.
        max_effort_n: the force that it closes with, unless a command says less.
        goal_tolerance_m: how near the target is reached.
        stall_speed: of the width, m/s, below which it does not move.
        stall_s: how long it must not move to count as stalled.
        max_step_s: it goes on by at most this much in one step.
    """

    widest_m: float = 2 * FINGER_TRAVEL_M
    speed: float = 0.2
    max_effort_n: float = 70.0
    goal_tolerance_m: float = 0.001
    stall_speed: float = 0.002
    stall_s: float = 0.1
    max_step_s: float = 0.02


PANDA_GRIPPER = GripperSettings()


@dataclass(frozen=True)
class GripperTarget:
    """What the fingers' servos are told: a width, m, and the force to reach it with at most, N."""

    width_m: float
    max_effort_n: float


class GripperController:
    """Moves the width steadily to its target, and tells when it is there or something is between.

    Args:
        settings: of the gripper.
        width_m: measured at the start; held.
    """

    def __init__(self, settings: GripperSettings, width_m: float) -> None:
        self.settings = settings
        self.status = GripperStatus()
        self._now_s: float | None = None
        self._speed = settings.speed
        self.hold(width_m)

    def hold(self, width_m: float, why: str = "") -> None:
        """Stay at this width from now on; a command that was followed is STOPPED.

        Raises:
            GripperRefused: a width that is not finite.
        """
        if not math.isfinite(width_m):
            raise GripperRefused(f"gripper: width {width_m} m, expected a finite one")
        self._end(Grip.STOPPED, why)
        inside = min(max(width_m, 0.0), self.settings.widest_m)
        self._goal_m = inside
        self.target = GripperTarget(inside, self.settings.max_effort_n)
        self._measured_m = width_m
        self._still_s = 0.0

    def start(self, width_m: float, max_effort_n: float = 0.0, speed: float | None = None) -> int:
        """Go to a width from the next step on; returns the command's number.

        Args:
            width_m: between the fingers.
            max_effort_n: force at most, N; 0 for the gripper's own.
            speed: of the width, m/s at most; default: the gripper's own.

        Raises:
            GripperRefused: a value that is not finite or out of range; says which.
        """
        settings = self.settings
        speed = settings.speed if speed is None else speed
        for what, value, low, high in (
            ("width", width_m, -1e-6, settings.widest_m + 1e-6),
            ("max_effort", max_effort_n, 0.0, settings.max_effort_n),
            ("speed", speed, 1e-4, settings.speed),
        ):
            if not low <= value <= high:  # false for NaN too
                raise GripperRefused(
                    f"gripper: {what} is {value}, expected {max(low, 0.0):g} to {high:g}"
                )
        self._end(Grip.PREEMPTED, "a newer command took over")
        self._goal_m = min(max(width_m, 0.0), settings.widest_m)
        self._speed = speed
        # From where the fingers are, unless they already press that way: a grip must not loosen.
        at_m = min(max(self._measured_m, 0.0), settings.widest_m)
        told_m = self.target.width_m
        presses = (told_m - at_m) * (self._goal_m - at_m) > 0.0
        between = told_m if presses else at_m
        self.target = GripperTarget(between, max_effort_n or settings.max_effort_n)
        self._still_s = 0.0
        self.status = GripperStatus(Grip.MOVING, self.status.number + 1, self._measured_m)
        return self.status.number

    def cancel(self, why: str = "cancelled") -> None:
        """Stand still: what is held stays held."""
        self._give_up(Grip.CANCELLED, why)

    def stop(self, why: str) -> None:
        """As `cancel`, for a reason of the robot's own: an emergency stop, a fault."""
        self._give_up(Grip.STOPPED, why)

    def step(self, now_s: float, width_m: float) -> GripperTarget:
        """Advance to a time, s; returns what to tell the servos, from the width measured now, m."""
        before, self._now_s = self._now_s, now_s
        settings = self.settings
        passed = 0.0 if before is None else min(max(now_s - before, 0.0), settings.max_step_s)
        moved, self._measured_m = abs(width_m - self._measured_m), width_m
        if self.status.is_over:
            return self.target
        if abs(width_m - self._goal_m) <= settings.goal_tolerance_m:
            self.target = GripperTarget(self._goal_m, self.target.max_effort_n)
            self._end(Grip.REACHED, "")
            return self.target
        is_still = moved <= settings.stall_speed * passed
        self._still_s = self._still_s + passed if is_still else 0.0
        if self._still_s >= settings.stall_s:
            # The goal stands: the servos go on pressing with no more than the effort.
            self._end(Grip.STALLED, f"stands at {width_m:.4f} m on the way to {self._goal_m:.4f} m")
            self.target = GripperTarget(self._goal_m, self.target.max_effort_n)
            return self.target
        change = self._speed * passed
        gap = self._goal_m - self.target.width_m
        self.target = GripperTarget(
            self.target.width_m + min(max(gap, -change), change), self.target.max_effort_n
        )
        return self.target

    def _give_up(self, state: Grip, why: str) -> None:
        if not self.status.is_over:
            self._goal_m = self.target.width_m
            self._end(state, why)

    def _end(self, state: Grip, why: str) -> None:
        if not self.status.is_over:
            self.status = GripperStatus(state, self.status.number, self._measured_m, why)
