# SPDX-License-Identifier: Apache-2.0
"""How patient the control loop of a joint driver is, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinloop.drivers.base import Array, JointReading
from twinloop.drivers.loop_timing import LoopTiming

State = Literal["idle", "connecting", "running", "stopped", "fault", "crashed"]


@dataclass(frozen=True)
class LoopSettings:
    """How patient a control loop is.

    Attributes:
        stall_limit_s: a cycle that comes later than this stops a motion, s.
        silent_s: without a good sample for longer the device is at fault, s.
        first_wait_s: before a lost device is opened again, s; doubled each time it fails.
        longest_wait_s: likewise, at most, s.
        tolerance_rad: how far outside its limits a joint may stand to be engaged, rad.
    """

    stall_limit_s: float = 0.03
    silent_s: float = 0.045
    first_wait_s: float = 0.1
    longest_wait_s: float = 2.0
    tolerance_rad: float = 0.1


@dataclass(frozen=True)
class Cycle:
    """One control period.

    Attributes:
        stamp_ns: ROS time of the reading, ns.
        reading: what was measured; None where the sample was lost.
        setpoint: what was written, [J] rad.
    """

    stamp_ns: int
    reading: JointReading | None
    setpoint: Array


@dataclass(frozen=True)
class LoopStatus:
    """What a loop says of itself; `text` is for people."""

    state: State
    text: str
    reading: JointReading | None
    timing: LoopTiming
    lost: int
    lost_share: float
    stalls: int
    connects: int
