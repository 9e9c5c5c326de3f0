# SPDX-License-Identifier: Apache-2.0
"""A station beside the Franka node: it sends goals to its actions too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from control_msgs.action import FollowJointTrajectory, GripperCommand
from driver_station import DriverStation
from rclpy.action import ActionClient
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from twinloop.motion.semantics import arm_limits
from twinloop.motion.timing import assemble, straight_leg
from twinloop.motion.trajectory import Trajectory
from twinloop.nodes.gripper_action import GRIPPER_ACTION
from twinloop.nodes.trajectory_action import ARM_ACTION
from twinloop.robots.panda import PANDA

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from franka import SKIP, Controller

__all__ = ["HOME", "SKIP", "Controller", "FrankaStation", "motion_to"]

HOME = np.array([0.0, 0.0, 0.0, -1.57, 0.0, 1.57, 0.785])  # where the simulated arm begins


def motion_to(
    goal: np.ndarray, start: np.ndarray, velocity: float = 0.5, acceleration: float = 0.3
) -> Trajectory:
    """A straight move [7], rad, at shares of the arm's limits."""
    leg = straight_leg(0, goal - start, arm_limits().scaled(velocity, acceleration))
    return assemble(PANDA.joint_names, start, [leg])


class FrankaStation(DriverStation):
    """Commands a Franka node over DDS; `servos` is the simulated controller."""

    module = "twinloop.nodes.franka"
    robot = PANDA
    prefix = "arm/"

    def __init__(self, *arguments: Any, **parameters: Any) -> None:
        super().__init__(*arguments, **parameters)
        self.arm = ActionClient(self.node, FollowJointTrajectory, ARM_ACTION)
        self.gripper = ActionClient(self.node, GripperCommand, GRIPPER_ACTION)

    @property
    def controller(self) -> Controller:
        return self.servos

    @property
    def position(self) -> np.ndarray:
        """Of the arm's joints, as told last [7], rad."""
        return self.joints[-1][2][:7]

    @property
    def driver_state(self) -> str:
        return self.values().get("driver", "")

    def follow(self, trajectory: Trajectory) -> Any:
        """Send a trajectory; returns the goal's handle."""
        self.until(self.arm.server_is_ready)
        message = JointTrajectory(joint_names=list(trajectory.joint_names))
        message.points = [
            JointTrajectoryPoint(
                positions=list(position), velocities=list(velocity), accelerations=list(change)
            )
            for position, velocity, change in zip(
                trajectory.position, trajectory.velocity, trajectory.acceleration, strict=True
            )
        ]
        for point, time_s in zip(message.points, trajectory.time, strict=True):
            nanoseconds = round(time_s * 1e9)
            point.time_from_start.sec = nanoseconds // 1_000_000_000
            point.time_from_start.nanosec = nanoseconds % 1_000_000_000
        return self._accepted(self.arm, FollowJointTrajectory.Goal(trajectory=message))

    def grip(self, finger_m: float, effort_n: float = 0.0) -> Any:
        """Send the gripper; returns the goal's result."""
        self.until(self.gripper.server_is_ready)
        goal = GripperCommand.Goal()
        goal.command.position, goal.command.max_effort = finger_m, effort_n
        return self.result(self._accepted(self.gripper, goal))

    def result(self, handle: Any, timeout_s: float = 60.0) -> Any:
        """Wait for a goal's end; returns the result."""
        future = handle.get_result_async()
        self.until(future.done, timeout_s)
        return future.result().result

    def cancel(self, handle: Any) -> None:
        future = handle.cancel_goal_async()
        self.until(future.done)

    def told(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the arm was told since the last call: its own time [T], s; told and measured
        [T, 7], rad."""
        commands = self.controller.do("commands")
        times = np.array([each[0] for each in commands])
        return times, *(np.array([each[k] for each in commands]).reshape(-1, 7) for k in (1, 2))

    def _accepted(self, client: ActionClient, goal: Any) -> Any:
        future = client.send_goal_async(goal)
        self.until(future.done)
        handle = future.result()
        assert handle.accepted
        return handle
