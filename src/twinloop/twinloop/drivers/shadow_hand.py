# SPDX-License-Identifier: Apache-2.0
"""Driver of Shadow's Dexterous Hand through the trajectory controllers of its ROS packages.

The device's wire is ROS itself: it tells its joints on `joint_states` at 125 Hz and is moved by
trajectory controllers. What is said there goes through a `ControllerLink`, which the node brings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from twinloop.drivers.base import Array, DriverSettings, JointDriver, JointReading, check_finite
from twinloop.drivers.faults import DeviceMissing, JointFault, SampleLost
from twinloop.robots.base import Robot
from twinloop.robots.shadow_hand import COUPLED, WRIST

# Patience with lost samples, s: one is lost only when it is three periods old.
SILENT_S = 0.03
_POLL_S = 0.005
_STILL_RAD = 1e-4  # a smaller change is no new goal


@dataclass(frozen=True)
class HandSample:
    """One message of the hand's joints.

    Attributes:
        steady_s: when it came, s of the steady clock.
        joints: position [rad], velocity [rad/s] and effort [N·m] by joint name.
    """

    steady_s: float
    joints: Mapping[str, tuple[float, float, float]]


class ControllerLink(Protocol):
    """The hand's topics and actions; methods may be called from the loop's thread."""

    name: str

    def open(self) -> None:
        """Begin to listen."""

    def latest(self) -> HandSample | None:
        """Return the newest sample."""

    def missing(self) -> list[str]:
        """Return topics or actions of controllers that nobody serves."""

    def faults(self) -> dict[str, str]:
        """Return what controllers gave up, and why, by controller."""

    def forget_faults(self) -> None:
        """Begin anew."""

    def send(self, controller: str, names: Sequence[str], targets: Array, reach_s: float) -> None:
        """Have a controller move its joints to targets [rad] within a time [s]."""

    def cancel(self) -> None:
        """Have controllers give up what they do, where they can."""

    def close(self) -> None:
        """Listen no more."""


class ShadowHandSettings(DriverSettings):
    """How the hand's ROS graph is set up; names are those of its packages."""

    driver: Literal["shadow_hand"]
    namespace: str = Field("/", pattern=r"^/[A-Za-z0-9_/]*$")
    interface: Literal["topic", "action"] = "topic"
    command_topic: str = Field("command", pattern=r"^[A-Za-z_][A-Za-z0-9_/]*$")
    finger_controller: str = Field("rh_trajectory_controller", pattern=r"^[A-Za-z_]\w*$")
    wrist_controller: str = Field("rh_wr_trajectory_controller", pattern=r"^([A-Za-z_]\w*)?$")
    rate_hz: float = Field(100.0, ge=10.0, le=125.0)
    reach_s: float = Field(0.02, ge=0.002, le=1.0)
    goal_period_s: float = Field(0.1, ge=0.01, le=1.0)
    stale_s: float = Field(0.024, ge=0.008, le=1.0)
    connect_timeout_s: float = Field(2.0, ge=0.1, le=60.0)


