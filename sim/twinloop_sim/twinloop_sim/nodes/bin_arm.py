# SPDX-License-Identifier: Apache-2.0
"""The arm of the simulated bins: its actions, its joints with their efforts, its emergency stop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from twinloop.nodes import qos
from twinloop.nodes.gripper_action import GripperAction
from twinloop.nodes.joint_messages import joint_state
from twinloop.nodes.trajectory_action import TrajectoryAction
from twinloop.robots.panda import FINGER_JOINTS

from twinloop_sim.arm import Arm
from twinloop_sim.arm_twin import ARM_JOINTS
from twinloop_sim.grasping.bin_cell import BinCell
from twinloop_sim.nodes.guarded_arm import GuardedGripper, GuardedTrajectories


class BinArm:
    """Serves what an arm's driver does.

    Args:
        node: that it belongs to.
        cell: whose arm it is.
        now_ns: time of the cell, ns.
    """

    def __init__(self, node: LifecycleNode, cell: BinCell, now_ns: Callable[[], int]) -> None:
        self._node = node
        self._cell = cell
        self._now_ns = now_ns
        self._pressed = False
        self._joint_states = node.create_publisher(JointState, "arm/joint_states", qos.SENSOR)
        self._stop = node.create_subscription(Bool, "emergency_stop", self._on_stop, qos.HEARTBEAT)
        self._trajectories = TrajectoryAction(node, GuardedTrajectories(self), now_ns)
        self._gripper = GripperAction(node, GuardedGripper(self))

    @property
    def arm(self) -> Arm:
        """The arm; another one in each new heap."""
        return self._cell.arm

    def refusal(self) -> str:
        """Say why nothing may be begun; empty where it may."""
        return "the emergency stop is pressed" if self._pressed else ""

    def publish(self) -> None:
        """Tell of a tick, and end the goals that are over."""
        state, stamp_ns = self.arm.state, self._now_ns()
        self._joint_states.publish(
            joint_state(
                list(ARM_JOINTS),
                stamp_ns,
                np.concatenate([state.q, state.fingers]),
                np.concatenate([state.qd, state.fingers_speed]),
                np.concatenate([self._cell.torque, np.zeros(len(FINGER_JOINTS))]),
            )
        )
        self._trajectories.update(stamp_ns, state.q, state.qd)
        self._gripper.update(self.arm.width)

    def close(self) -> None:
        self._trajectories.close()
        self._gripper.close()
        self._node.destroy_publisher(self._joint_states)
        self._node.destroy_subscription(self._stop)

    def _on_stop(self, message: Bool) -> None:
        self._pressed = message.data
        if message.data:
            self.arm.stop("emergency stop")
