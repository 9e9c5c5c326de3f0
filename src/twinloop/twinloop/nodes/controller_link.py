# SPDX-License-Identifier: Apache-2.0
"""Speaks to trajectory controllers of another ROS graph part: their joints, topics and actions.

It has a node and a thread of its own: what a device tells is heard whatever the driver's node does.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import rclpy
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from twinloop.drivers.shadow_hand import HandSample
from twinloop.nodes.action_client import AnyThreadActionClient

Interface = Literal["topic", "action"]
_COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_JOINTS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_JOIN_S = 2.0


class RosControllerLink:
    """The `ControllerLink` of drivers whose device speaks ROS.

    Args:
        node_name: of the node that it makes.
        namespace: of the device's `joint_states` and controllers.
        interface: whether controllers take targets on a topic or as goals of
            `follow_joint_trajectory`.
        command_topic: of each controller, without its name.
        controllers: their names.
        context: of ROS; the default one unless given.
    """

    def __init__(
        self,
        node_name: str,
        namespace: str,
        interface: Interface,
        command_topic: str,
        controllers: Sequence[str],
        context: Context | None = None,
    ) -> None:
        self._prefix = namespace.rstrip("/")
        self.name = f"{self.joint_states} and {', '.join(controllers)}"
        self._node_name = node_name
        self._interface = interface
        self._command_topic = command_topic
        self._controllers = list(controllers)
        self._context = context
        self._sample: HandSample | None = None
        self._faults: dict[str, str] = {}
        self._goals: dict[str, tuple[int, Any]] = {}
        self._sent = 0
        self._node: Any = None

    @property
    def joint_states(self) -> str:
        """The topic that the device tells its joints on."""
        return f"{self._prefix}/joint_states"

    def open(self) -> None:
        self._sample = None
        # Names that the process was given are those of the driver's node.
        self._node = rclpy.create_node(
            self._node_name, context=self._context, use_global_arguments=False
        )
        self._node.create_subscription(JointState, self.joint_states, self._take, _JOINTS)
        self._commands = {}
        self._clients = {}
        for controller in self._controllers:
            place = f"{self._prefix}/{controller}"
            if self._interface == "topic":
                self._commands[controller] = self._node.create_publisher(
                    JointTrajectory, f"{place}/{self._command_topic}", _COMMAND
                )
            else:
                self._clients[controller] = AnyThreadActionClient(
                    self._node, FollowJointTrajectory, f"{place}/follow_joint_trajectory"
                )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="controller-link", daemon=True)
        self._thread.start()

    def close(self) -> None:
        node, self._node = self._node, None
        if node is None:
            return
        self._executor.shutdown(timeout_sec=_JOIN_S)
        self._thread.join(_JOIN_S)
        for client in self._clients.values():
            client.destroy()
        node.destroy_node()
        self._goals = {}

    def latest(self) -> HandSample | None:
        return self._sample

    def missing(self) -> list[str]:
        if self._interface == "topic":
            return [
                publisher.topic_name
                for publisher in self._commands.values()
                if publisher.get_subscription_count() == 0
            ]
        return [
            f"{self._prefix}/{controller}/follow_joint_trajectory"
            for controller, client in self._clients.items()
            if not client.server_is_ready()
        ]

    def faults(self) -> dict[str, str]:
        return dict(self._faults)

    def forget_faults(self) -> None:
        self._faults = {}

    def send(
        self, controller: str, names: Sequence[str], targets: NDArray[np.float64], reach_s: float
    ) -> None:
        reach = Duration(sec=int(reach_s), nanosec=round(reach_s % 1.0 * 1e9))
        point = JointTrajectoryPoint(positions=array("d", targets.tobytes()), time_from_start=reach)
        # Without a stamp it begins when it arrives, whatever the clocks of two machines say.
        trajectory = JointTrajectory(joint_names=list(names), points=[point])
        if self._interface == "topic":
            self._commands[controller].publish(trajectory)
            return
        self._sent += 1
        goal = FollowJointTrajectory.Goal(trajectory=trajectory)
        self._goals[controller] = (self._sent, None)
        future = self._clients[controller].send_goal_async(goal)
        future.add_done_callback(partial(self._take_answer, controller, self._sent))

    def cancel(self) -> None:
        for _, handle in list(self._goals.values()):
            if handle is not None:
                handle.cancel_goal_async()
        self._goals = {}

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _take(self, message: JointState) -> None:
        count = len(message.name)
        if len(message.position) != count or len(message.velocity) != count:
            return  # not this device's: it tells positions and velocities of all
        efforts = message.effort if len(message.effort) == count else [float("nan")] * count
        rows = zip(message.position, message.velocity, efforts, strict=True)
        joints = dict(zip(message.name, rows, strict=True))
        self._sample = HandSample(time.monotonic(), joints)

    def _is_newest(self, controller: str, number: int) -> bool:
        return self._goals.get(controller, (0, None))[0] == number

    def _take_answer(self, controller: str, number: int, future: Any) -> None:
        handle = future.result()
        if not self._is_newest(controller, number):
            return
        if not handle.accepted:
            self._faults[controller] = "refused a goal"
            return
        self._goals[controller] = (number, handle)
        handle.get_result_async().add_done_callback(partial(self._take_end, controller, number))

    def _take_end(self, controller: str, number: int, future: Any) -> None:
        # Of a goal that a newer one took the place of, the end says nothing.
        outcome = future.result()
        if self._is_newest(controller, number) and outcome.status == GoalStatus.STATUS_ABORTED:
            result = outcome.result
            self._faults[controller] = result.error_string or f"error {result.error_code}"
