# SPDX-License-Identifier: Apache-2.0
"""What every driver of joints offers; `docs/drivers.md` tells how to write one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from twinloop.drivers.faults import SampleLost
from twinloop.robots.base import Robot

Array = NDArray[np.float64]


class DriverSettings(BaseModel):
    """What a lab's hardware file says of one device; see `drivers/hardware.py`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: str


@dataclass(frozen=True)
class JointReading:
    """What joints were measured to be, in the robot's order.

    Attributes:
        position: [J], rad.
        velocity: [J], rad/s.
        effort: [J], in the unit that the driver states; NaN where it is not known.
        temperature: [J], °C; NaN where it is not known.
        faults: what joints report to be wrong, by joint name.
    """

    position: Array
    velocity: Array
    effort: Array
    temperature: Array
    faults: Mapping[str, str] = field(default_factory=dict)


def check_finite(source: str, robot: Robot, position: Array, velocity: Array) -> None:
    """Refuse joints that are nowhere.

    Args:
        source: of the answer, for people.
        robot: whose joints they are.
        position: [J], rad.
        velocity: [J], rad/s.

    Raises:
        SampleLost: a value is not finite; names its joint.
    """
    is_bad = ~(np.isfinite(position) & np.isfinite(velocity))
    if is_bad.any():
        joint = int(is_bad.argmax())
        raise SampleLost(
            f"{source}: {robot.joint_names[joint]} is at {position[joint]:g} rad and "
            f"{velocity[joint]:g} rad/s, not finite"
        )


class JointDriver(ABC):
    """A device with joints.

    Only `DriverLoop` calls it, from one thread at a time, and hands it what its guard lets
    through. Each method raises DeviceLost where the device is gone and SampleLost where one answer
    is missing or damaged; with a silent device, none may take longer than a few control periods.

    Attributes:
        name: of the device, for people.
        robot: its joints; every array is in their order.
        period_s: of its control loop, s.
    """

    name: str
    robot: Robot
    period_s: float

    @abstractmethod
    def connect(self) -> None:
        """Open the device and check it. Nothing moves: what holds holds on, what is limp stays so.

        Raises:
            DeviceMissing, SettingRefused: naming the device, what was found and what is needed.
        """

    @abstractmethod
    def read(self) -> JointReading:
        """Measure all joints.

        Raises:
            SampleLost, DeviceLost.
        """

    def reachable(self, names: Sequence[str], targets: Array) -> Array:
        """Return the nearest targets that coupled joints can reach; called from any thread.

        Args:
            names: joints of a command that nobody has checked yet.
            targets: of these joints, rad; likewise.
        """
        return targets

    @abstractmethod
    def engage(self, position: Array) -> None:
        """Hold the joints with power where they stand: `position` [J], rad, was just measured.

        Raises:
            JointFault: a joint cannot.
        """

    @abstractmethod
    def write(self, position: Array) -> None:
        """Take the setpoint of a control period, [J] rad."""

    @abstractmethod
    def stop(self) -> None:
        """Take the joints' power away, or what the device knows as a stop; at any time."""

    @abstractmethod
    def recover(self) -> None:
        """Clear the device's own faults, because an operator asked for it.

        Raises:
            JointFault: some remain.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device; joints that hold hold on. Never raises DriverFault."""
