# SPDX-License-Identifier: Apache-2.0
"""Driver of Unitree's Go1 through the maker's `unitree-legged-sdk`: low-level commands over UDP.

The robot's controller answers each command with its state. A joint's motor is a spring and a damper
about what it is commanded, of the stiffness and damping that come with the command.
"""

from __future__ import annotations

import importlib
import socket
import time
from ipaddress import IPv4Address
from typing import Any, Literal

import numpy as np
from pydantic import Field

from twinloop.drivers.base import Array, DriverSettings, JointDriver, JointReading, check_finite
from twinloop.drivers.faults import DeviceLost, DeviceMissing, JointFault, SampleLost
from twinloop.robots.base import Robot

_LOW_LEVEL = 0xFF
_SERVO = 0x0A  # a motor's mode in which it takes commands
# What the SDK takes for no position and no velocity.
_NO_POSITION, _NO_VELOCITY = 2.146e9, 16000.0
_DAMAGED = -3
_POLL_S = 2e-4
_ENGAGE_TRIES = 3


class UnitreeSettings(DriverSettings):
    """Where the robot's controller is, and how stiff its legs are held."""

    driver: Literal["unitree"]
    address: IPv4Address = IPv4Address("192.168.123.10")
    port: int = Field(8007, ge=1, le=65535)
    local_port: int = Field(8080, ge=1, le=65535)
    rate_hz: float = Field(200.0, ge=50.0, le=500.0)
    stiffness: float = Field(40.0, gt=0.0, le=300.0)
    damping: float = Field(1.0, ge=0.0, le=20.0)
    stop_damping: float = Field(2.0, ge=0.0, le=20.0)
    temperature_limit_c: float = Field(80.0, ge=30.0, le=100.0)
    answer_timeout_s: float = Field(0.004, ge=0.001, le=1.0)


class UnitreeDriver(JointDriver):
    """A Go1's legs; effort is the motors' estimated torque, N·m.

    The controller goes limp by itself when it hears nothing: no joint holds without this process.

    Raises:
        ValueError: a robot of another number of joints.
    """

    def __init__(self, robot: Robot, settings: UnitreeSettings) -> None:
        if len(robot.joint_names) != 12:
            raise ValueError(f"has {len(robot.joint_names)} joints, expected the 12 of legs")
        self.name = f"Unitree robot at {settings.address}:{settings.port}"
        self.robot = robot
        self.period_s = 1.0 / settings.rate_hz
        self.battery = float("nan")
        self._settings = settings
        self._udp: Any = None
        self._command: Any = None
        self._state: Any = None
        self._is_asked = False

    def connect(self) -> None:
        sdk = load_sdk()
        self.close()
        settings = self._settings
        self._check_local_port()
        address = str(settings.address)
        self._udp = sdk.UDP(_LOW_LEVEL, settings.local_port, address, settings.port)
        self._command, self._state = sdk.LowCmd(), sdk.LowState()
        # No stiffness, no torque: an answer is asked for, and nothing else.
        self._udp.InitCmdData(self._command)
        self._set(_NO_POSITION, _NO_VELOCITY, 0.0, 0.0)
        try:
            self.read()
        except (SampleLost, DeviceLost) as fault:
            self.close()
            raise DeviceMissing(
                f"{self.name} is not there: {fault}; is it in low-level mode, and this machine in "
                "its network?"
            ) from fault

    def read(self) -> JointReading:
        self._receive()
        motors = self._state.motorState[: len(self.robot.joint_names)]
        measured = np.array([(motor.q, motor.dq, motor.tauEst) for motor in motors], np.float64)
        temperature = np.array([motor.temperature for motor in motors], np.float64)
        self.battery = float(self._state.bms.SOC)
        position, velocity, effort = measured.T.copy()
        check_finite("low-level state", self.robot, position, velocity)
        return JointReading(position, velocity, effort, temperature, self._faults(temperature))

    def engage(self, position: Array) -> None:
        settings = self._settings
        self._set(position, 0.0, settings.stiffness, settings.damping)
        for attempt in range(_ENGAGE_TRIES):
            self._send()
            try:
                self._receive()  # each state answers a command
                return
            except SampleLost as fault:
                if attempt == _ENGAGE_TRIES - 1:
                    raise JointFault(dict.fromkeys(self.robot.joint_names, str(fault))) from fault

    def write(self, position: Array) -> None:
        for motor, target in zip(self._command.motorCmd, position, strict=False):
            motor.q = float(target)
        self._send()

    def stop(self) -> None:
        # Damped, not limp: a robot that stands sinks, and does not fall.
        self._set(_NO_POSITION, 0.0, 0.0, self._settings.stop_damping)
        self._send()

    def recover(self) -> None:
        if faults := self.read().faults:
            raise JointFault(faults)

    def close(self) -> None:
        self._udp = None

    def _check_local_port(self) -> None:
        """The SDK only prints that its port is taken, and goes on."""
        port = self._settings.local_port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError as error:
                raise DeviceMissing(
                    f"{self.name}: local_port {port} cannot be had: {error}"
                ) from error

    def _set(
        self, position: Array | float, velocity: float, stiffness: float, damping: float
    ) -> None:
        targets = np.broadcast_to(position, len(self.robot.joint_names))
        for motor, target in zip(self._command.motorCmd, targets, strict=False):
            motor.mode, motor.q, motor.dq = _SERVO, float(target), velocity
            motor.Kp, motor.Kd, motor.tau = stiffness, damping, 0.0

    def _send(self) -> None:
        udp = self._open_udp
        udp.SetSend(self._command)
        if udp.Send() < 0:
            raise DeviceLost(f"{self.name} is gone: its network refuses what is sent")
        self._is_asked = True

    def _receive(self) -> None:
        """Take the newest state into `_state`; asks for one where nothing was commanded."""
        udp = self._open_udp
        if not self._is_asked:
            self._send()
        self._is_asked = False
        end_s = time.monotonic() + self._settings.answer_timeout_s
        was_damaged = False
        while (code := udp.Recv()) != 0:
            was_damaged |= code == _DAMAGED
            if time.monotonic() > end_s:
                what = "only damaged answers" if was_damaged else "no answer"
                raise SampleLost(f"{what} within {self._settings.answer_timeout_s:g} s")
            time.sleep(_POLL_S)
        udp.GetRecv(self._state)

    def _faults(self, temperature: Array) -> dict[str, str]:
        limit_c = self._settings.temperature_limit_c
        return {
            joint: f"{value:g} °C, limit {limit_c:g}"
            for joint, value in zip(self.robot.joint_names, temperature, strict=True)
            if value >= limit_c
        }

    @property
    def _open_udp(self) -> Any:
        if self._udp is None:
            raise DeviceLost(f"{self.name} is not connected")
        return self._udp


def load_sdk() -> Any:
    """Import the maker's SDK.

    Raises:
        DeviceMissing: it is not installed, or not for this Python; says what to install.
    """
    try:
        return importlib.import_module("unitree_legged_sdk.robot_interface")
    except ImportError as error:
        raise DeviceMissing(
            f"Unitree robots need unitree-legged-sdk: {error}; install it with "
            "'pip install --no-deps unitree-legged-sdk'"
        ) from error


DRIVER = UnitreeDriver
SETTINGS = UnitreeSettings
