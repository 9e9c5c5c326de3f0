# SPDX-License-Identifier: Apache-2.0
"""Franka node: arm and gripper, with the topics and actions that the twin has for its own."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from std_srvs.srv import Trigger

from twinloop.drivers.base import Array, JointDriver
from twinloop.drivers.franka import FrankaDriver
from twinloop.drivers.franka_gripper import FrankaGripper
from twinloop.drivers.franka_loop import SOURCE, FrankaLoop
from twinloop.drivers.loop import Cycle
from twinloop.motion.gripper_controller import GripperRefused
from twinloop.nodes.base import OK, WARN, Health, run
from twinloop.nodes.gripper_action import GripperAction
from twinloop.nodes.joint_driver import JointDriverNode
from twinloop.nodes.joint_messages import joint_state
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec
from twinloop.nodes.trajectory_action import TrajectoryAction
from twinloop.robots.panda import FINGER_JOINTS
from twinloop.safety.verdict import GuardState

_STILL = np.zeros(len(FINGER_JOINTS))
_TELL_S = 0.1  # between two of the commands that a trajectory comes to
# The arm's own process goes on through stalls of the node; they end a motion later than others.
_STALL_S = 0.06


class FrankaNode(JointDriverNode):
    """Drives a Franka arm and its gripper.

    Names are those of the twin's arm: `arm/joint_states`, `arm/command`, and the controllers'
    actions. The fingers are in `arm/joint_states` while the gripper answers.
    """

    loop_type = FrankaLoop
    prefix = "arm/"
    parameters = (
        *(
            replace(spec, default=_STALL_S) if spec.name == "stall_limit_s" else spec
            for spec in JointDriverNode.parameters
        ),
        ParameterSpec("gripper", True, "Whether there is a gripper"),
        ParameterSpec("success_warn", 0.9, "Warn of a smaller share of commands in time", 0.0, 1.0),
    )

    def __init__(self) -> None:
        super().__init__("franka")
        self._gripper: FrankaGripper | None = None
        self._told_s = 0.0

    @property
    def loop(self) -> FrankaLoop | None:
        return self._loop if isinstance(self._loop, FrankaLoop) else None

    def make_driver(self) -> JointDriver:
        driver = super().make_driver()
        if not isinstance(driver, FrankaDriver):
            raise ParameterRefused(
                f"parameter robot names {driver.name}, expected one with the driver 'franka'"
            )
        return driver

    def configure(self) -> None:
        super().configure()
        loop = self.loop
        assert loop is not None
        self._trajectories = TrajectoryAction(
            self, loop.trajectories, lambda: self.get_clock().now().nanoseconds
        )
        self._undo.append(self._trajectories.close)
        if self.param("gripper"):
            self._gripper = gripper = FrankaGripper(loop.driver.address)
            self._grips = GripperAction(self, gripper)
            home = self.create_service(Trigger, f"{self.prefix}home_gripper", self._on_home)
            self._undo += [self._grips.close, lambda: self.destroy_service(home)]

    def cleanup(self) -> None:
        super().cleanup()
        self._gripper = None

    def close(self) -> None:
        super().close()
        if self._gripper is not None:
            self._gripper.close()

    def activate(self) -> None:
        super().activate()
        if self._gripper is not None:
            self._gripper.poll()

    def deactivate(self) -> None:
        super().deactivate()
        if self._gripper is not None and not self._is_lost:
            self._gripper.close()

    def health(self) -> Health:
        health, loop, gripper = super().health(), self.loop, self._gripper
        if loop is None:
            return health
        figures = loop.driver.figures()
        values = health.values | figures
        level, text = health.level, health.message
        rate = float(figures.get("arm_success_rate", "1"))
        if loop.status().state == "running" and rate < self.param("success_warn"):
            level, text = max(level, WARN), f"{rate:.0%} of the commands come in time; {text}"
        if gripper is not None:
            values |= {
                "gripper": gripper.fault or gripper.status.state.value,
                "gripper_width_m": f"{gripper.width_m:.4f}",
                "gripper_temperature": f"{gripper.temperature_c:.0f}",
            }
            if level == OK and not gripper.is_there and self.is_active:
                level, text = WARN, f"gripper: {gripper.fault}; {text}"
        return Health(level, text, values)

    def _publish(self, cycle: Cycle) -> None:
        gripper, reading = self._gripper, cycle.reading
        if gripper is None or not gripper.is_there or reading is None:
            super()._publish(cycle)
            return
        super()._publish(replace(cycle, reading=None))
        fingers, zeros = np.full(len(FINGER_JOINTS), gripper.width_m / 2), _STILL
        self._joint_states.publish(
            joint_state(
                [*self._names, *FINGER_JOINTS],
                cycle.stamp_ns,
                np.concatenate([reading.position, fingers]),
                np.concatenate([reading.velocity, zeros]),
                np.concatenate([reading.effort, zeros]),
            )
        )

    def _look(self) -> None:
        super()._look()
        loop, gripper = self.loop, self._gripper
        if loop is None:
            return
        guard, reading = loop.guard, loop.status().reading
        now_ns = self.get_clock().now().nanoseconds
        if reading is not None:
            self._trajectories.update(now_ns, reading.position, reading.velocity)
        if gripper is not None:
            if self.is_active:
                gripper.poll()
            gripper.forbidden = ""
            if guard is None or guard.state in (GuardState.STOPPED, GuardState.EMERGENCY_STOP):
                gripper.forbidden = "the arm is stopped" if guard is None else guard.reason
                gripper.stop(gripper.forbidden)
            self._grips.update(gripper.width_m)
        if guard is not None and not loop.trajectories.status.is_over:
            self._tell(guard.goal, now_ns)

    def _tell(self, goal: Array, now_ns: int) -> None:
        """Publish the commands that a trajectory comes to, now and then."""
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            self._guard_topics.accept(now_ns, SOURCE, goal)

    def _on_home(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, "homing"
        try:
            if self._gripper is None or not self.is_active:
                raise GripperRefused("the node is not active")
            self._gripper.home()
        except GripperRefused as error:
            response.success, response.message = False, str(error)
        return response


def main() -> None:
    run(FrankaNode)
