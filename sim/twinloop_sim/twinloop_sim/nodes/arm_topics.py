# SPDX-License-Identifier: Apache-2.0
"""The actions and topics of the twin's arm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from twinloop.nodes import qos
from twinloop.nodes.gripper_action import GripperAction
from twinloop.nodes.joint_messages import joint_state
from twinloop.nodes.trajectory_action import TrajectoryAction
from twinloop.robots.panda import PANDA

from twinloop_sim.arm_twin import ARM_JOINTS
from twinloop_sim.nodes.guarded_arm import GuardedArm, GuardedGripper, GuardedTrajectories
from twinloop_sim.nodes.guarded_cell import GuardedCell

_LOOK_TICKS = 50  # between two looks at who listens


class ArmTopics:
    """Serves what an arm's driver does: two actions, and where the joints are.

    Args:
        node: that they belong to.
        guarded: a cell with an arm.
        on_start: called whenever something is begun.
    """

    def __init__(
        self, node: LifecycleNode, guarded: GuardedCell, on_start: Callable[[], None]
    ) -> None:
        assert guarded.arm is not None
        self._node = node
        self._guarded = guarded
        self._arm: GuardedArm = guarded.arm
        self._names = list(ARM_JOINTS)
        self._joint_states = node.create_publisher(JointState, "arm/joint_states", qos.SENSOR)
        self._setpoint = node.create_publisher(JointState, "arm/setpoint", qos.SENSOR)
        self._has_setpoint_readers = False
        self._ticks = 0
        self._trajectories = TrajectoryAction(
            node,
            GuardedTrajectories(guarded.arm),
            lambda: guarded.now_ns,
            on_start=on_start,
        )
        self._gripper = GripperAction(node, GuardedGripper(guarded.arm), on_start=on_start)

    def close(self) -> None:
        self._trajectories.close()
        self._gripper.close()
        self._node.destroy_publisher(self._joint_states)
        self._node.destroy_publisher(self._setpoint)

    def publish(self, stamp_ns: int) -> None:
        """Tell of a tick that ended at a time, ns, and end the goals that are over."""
        arm = self._arm.arm
        state = arm.state
        self._joint_states.publish(
            joint_state(
                self._names,
                stamp_ns,
                np.concatenate([state.q, state.fingers]),
                np.concatenate([state.qd, state.fingers_speed]),
            )
        )
        if self._ticks % _LOOK_TICKS == 0:
            self._has_setpoint_readers = self._setpoint.get_subscription_count() > 0
        self._ticks += 1
        if self._has_setpoint_readers:
            told = arm.setpoint
            self._setpoint.publish(
                joint_state(list(PANDA.joint_names), stamp_ns, told.position, told.velocity)
            )
        self._end_goals(stamp_ns)

    def open_up(self) -> None:
        """Take goals from now on."""
        self._arm.closed = ""

    def close_down(self, why: str) -> None:
        """Take no goals any more, and end those that are under way."""
        self._arm.closed = why
        self._arm.stop(why)
        self._end_goals(self._guarded.now_ns)

    def _end_goals(self, stamp_ns: int) -> None:
        state = self._arm.arm.state
        self._trajectories.update(stamp_ns, state.q, state.qd)
        self._gripper.update(self._arm.arm.width)
