# SPDX-License-Identifier: Apache-2.0
"""A driver to copy: an imaginary device that speaks a plain protocol over UDP.

Each request is a datagram: one byte that says what, then doubles, least significant byte first.
The device answers each but `G` by a datagram: a byte for each joint, 0 where it is well, then for
`R` the positions [rad] and velocities [rad/s] of all joints.

    R  measure    P  power on    S  stop    C  clear faults    G  take a setpoint (positions)
"""

from __future__ import annotations

import socket
from typing import Literal

import numpy as np
from pydantic import Field

from twinloop.drivers.base import Array, DriverSettings, JointDriver, JointReading, check_finite
from twinloop.drivers.faults import DeviceLost, DeviceMissing, JointFault, SampleLost
from twinloop.robots.base import Robot

_FAULTS = {1: "too hot", 2: "jammed"}
_LONGEST = 4096  # bytes of an answer


class TemplateSettings(DriverSettings):
    """Where the device is. Ranges are checked here, once; unknown settings are refused."""

    driver: Literal["template"]
    address: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    rate_hz: float = Field(100.0, ge=1.0, le=1000.0)
    answer_timeout_s: float = Field(0.01, ge=0.001, le=1.0)


class TemplateDriver(JointDriver):
    """A device of plain joints; it does not tell efforts and temperatures."""

    def __init__(self, robot: Robot, settings: TemplateSettings) -> None:
        self.name = f"plain joints at {settings.address}:{settings.port}"
        self.robot = robot
        self.period_s = 1.0 / settings.rate_hz
        self._settings = settings
        self._socket: socket.socket | None = None
        self._unknown = np.full(len(robot.joint_names), np.nan)

    def connect(self) -> None:
        self.close()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(self._settings.answer_timeout_s)
        try:
            self._socket.connect((self._settings.address, self._settings.port))
            answer = self._ask(b"R")
        except (OSError, SampleLost, DeviceLost) as error:
            raise DeviceMissing(f"{self.name} are not there: {error}") from error
        joints = len(self.robot.joint_names)
        if len(answer) != 17 * joints:
            raise DeviceMissing(
                f"{self.name} have {len(answer) / 17:g} joints, expected {joints} of "
                f"{self.robot.name}"
            )

    def read(self) -> JointReading:
        answer = self._ask(b"R")
        joints = len(self.robot.joint_names)
        if len(answer) != 17 * joints:
            raise SampleLost(f"{len(answer)} bytes, expected {17 * joints}")
        measured = np.frombuffer(answer, "<f8", offset=joints)
        position, velocity = measured.reshape(2, joints).copy()
        check_finite("answer", self.robot, position, velocity)
        return JointReading(
            position=position,
            velocity=velocity,
            effort=self._unknown,
            temperature=self._unknown,
            faults=self._faults(answer),
        )

    def engage(self, position: Array) -> None:
        # First where to stay, then the power to do so.
        self.write(position)
        self._do(b"P")

    def write(self, position: Array) -> None:
        self._send(b"G" + position.astype("<f8").tobytes())

    def stop(self) -> None:
        self._ask(b"S")

    def recover(self) -> None:
        self._do(b"C")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _do(self, request: bytes) -> None:
        if faults := self._faults(self._ask(request)):
            raise JointFault(faults)

    def _faults(self, answer: bytes) -> dict[str, str]:
        return {
            joint: _FAULTS.get(code, f"fault {code}")
            for joint, code in zip(self.robot.joint_names, answer, strict=False)
            if code
        }

    def _ask(self, request: bytes) -> bytes:
        self._send(request)
        try:
            return self._open_socket.recv(_LONGEST)
        except TimeoutError as error:
            raise SampleLost(f"no answer within {self._settings.answer_timeout_s:g} s") from error
        except OSError as error:
            raise DeviceLost(f"{self.name} are gone: {error}") from error

    def _send(self, request: bytes) -> None:
        try:
            self._open_socket.send(request)
        except OSError as error:
            raise DeviceLost(f"{self.name} are gone: {error}") from error

    @property
    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise DeviceLost(f"{self.name} are not connected")
        return self._socket


DRIVER = TemplateDriver
SETTINGS = TemplateSettings
