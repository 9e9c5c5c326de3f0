# SPDX-License-Identifier: Apache-2.0
"""The control table of Dynamixel's X series as far as it is used, from ROBOTIS' e-manual."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

# The part of the table that is checked before anything is done.
CHECKED = (0, 71)
RETURN_DELAY = 9
OPERATING_MODE = 11
TORQUE = 64
POSITION_GAINS = 80  # D, I, P, 2 bytes each
BUS_WATCHDOG = 98
GOAL_CURRENT = 102
PROFILE = 108  # acceleration and velocity, 4 bytes each
GOAL_POSITION = 116
MEASURED = (126, 10)  # current, velocity, position
HARDWARE_ERROR = 70
# From torque to temperature: what is looked at in turn.
HEALTH = (64, 83)

RETURN_DELAY_US = 2.0
WATCHDOG_S = 0.02
WATCHDOG_FIRED = 0xFF
POSITION_RAD = 2.0 * math.pi / 4096
VELOCITY_RAD_S = 0.229 * 2.0 * math.pi / 60.0
MODES = {"position": 3, "current_limited": 5}
_TORQUE_ON_BY_GOAL = 0x08  # of the drive mode

HARDWARE_ERRORS = {
    0x01: "input voltage",
    0x04: "overheating",
    0x08: "motor encoder",
    0x10: "electrical shock",
    0x20: "overload",
}


@dataclass(frozen=True)
class Model:
    """One kind of servo.

    Attributes:
        name: on its label.
        current_unit_a: of its current registers, A.
    """

    name: str
    current_unit_a: float


MODELS = {
    1020: Model("XM430-W350", 2.69e-3),
    1030: Model("XM430-W210", 2.69e-3),
    1200: Model("XL330-M288", 1e-3),
    1240: Model("XC330-M288", 1e-3),
}


@dataclass(frozen=True)
class Checked:
    """What a servo is set to."""

    model: int
    return_delay_us: float
    starts_by_goal: bool
    mode: int
    temperature_limit_c: int
    current_limit: int
    has_torque: bool
    answers_all: bool
    hardware_error: int

    @classmethod
    def parse(cls, data: bytes) -> Checked:
        """Read the bytes of `CHECKED`."""
        return cls(
            model=struct.unpack_from("<H", data, 0)[0],
            return_delay_us=data[RETURN_DELAY] * RETURN_DELAY_US,
            starts_by_goal=bool(data[10] & _TORQUE_ON_BY_GOAL),
            mode=data[OPERATING_MODE],
            temperature_limit_c=data[31],
            current_limit=struct.unpack_from("<H", data, 38)[0],
            has_torque=bool(data[TORQUE]),
            answers_all=data[68] == 2,
            hardware_error=data[HARDWARE_ERROR],
        )


@dataclass(frozen=True)
class Condition:
    """How a servo is."""

    has_torque: bool
    hardware_error: int
    watchdog: int
    voltage_v: float
    temperature_c: float

    @classmethod
    def parse(cls, data: bytes) -> Condition:
        """Read the bytes of `HEALTH`."""
        first = HEALTH[0]
        return cls(
            has_torque=bool(data[TORQUE - first]),
            hardware_error=data[HARDWARE_ERROR - first],
            watchdog=data[BUS_WATCHDOG - first],
            voltage_v=struct.unpack_from("<H", data, 144 - first)[0] * 0.1,
            temperature_c=float(data[146 - first]),
        )


def hardware_errors(bits: int) -> str:
    """Name the bits of a hardware error status."""
    names = [name for bit, name in HARDWARE_ERRORS.items() if bits & bit]
    return " and ".join(names) or f"hardware error {bits:#04x}"
