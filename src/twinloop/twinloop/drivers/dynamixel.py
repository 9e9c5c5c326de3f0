# SPDX-License-Identifier: Apache-2.0
"""Driver of robots whose joints are Dynamixel servos on one bus: the D'Claw, the LEAP hand."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from twinloop.drivers import dynamixel_table as table
from twinloop.drivers.base import Array, DriverSettings, JointDriver, JointReading
from twinloop.drivers.dynamixel_bus import ALERT, BAUD_RATES, Bus, StatusError
from twinloop.drivers.faults import (
    DeviceMissing,
    DriverFault,
    JointFault,
    SampleLost,
    SettingRefused,
)
from twinloop.robots.base import Robot

_HEALTH_EVERY = 5  # cycles between two looks at a servo's condition
_REBOOT_S = 1.0
_POLL_S = 0.05

ServoId = Annotated[int, Field(ge=0, le=252)]
# Motor ids as the makers of these robots number them, and the ticks at which a joint is at 0 rad.
_IDS = {"leap": tuple(range(16)), "dclaw": (10, 11, 12, 20, 21, 22, 30, 31, 32)}
_ZEROS = {"dclaw": (1024, 2048, 2048) * 3}


class Gains(BaseModel):
    """Gains of the servos' position loops, in the units of their registers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    p: int = Field(ge=0, le=16383)
    i: int = Field(0, ge=0, le=16383)
    d: int = Field(0, ge=0, le=16383)


class DynamixelSettings(DriverSettings):
    """A bus and its servos.

    Lists have one entry a joint, in the robot's order; without one the maker's numbers hold.
    """

    driver: Literal["dynamixel"]
    port: str = Field(min_length=1)
    baud_rate: int = 4_000_000
    ids: tuple[ServoId, ...] = ()
    zeros: tuple[int, ...] = ()
    signs: tuple[Literal[-1, 1], ...] = ()
    mode: Literal["position", "current_limited"] = "current_limited"
    current_limit_a: float = Field(0.35, gt=0.0, le=5.0)
    gains: Gains | None = None
    rate_hz: float = Field(100.0, ge=10.0, le=500.0)
    temperature_limit_c: float = Field(65.0, ge=30.0, le=80.0)
    max_return_delay_us: float = Field(20.0, ge=0.0, le=508.0)
    set_return_delay: bool = False
    bus_watchdog_s: float = Field(0.2, ge=0.0, le=2.54)
    answer_timeout_s: float = Field(0.008, ge=0.001, le=1.0)

    @model_validator(mode="after")
    def _check(self) -> DynamixelSettings:
        if self.baud_rate not in BAUD_RATES:
            raise ValueError(
                f"baud_rate is {self.baud_rate}, expected one of {', '.join(map(str, BAUD_RATES))}"
            )
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"ids {list(self.ids)}: some repeat")
        return self


