# SPDX-License-Identifier: Apache-2.0
"""Franka's gripper, through `pylibfranka` in a process of its own.

It is used as `twinloop.motion.gripper_controller.GripperController` is, but for `step`: `poll`
takes what the gripper said.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from twinloop.drivers.faults import DeviceLost
from twinloop.drivers.franka_arm.partner import Partner
from twinloop.motion.gripper_controller import (
    Grip,
    GripperRefused,
    GripperSettings,
    GripperStatus,
    GripperTarget,
)

_MODULE = "twinloop.drivers.franka_arm.gripper_process"
_AGAIN_S = 2.0  # before a gripper that is not there is looked for again

HAND = GripperSettings(speed=0.1)


class FrankaGripper:
    """Opens and closes the fingers, homes them on request, and says how wide they are.

    A command that is under way cannot be broken off: libfranka waits for it. One that is given up
    or replaced counts as over at once, and the fingers end their way, within a second.

    Attributes:
        status: of the newest command.
        width_m: between the fingers; NaN before it was told.
        temperature_c: of the gripper, °C; likewise.
        is_grasped: whether it says that it holds something.
        fault: why it does not answer; empty where it does.
        forbidden: why it takes no command, where somebody forbids it.

    Args:
        address: of the arm's controller.
        settings: of the gripper.
        steady_now: the steady clock, s.
    """

    def __init__(
        self,
        address: str,
        settings: GripperSettings = HAND,
        steady_now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.status = GripperStatus()
        self.width_m = math.nan
        self.temperature_c = math.nan
        self.is_grasped = False
        self.fault = "not asked yet"
        self.forbidden = ""
        self.target = GripperTarget(0.0, settings.max_effort_n)
        self._address = address
        self._steady_now = steady_now
        self._partner: Partner | None = None
        self._again_s = -math.inf

    @property
    def is_there(self) -> bool:
        """Whether the gripper answers."""
        return not self.fault

    def poll(self) -> None:
        """Take what the gripper said, and look for one that is not there; does not wait."""
        if self._partner is None:
            if self._steady_now() >= self._again_s:
                self.fault = "not found yet"
                self._partner = Partner(_MODULE, {"address": self._address}, self._take)
            return
        try:
            self._partner.listen()
        except DeviceLost as error:
            self.fault = self.fault or str(error)
            self.close()
            self._again_s = self._steady_now() + _AGAIN_S

    def start(self, width_m: float, max_effort_n: float = 0.0, speed: float | None = None) -> int:
        """Go to a width; returns the command's number.

        Closing, it presses what is between the fingers with the force; opening, it has none.

        Args:
            width_m: between the fingers.
            max_effort_n: force at most, N; 0 for the gripper's own.
            speed: of the width, m/s at most; default: the gripper's own.

        Raises:
            GripperRefused: a value that is not finite or out of range, or there is no gripper.
        """
        settings = self.settings
        speed = settings.speed if speed is None else min(speed, settings.speed)
        for what, value, low, high in (
            ("width", width_m, -1e-6, settings.widest_m + 1e-6),
            ("max_effort", max_effort_n, 0.0, settings.max_effort_n),
            ("speed", speed, 1e-4, settings.speed),
        ):
            if not low <= value <= high:  # false for NaN too
                raise GripperRefused(
                    f"gripper: {what} is {value}, expected {max(low, 0.0):g} to {high:g}"
                )
        width_m = min(max(width_m, 0.0), settings.widest_m)
        self.target = GripperTarget(width_m, max_effort_n or settings.max_effort_n)
        return self._begin("go", width=width_m, speed=speed, force=self.target.max_effort_n)

    def home(self) -> int:
        """Open and close once, to learn where the ends are; returns the command's number.

        Raises:
            GripperRefused: there is no gripper.
        """
        self.target = GripperTarget(self.settings.widest_m, self.settings.max_effort_n)
        return self._begin("home")

    def cancel(self, why: str = "cancelled") -> None:
        """Give the command up; the fingers end their way."""
        self._end(Grip.CANCELLED, why)

    def stop(self, why: str) -> None:
        """As `cancel`, for a reason of the robot's own: an emergency stop, a fault."""
        self._end(Grip.STOPPED, why)

    def close(self) -> None:
        """Let go of the gripper; what it holds it holds on."""
        partner, self._partner = self._partner, None
        if partner is not None:
            partner.end(1.0)
        self.fault = self.fault or "closed"
        self._end(Grip.STOPPED, self.fault)

    def _begin(self, what: str, **more: Any) -> int:
        if self._partner is None or not self.is_there or self.forbidden:
            raise GripperRefused(f"gripper at {self._address}: {self.fault or self.forbidden}")
        self._end(Grip.PREEMPTED, "a newer command took over")
        number = self.status.number + 1
        self.status = GripperStatus(Grip.MOVING, number, self.width_m)
        self._partner.tell(what, number, **more)
        return number

    def _take(self, word: dict[str, Any]) -> None:
        event = word["event"]
        if event == "state":
            self.fault = ""
            self.width_m = float(word["width"])
            self.is_grasped = bool(word["is_grasped"])
            self.temperature_c = float(word["temperature"])
            self.status = dataclasses.replace(self.status, width_m=self.width_m)
        elif event == "done":
            self._conclude(int(word["number"]), float(word["width"]), str(word["error"]))
        else:
            self.fault = str(word["text"])

    def _conclude(self, number: int, width_m: float, error: str) -> None:
        if number != self.status.number:
            return
        off_m = abs(width_m - self.target.width_m)
        if error:
            self._end(Grip.STOPPED, error)
        elif off_m <= self.settings.goal_tolerance_m:
            self._end(Grip.REACHED, "")
        else:
            goal_m = self.target.width_m
            self._end(Grip.STALLED, f"stands at {width_m:.4f} m on the way to {goal_m:.4f} m")

    def _end(self, state: Grip, why: str) -> None:
        if not self.status.is_over:
            self.status = dataclasses.replace(self.status, state=state, detail=why)
