# SPDX-License-Identifier: Apache-2.0
"""A command source as a process of its own, to be killed: it moves all joints to and fro."""

from __future__ import annotations

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory
from twin_station import CUP, PERIOD_NS, command, stamp_ns
from twinloop.nodes import qos


class Source(Node):
    """Sends a command at every control step."""

    def __init__(self) -> None:
        super().__init__("command_source")
        self._due_ns = 0
        self._step = 0
        self._publisher = self.create_publisher(JointTrajectory, "command", qos.COMMAND)
        self.create_subscription(JointState, "joint_states", self._on_joints, qos.SENSOR)

    def _on_joints(self, message: JointState) -> None:
        stamp = stamp_ns(message)
        if stamp < self._due_ns:
            return
        self._due_ns = stamp + PERIOD_NS
        self._step += 1
        self._publisher.publish(
            command(CUP + 0.1 * np.sin(0.8 * self._step), stamp, self.get_name())
        )


def main() -> None:
    rclpy.init()
    rclpy.spin(Source())