class DynamixelDriver(JointDriver):
    """Servos on a bus; effort is their current, A.

    Raises:
        ValueError: a list whose length is not the number of joints.
    """

    def __init__(self, robot: Robot, settings: DynamixelSettings) -> None:
        self.name = f"Dynamixel bus {settings.port}"
        self.robot = robot
        self.period_s = 1.0 / settings.rate_hz
        self.settings = settings
        self.voltage_v = math.nan
        joints = len(robot.joint_names)
        self.ids = list(_per_joint(robot, "ids", settings.ids, _IDS.get(robot.name, ())))
        zeros = _ZEROS.get(robot.name, (2048,) * joints)
        self._zeros = np.array(_per_joint(robot, "zeros", settings.zeros, zeros), np.float64)
        signs = _per_joint(robot, "signs", settings.signs, (1,) * joints)
        self._scale = np.array(signs, np.float64) * table.POSITION_RAD
        self._signs = np.array(signs, np.float64)
        self._index = {servo: i for i, servo in enumerate(self.ids)}
        self._current_units = np.ones(joints)
        self._bus = Bus(settings.port, settings.baud_rate, settings.answer_timeout_s)
        self._temperature = np.full(joints, np.nan)
        self._faults: dict[str, str] = {}
        self._is_engaged = False
        self._turns: Iterator[int] = cycle(self.ids)
        self._reads = 0

    def joint(self, servo: int) -> str:
        """Name of a servo's joint."""
        return self.robot.joint_names[self._index[servo]]

    def connect(self) -> None:
        self._bus.open()
        self._is_engaged = False
        self._faults = {}
        self._temperature[:] = np.nan
        silent = [servo for servo in self.ids if self._bus.ping(servo) is None]
        if silent:
            raise DeviceMissing(self._whereabouts(silent))
        for servo in self.ids:
            self._check(servo)

    def read(self) -> JointReading:
        answers = self._bus.sync_read(self.ids, *table.MEASURED)
        missing = [servo for servo in self.ids if servo not in answers]
        if missing:
            # On the bus each servo waits for the one before it: the first alone had its turn.
            first, *behind = missing
            try:
                answers[first] = self._bus.read(first, *table.MEASURED)
            except SampleLost as fault:
                raise SampleLost(f"{self.joint(first)}: {fault}") from fault
            if behind:
                answers |= self._bus.sync_read(behind, *table.MEASURED)
            lost = [self.joint(servo) for servo in self.ids if servo not in answers]
            if lost:
                raise SampleLost(f"{', '.join(lost)}: no good answer")
        for servo in self.ids:
            if answers[servo][0] & ALERT and self.joint(servo) not in self._faults:
                self._note_alert(servo)
        self._reads += 1
        if self._reads % _HEALTH_EVERY == 0:
            self._look_at(next(self._turns))
        raw = np.array([struct.unpack("<hii", answers[servo][1]) for servo in self.ids], np.float64)
        return JointReading(
            position=(raw[:, 2] - self._zeros) * self._scale,
            velocity=raw[:, 1] * table.VELOCITY_RAD_S * self._signs,
            effort=raw[:, 0] * self._current_units * self._signs,
            temperature=self._temperature.copy(),
            faults=dict(self._faults),
        )

    def engage(self, position: Array) -> None:
        settings = self.settings
        ticks = self._ticks(position)
        for index, servo in enumerate(self.ids):
            write = self._bus.write
            try:
                write(servo, table.BUS_WATCHDOG, b"\0")
                write(servo, table.PROFILE, bytes(8))
                if settings.gains is not None:
                    gains = settings.gains
                    data = struct.pack("<HHH", gains.d, gains.i, gains.p)
                    write(servo, table.POSITION_GAINS, data)
                if settings.mode == "current_limited":
                    limit = round(settings.current_limit_a / self._current_units[index])
                    write(servo, table.GOAL_CURRENT, struct.pack("<h", limit))
                # Confirmed, unlike a synchronous write: power on an old goal would be a jump.
                write(servo, table.GOAL_POSITION, struct.pack("<i", ticks[index]))
                write(servo, table.TORQUE, b"\1")
                watchdog = math.ceil(settings.bus_watchdog_s / table.WATCHDOG_S)
                write(servo, table.BUS_WATCHDOG, bytes([watchdog]))
            except StatusError as fault:
                raise JointFault({self.joint(servo): str(fault)}) from fault
        self._is_engaged = True

    def write(self, position: Array) -> None:
        ticks = self._ticks(position)
        data = {servo: struct.pack("<i", tick) for servo, tick in zip(self.ids, ticks, strict=True)}
        self._bus.sync_write(table.GOAL_POSITION, data)

    def stop(self) -> None:
        self._is_engaged = False
        # Twice to all, which nobody confirms, then to each, which does.
        for _ in range(2):
            self._bus.sync_write(table.TORQUE, dict.fromkeys(self.ids, b"\0"))
        silent = {}
        for servo in self.ids:
            try:
                self._bus.write(servo, table.TORQUE, b"\0")
            except (SampleLost, StatusError) as fault:
                silent[self.joint(servo)] = f"may still have torque: {fault}"
        if silent:
            raise JointFault(silent)

    def recover(self) -> None:
        self._faults = {}
        for servo in self.ids:
            status, data = self._bus.read(servo, *table.HEALTH)
            condition = table.Condition.parse(data)
            if status & ALERT or condition.hardware_error:
                self._reboot(servo)
            elif condition.temperature_c >= self.settings.temperature_limit_c:
                self._faults[self.joint(servo)] = self._too_hot(condition.temperature_c)
        if self._faults:
            raise JointFault(self._faults)

    def close(self) -> None:
        # Without a host the watchdog of a servo would end the hold that is wanted.
        if self._is_engaged:
            try:
                self._bus.sync_write(table.BUS_WATCHDOG, dict.fromkeys(self.ids, b"\0"))
            except DriverFault:
                self._is_engaged = False
        self._bus.close()

    def _ticks(self, position: Array) -> list[int]:
        ticks = np.rint(position / self._scale + self._zeros)
        return [int(tick) for tick in ticks]

    def _whereabouts(self, silent: list[int]) -> str:
        """Say which servos do not answer, and at which other baud rate one does."""
        names = ", ".join(f"{servo} ({self.joint(servo)})" for servo in silent)
        text = f"{self.name}: no answer from servo {names} at {self.settings.baud_rate} baud"
        rate = self._bus.baud_rate_of(silent[0])
        if rate is None:
            return f"{text}: is the power on, and the id right?"
        return f"{text}; servo {silent[0]} answers at {rate}: set `baud_rate`, or the servo's"

    def _check(self, servo: int) -> None:
        found = table.Checked.parse(self._bus.read(servo, *table.CHECKED)[1])
        settings, name = self.settings, f"{self.joint(servo)} (servo {servo})"
        model = table.MODELS.get(found.model)
        if model is None:
            known = ", ".join(f"{number} {each.name}" for number, each in table.MODELS.items())
            raise SettingRefused(f"{name} is of model {found.model}, expected one of {known}")
        self._current_units[self._index[servo]] = model.current_unit_a
        if not found.answers_all:
            raise SettingRefused(f"{name}: its status return level (68) must be 2")
        if found.starts_by_goal:
            raise SettingRefused(
                f"{name}: its drive mode (10) switches torque on by a goal: clear 8"
            )
        if found.temperature_limit_c < settings.temperature_limit_c:
            raise SettingRefused(
                f"{name} switches itself off at {found.temperature_limit_c} °C, and "
                f"temperature_limit_c is {settings.temperature_limit_c:g}: expected less"
            )
        self._set_return_delay(servo, name, found)
        wanted = table.MODES[settings.mode]
        if found.mode != wanted:
            # The mode can only be changed without torque.
            self._bus.write(servo, table.TORQUE, b"\0")
            self._bus.write(servo, table.OPERATING_MODE, bytes([wanted]))

    def _set_return_delay(self, servo: int, name: str, found: table.Checked) -> None:
        longest_us = self.settings.max_return_delay_us
        if found.return_delay_us <= longest_us:
            return
        if not self.settings.set_return_delay:
            raise SettingRefused(
                f"{name} waits {found.return_delay_us:g} us before it answers, expected at most "
                f"{longest_us:g}: set its return delay time (9) to "
                f"{longest_us // table.RETURN_DELAY_US:g}, or `set_return_delay: true` here"
            )
        if found.has_torque:
            self._bus.write(servo, table.TORQUE, b"\0")
        delay = int(longest_us // table.RETURN_DELAY_US)
        self._bus.write(servo, table.RETURN_DELAY, bytes([delay]))

    def _note_alert(self, servo: int) -> None:
        try:
            bits = self._bus.read(servo, table.HARDWARE_ERROR, 1)[1][0]
        except SampleLost:
            bits = 0
        self._faults[self.joint(servo)] = table.hardware_errors(bits) if bits else "alert"

    def _look_at(self, servo: int) -> None:
        try:
            condition = table.Condition.parse(self._bus.read(servo, *table.HEALTH)[1])
        except SampleLost:
            return
        joint = self.joint(servo)
        self._temperature[self._index[servo]] = condition.temperature_c
        self.voltage_v = condition.voltage_v
        if condition.temperature_c >= self.settings.temperature_limit_c:
            if joint not in self._faults:
                self._bus.write(servo, table.TORQUE, b"\0")
            self._faults[joint] = self._too_hot(condition.temperature_c)
        elif self._is_engaged and joint not in self._faults:
            if condition.watchdog == table.WATCHDOG_FIRED:
                self._faults[joint] = "heard nothing for too long, and stopped by itself"
            elif not condition.has_torque:
                self._faults[joint] = "has no torque any more: was its power interrupted?"

    def _too_hot(self, temperature_c: float) -> str:
        return f"{temperature_c:g} °C, limit {self.settings.temperature_limit_c:g}: torque off"

    def _reboot(self, servo: int) -> None:
        self._bus.reboot(servo)
        end_s = time.monotonic() + _REBOOT_S
        while self._bus.ping(servo) is None:
            if time.monotonic() > end_s:
                raise JointFault({self.joint(servo): f"servo {servo} is silent after its restart"})
            time.sleep(_POLL_S)


def _per_joint(
    robot: Robot, name: str, given: tuple[int, ...], known: tuple[int, ...]
) -> tuple[int, ...]:
    values = given or known
    if len(values) != len(robot.joint_names):
        raise ValueError(
            f"{name}: {len(values)} entries, expected {len(robot.joint_names)}, one for each joint "
            f"of {robot.name}"
        )
    return values


DRIVER = DynamixelDriver
SETTINGS = DynamixelSettings
