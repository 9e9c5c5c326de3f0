# SPDX-License-Identifier: Apache-2.0
"""A Franka arm, through `pylibfranka` in a process of its own; see `drivers/franka_arm/`.

The loop of other drivers, a hundred times a second, hands targets to that process and takes what it
saw from there. The process answers the arm's controller a thousand times a second.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from twinloop.drivers.base import Array, DriverSettings, JointDriver, JointReading
from twinloop.drivers.faults import DeviceLost, DeviceMissing, JointFault, SampleLost
from twinloop.drivers.franka_arm.follower import Mode
from twinloop.drivers.franka_arm.limits import bounded
from twinloop.drivers.franka_arm.link import TARGET
from twinloop.drivers.franka_arm.partner import Partner, Refused
from twinloop.drivers.franka_arm.process import Phase
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import (
    Following,
    Status,
    Tolerances,
    TrajectoryRefused,
)
from twinloop.robots.base import Robot

_MODULE = "twinloop.drivers.franka_arm.process"
_STALE_S = 0.012  # older than this, a state is not one of the present
_START_S = 15.0  # for the process to start and the arm to answer
_REST_S = 1.5  # for a motion to come to rest
_RECOVER_S = 10.0
_ANSWER_S = 1.0

_Stiffness = Annotated[float, Field(ge=0.0, le=14250.0)]
_Threshold = Annotated[float, Field(gt=0.0, le=1000.0)]
_Finite = Annotated[float, Field(ge=-10.0, le=10.0)]


class LoadSettings(BaseModel):
    """What the flange carries beside the gripper.

    Attributes:
        mass: kg.
        centre: of mass, in the flange's frame [3], m.
        inertia: about it [9], column by column, kg m^2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mass: float = Field(default=0.0, ge=0.0, le=20.0)
    centre: list[_Finite] = Field(default=[0.0] * 3, min_length=3, max_length=3)
    inertia: list[_Finite] = Field(default=[0.0] * 9, min_length=9, max_length=9)


class FrankaSettings(DriverSettings):
    """Where the arm is, how stiff, and when a touch stops it.

    Attributes:
        address: of its controller.
        joint_impedance: stiffness of each joint [7], N m/rad.
        collision_torques: of joints [7], N m, that stop it.
        collision_forces: at its end, three N and three N m, that stop it.
        load: beside the gripper.
        realtime_kernel: refuse to run on a kernel without PREEMPT_RT.
        priority: of the process among those of real time; 0 for none.
        watchdog_s: without a word of the driver for longer, the arm is brought to rest.
    """

    driver: Literal["franka"]
    address: str = Field(min_length=1)
    joint_impedance: list[_Stiffness] = Field(
        [3000.0, 3000.0, 3000.0, 2500.0, 2500.0, 2000.0, 2000.0], min_length=7, max_length=7
    )
    collision_torques: list[_Threshold] = Field(
        [40.0, 40.0, 38.0, 36.0, 32.0, 28.0, 24.0], min_length=7, max_length=7
    )
    collision_forces: list[_Threshold] = Field(
        [40.0, 40.0, 40.0, 50.0, 50.0, 50.0], min_length=6, max_length=6
    )
    load: LoadSettings = LoadSettings()
    realtime_kernel: bool = False
    priority: int = Field(80, ge=0, le=99)
    watchdog_s: float = Field(0.1, ge=0.03, le=10.0)


