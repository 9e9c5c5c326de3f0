# SPDX-License-Identifier: Apache-2.0
"""What a reset needs of the cell: devices that are told to begin something and then asked.

No call waits but `Clock.wait`, so that a reset can be withdrawn at any point.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twinloop.motion.trajectory import Trajectory
from twinloop.perception.tray import TraySight

Array = NDArray[np.float64]


class Course(StrEnum):
    """What became of the last thing a device was told."""

    IDLE = "idle"
    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class PalmSight:
    """What the palm's eyes tell of one exposure.

    Attributes:
        stamp_s: of the exposure, on the clock of the reset.
        position: of the balls [2, 3], m, palm frame.
        speed: of the balls [2], m/s.
        stale: no evidence for this position [2].
    """

    stamp_s: float
    position: Array
    speed: Array
    stale: NDArray[np.bool_]


class Clock(Protocol):
    """Robot time: that of the stamps."""

    def now_s(self) -> float:
        """Return the time, s."""

    def wait(self, seconds: float) -> None:
        """Let time pass; the devices go on meanwhile."""


class Arm(Protocol):
    """Seven joints that follow trajectories."""

    @property
    def detail(self) -> str:
        """Why a course failed."""

    def position(self) -> Array:
        """Return where the joints are [7], rad."""

    def follow(self, trajectory: Trajectory) -> None:
        """Begin a motion; one before it is given up."""

    def course(self) -> Course:
        """Return what became of the last motion."""

    def cancel(self) -> None:
        """Come to rest within the limits, on the path of the motion."""


class Gripper(Protocol):
    """Two fingers."""

    @property
    def detail(self) -> str:
        """Why a course failed."""

    def width_m(self) -> float:
        """Return how far the fingers are apart."""

    def move(self, width_m: float, effort_n: float) -> None:
        """Begin to open or close; what is between the fingers is then held."""

    def course(self) -> Course:
        """Return what became of the last move: done, too, where something is held."""


class Hand(Protocol):
    """The hand with the palm."""

    def position(self) -> Array:
        """Return where the joints are [24], rad."""

    def send(self, posture: Array) -> None:
        """Let the joints go towards a posture [24], rad, behind the guard's limits."""


class TrayEyes(Protocol):
    """The tray camera and what finds balls in its images."""

    def look(self, after_s: float) -> TraySight | None:
        """Return what an exposure later than that shows, None if there is none yet."""


class PalmEyes(Protocol):
    """The stereo tracker."""

    def look(self, after_s: float) -> PalmSight | None:
        """Return the newest exposure later than that, None if there is none yet."""


class Safety(Protocol):
    """Whatever stops the robot."""

    def stopped(self) -> str:
        """Return why the robot is stopped; empty where it is not."""


@dataclass(frozen=True)
class Devices:
    """All of them."""

    clock: Clock
    arm: Arm
    gripper: Gripper
    hand: Hand
    tray: TrayEyes
    palm: PalmEyes
    safety: Safety
