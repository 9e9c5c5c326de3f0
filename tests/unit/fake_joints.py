# SPDX-License-Identifier: Apache-2.0
"""Joints in memory, with faults to inject, and a clock that only goes on when told."""

from __future__ import annotations

import numpy as np
from twinloop.drivers.base import JointDriver, JointReading
from twinloop.drivers.faults import DeviceLost, DeviceMissing, JointFault, SampleLost
from twinloop.robots.dclaw import DCLAW


class FakeJoints(JointDriver):
    """A claw that follows its setpoints at once."""

    def __init__(self, period_s: float = 0.01) -> None:
        self.name = "fake joints"
        self.robot = DCLAW
        self.period_s = period_s
        self.position = DCLAW.poses["raised"].copy()
        self.is_plugged = True
        self.is_silent = False
        self.is_powered = False
        self.faults: dict[str, str] = {}
        self.calls: list[str] = []
        self.written: list[np.ndarray] = []

    def connect(self) -> None:
        self.calls.append("connect")
        if not self.is_plugged:
            raise DeviceMissing("fake joints are not there")

    def read(self) -> JointReading:
        self._answer()
        unknown = np.full(9, np.nan)
        return JointReading(self.position.copy(), np.zeros(9), unknown, unknown, dict(self.faults))

    def engage(self, position: np.ndarray) -> None:
        self._answer()
        self.calls.append("engage")
        np.testing.assert_array_equal(position, self.position)
        self.is_powered = True

    def write(self, position: np.ndarray) -> None:
        if not self.is_plugged:
            raise DeviceLost("fake joints are gone")
        assert self.is_powered, "written to without having been engaged"
        self.written.append(position.copy())
        if not self.is_silent:
            self.position = position.copy()

    def stop(self) -> None:
        self.calls.append("stop")
        self.is_powered = False

    def recover(self) -> None:
        self._answer()
        self.calls.append("recover")
        if "jammed" in self.faults.values():
            raise JointFault(self.faults)
        self.faults = {}

    def close(self) -> None:
        self.calls.append("close")

    def _answer(self) -> None:
        if not self.is_plugged:
            raise DeviceLost("fake joints are gone")
        if self.is_silent:
            raise SampleLost("no answer")