class FrankaDriver(JointDriver):
    """A Franka arm; its limits are those that robot and arm have in common.

    Besides what joint drivers do it follows trajectories, a millisecond at a time.

    Attributes:
        motion: of the newest trajectory.
        address: of the arm's controller.
        is_given_up: whether a `connect` that waits shall not do so any longer.
    """

    def __init__(self, robot: Robot, settings: FrankaSettings) -> None:
        self.name = f"Franka arm at {settings.address}"
        self.robot = bounded(robot)
        self.period_s = 0.01
        self.motion = Status()
        self.is_given_up = False
        self.address = settings.address
        self._settings = settings
        self._partner: Partner | None = None
        self._events: dict[str, str] = {}
        self._mode = Mode.STREAM
        self._unknown = np.full(7, np.nan)

    def connect(self) -> None:
        self.close()
        self._events = {}
        settings = self._settings.model_dump() | {"robot": self.robot.name}
        self._partner = Partner(_MODULE, settings, self._take_event)
        end_s = time.monotonic() + _START_S
        while "connected" not in self._events:
            try:
                self._partner.listen()
            except DeviceLost as error:
                text = self._events.get("missing", str(error))
                raise DeviceMissing(f"{self.name} is not there: {text}") from error
            if time.monotonic() > end_s or self.is_given_up:
                raise DeviceMissing(f"{self.name} has not answered within {_START_S:g} s")
            time.sleep(0.002)

    def read(self) -> JointReading:
        partner = self._open
        self._listen(partner)
        state, _ = partner.memory.state.read()
        age_s = time.monotonic() - float(state["steady_s"])
        if age_s > _STALE_S:
            raise SampleLost(f"the newest state is {age_s * 1e3:.0f} ms old")
        faults = {}
        if state["phase"] == Phase.FAULT:
            faults["arm"] = self._events.get("fault", "a fault that it has not named")
        return JointReading(
            position=state["q"].copy(),
            velocity=state["dq"].copy(),
            effort=state["tau"].copy(),
            temperature=self._unknown,
            faults=faults,
        )

    def engage(self, position: Array) -> None:
        self._write(Mode.BRAKE, position)
        self._do("engage", _ANSWER_S)

    def write(self, position: Array) -> None:
        self._write(self._mode, position)

    def permit(self, mode: Mode) -> None:
        """Say what the next targets are for: to stream, or to leave to a trajectory, or nothing."""
        self._mode = mode

    def stop(self) -> None:
        self._do("stop", _REST_S)

    def recover(self) -> None:
        self._do("recover", _RECOVER_S)

    def close(self) -> None:
        if self._partner is not None:
            self._partner.end(_REST_S)
            self._partner = None

    # Trajectories.

    def follow(self, trajectory: Trajectory, tolerances: Tolerances) -> int:
        """Follow a trajectory of the arm's joints in the robot's order; returns its number.

        Raises:
            TrajectoryRefused: it cannot be followed; says why.
            DeviceLost.
        """
        points = [
            trajectory.time[:, None],
            trajectory.position,
            trajectory.velocity,
            trajectory.acceleration,
        ]
        ends = (tolerances.path, tolerances.goal, tolerances.stopped)
        arrays = np.concatenate([np.hstack(points).ravel(), *ends])
        try:
            number = self._open.ask("follow", _ANSWER_S, arrays, goal_time_s=tolerances.goal_time_s)
        except Refused as error:
            is_of_others = bool(error.answer.get("other_joints"))
            raise TrajectoryRefused(str(error), is_of_other_joints=is_of_others) from error
        return int(number)

    def cancel(self, why: str) -> None:
        """Give the trajectory up; the next millisecond already brakes.

        Raises:
            DeviceLost.
        """
        self._open.ask("cancel", _ANSWER_S, why=why)

    def told(self) -> tuple[Array, Array]:
        """Return what the arm was last told: [7] rad, [7] rad/s."""
        state, _ = self._open.memory.state.read()
        return state["q_d"].copy(), state["dq_d"].copy()

    def figures(self) -> dict[str, str]:
        """Return what people may want to know of the fast loop; empty where there is none."""
        if self._partner is None:
            return {}
        state, _ = self._partner.memory.state.read()
        return {
            "arm_period_ms": f"{state['period_ms']:.3f}",
            "arm_longest_ms": f"{state['longest_ms']:.1f}",
            "arm_success_rate": f"{state['success_rate']:.2f}",
            "arm_missed": str(int(state["missed"])),
            "arm_fault": self._events.get("fault", "") if state["phase"] == Phase.FAULT else "",
            "arm_process": self._events.get("connected", ""),
        }

    # The process.

    def _do(self, what: str, patience_s: float) -> None:
        try:
            self._open.ask(what, patience_s)
        except Refused as error:
            raise JointFault({"arm": str(error)}) from error

    def _write(self, mode: Mode, position: Array) -> None:
        target = np.zeros((), TARGET)
        target["steady_s"], target["mode"], target["position"] = time.monotonic(), mode, position
        self._open.memory.target.write(target)

    def _listen(self, partner: Partner) -> None:
        try:
            partner.listen()
        except DeviceLost as error:
            if not self.motion.is_over:
                self.motion = replace(self.motion, state=Following.STOPPED, detail=str(error))
            raise DeviceLost(f"{self.name} is gone: {self._events.get('lost', error)}") from error

    def _take_event(self, word: dict[str, Any]) -> None:
        if word["event"] == "motion":
            self.motion = Status(Following(word["state"]), word["number"], word["detail"])
        else:
            self._events[word["event"]] = str(word["text"])

    @property
    def _open(self) -> Partner:
        if self._partner is None:
            raise DeviceLost(f"{self.name} is not connected")
        return self._partner


DRIVER = FrankaDriver
SETTINGS = FrankaSettings