class ShadowHandDriver(JointDriver):
    """A hand that its own controllers hold; it does not tell temperatures.

    Args:
        robot: whose joints the hand has.
        settings: of its ROS graph.
        link: speaks to it.

    Raises:
        ValueError: no link, which `shadow_hand_node` brings, or a robot with other joints.
    """

    def __init__(
        self, robot: Robot, settings: ShadowHandSettings, link: ControllerLink | None = None
    ) -> None:
        if link is None:
            raise ValueError("driver 'shadow_hand' speaks ROS: run shadow_hand_node")
        lacking = {*WRIST, *(name for pair in COUPLED for name in pair)} - set(robot.joint_names)
        if lacking:
            raise ValueError(f"has no joints {', '.join(sorted(lacking))}, expected Shadow's hand")
        self.name = f"Shadow hand at {link.name}"
        self.robot = robot
        self.period_s = 1.0 / settings.rate_hz
        self._settings = settings
        self._link = link
        self._controllers = controllers_of(robot, settings)
        self._sent: Array | None = None
        self._sent_s = 0.0
        self._awaiting: Array | None = None  # a setpoint that is not sent yet

    def connect(self) -> None:
        self._link.close()
        self._link.open()
        self._sent = self._awaiting = None
        end_s = time.monotonic() + self._settings.connect_timeout_s
        while lack := self._lack():
            if time.monotonic() > end_s:
                self.close()
                raise DeviceMissing(
                    f"{self.name}: {lack}; are its controllers running, in this ROS domain?"
                )
            time.sleep(_POLL_S)
        self._link.forget_faults()

    def read(self) -> JointReading:
        sample = self._link.latest()
        age_s = time.monotonic() - sample.steady_s if sample is not None else float("inf")
        if sample is None or age_s > self._settings.stale_s:
            raise SampleLost(f"no joint_states for {age_s:.3f} s")
        try:
            rows = [sample.joints[name] for name in self.robot.joint_names]
        except KeyError as error:
            raise SampleLost(f"joint_states lacks {error}") from error
        position, velocity, effort = np.array(rows, np.float64).T.copy()
        check_finite("joint_states", self.robot, position, velocity)
        unknown = np.full(len(rows), np.nan)
        return JointReading(position, velocity, effort, unknown, self._link.faults())

    def reachable(self, names: Sequence[str], targets: Array) -> Array:
        return coupled(names, targets)

    def engage(self, position: Array) -> None:
        if missing := self._link.missing():
            raise JointFault(dict.fromkeys(missing, "nobody serves it"))
        self._send(position)

    def write(self, position: Array) -> None:
        if self._settings.interface == "action":
            # A goal is a transaction: not one in each period, and none without a change.
            is_early = time.monotonic() - self._sent_s < self._settings.goal_period_s
            if self._sent is not None and (
                is_early or np.abs(position - self._sent).max() < _STILL_RAD
            ):
                self._awaiting = position.copy()
                return
        self._send(position)

    def stop(self) -> None:
        self._link.cancel()
        # The hand's own controllers keep their power: what is asked for is where it stands.
        self._send(self.read().position)

    def recover(self) -> None:
        self._link.forget_faults()
        if missing := self._link.missing():
            raise JointFault(dict.fromkeys(missing, "nobody serves it"))

    def close(self) -> None:
        if self._awaiting is not None:
            self._send(self._awaiting)
        self._link.close()

    def _send(self, position: Array) -> None:
        is_action = self._settings.interface == "action"
        reach_s = self._settings.goal_period_s if is_action else self._settings.reach_s
        targets = coupled(self.robot.joint_names, position)
        for controller, indices in self._controllers.items():
            names = [self.robot.joint_names[index] for index in indices]
            self._link.send(controller, names, targets[indices], reach_s)
        self._sent, self._sent_s, self._awaiting = position.copy(), time.monotonic(), None

    def _lack(self) -> str:
        sample = self._link.latest()
        if sample is None:
            return "no joint_states"
        absent = [name for name in self.robot.joint_names if name not in sample.joints]
        if absent:
            return f"joint_states lacks {', '.join(absent)}"
        missing = self._link.missing()
        return f"nobody serves {', '.join(missing)}" if missing else ""


def controllers_of(robot: Robot, settings: ShadowHandSettings) -> dict[str, list[int]]:
    """Return which controller moves which joints, as indices; one may move all."""
    wrist = [index for index, name in enumerate(robot.joint_names) if name in WRIST]
    fingers = [index for index in range(len(robot.joint_names)) if index not in wrist]
    if not settings.wrist_controller or settings.wrist_controller == settings.finger_controller:
        return {settings.finger_controller: list(range(len(robot.joint_names)))}
    return {settings.finger_controller: fingers, settings.wrist_controller: wrist}


def coupled(names: Sequence[str], targets: Array) -> Array:
    """Return targets that the hand's tendons can reach: J1 at most J2, with the same sum J0.

    Args:
        names: joints, in any order; [J].
        targets: [J], rad; of another length they are returned as they are, for the guard to refuse.
    """
    if len(targets) != len(names):
        return targets
    place = {name: index for index, name in enumerate(names)}
    found = np.array(targets, np.float64)
    for tip, middle in COUPLED:
        if tip in place and middle in place and found[place[tip]] > found[place[middle]]:
            mean = 0.5 * (found[place[tip]] + found[place[middle]])
            found[place[tip]] = found[place[middle]] = mean
    return found


DRIVER = ShadowHandDriver
SETTINGS = ShadowHandSettings
