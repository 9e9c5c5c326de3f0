# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Shadow's ROS packages: topics, actions and rates of the hand, and its tendons.

It tells its joints on `joint_states` at 125 Hz and moves them as two trajectory controllers are
told, of the fingers and of the wrist: on `command`, or by goals of `follow_joint_trajectory`. One
motor pulls the last two joints of a finger: whatever is asked of the two, both are bent equally.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Self

import numpy as np
import rclpy
from control_msgs.action import FollowJointTrajectory
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.task import Future
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory
from twinloop.dds import leave_domain, take_domain
from twinloop.drivers.shadow_hand import ShadowHandSettings
from twinloop.nodes.controller_link import RosControllerLink
from twinloop.robots.shadow_hand import COUPLED, SHADOW_HAND, WRIST

ROBOT = SHADOW_HAND
NAMES = list(SHADOW_HAND.joint_names)
CONTROLLERS = {
    "rh_trajectory_controller": [name for name in NAMES if name not in WRIST],
    "rh_wr_trajectory_controller": list(WRIST),
}
PERIOD_S = 1 / 125
SECOND_NS = 10**9


class Controller:
    """One trajectory controller: moves its joints to the last point that it was given."""

    def __init__(self, hand: ShadowHand, name: str, joints: list[str]) -> None:
        self.joints = joints
        self.commands: list[dict[str, float]] = []
        self.refused = self.preempted = 0
        self._hand = hand
        self._indices = [NAMES.index(joint) for joint in joints]
        self._begin = self._end = hand.position[self._indices]
        self._begun_s, self._reach_s = time.monotonic(), 1.0
        self._running: tuple[Any, Future] | None = None
        hand.node.create_subscription(JointTrajectory, f"{name}/command", self.take, 1)
        self._server = ActionServer(
            hand.node,
            FollowJointTrajectory,
            f"{name}/follow_joint_trajectory",
            self._execute,
            goal_callback=lambda _: GoalResponse.REJECT if hand.rejects else GoalResponse.ACCEPT,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def take(self, trajectory: JointTrajectory) -> bool:
        point = trajectory.points[-1]
        targets = dict(zip(trajectory.joint_names, point.positions, strict=True))
        if set(targets) != set(self.joints) or not np.isfinite(point.positions).all():
            self.refused += 1
            return False
        self.commands.append(targets)
        self._begin = self._hand.position[self._indices]
        self._end = self._hand.bent(targets)[self._indices]
        reach = point.time_from_start
        self._reach_s = max(reach.sec + reach.nanosec / SECOND_NS, 1e-3)
        self._begun_s = time.monotonic()
        return True

    def step(self) -> None:
        share = min(1.0, (time.monotonic() - self._begun_s) / self._reach_s)
        self._hand.position[self._indices] = self._begin + share * (self._end - self._begin)
        if share == 1.0:
            self._finish(FollowJointTrajectory.Result.SUCCESSFUL, "")

    def _finish(self, code: int, text: str) -> None:
        running, self._running = self._running, None
        if running is not None:
            running[1].set_result((code, text))

    async def _execute(self, goal: Any) -> FollowJointTrajectory.Result:
        codes = FollowJointTrajectory.Result
        if self._running is not None:
            self.preempted += 1
            self._finish(codes.INVALID_GOAL, "a new goal came")
        done = Future()
        if not self.take(goal.request.trajectory):
            done.set_result((codes.INVALID_JOINTS, "other joints"))
        elif self._hand.gives_up:
            done.set_result((codes.PATH_TOLERANCE_VIOLATED, "a finger is held fast"))
        else:
            self._running = (goal, done)
        code, text = await done
        (goal.abort if code else goal.succeed)()
        return codes(error_code=code, error_string=text)


class ShadowHand:
    """The hand's ROS graph, in a thread, in a domain of its own unless one is given."""

    def __init__(self, domain: int | None = None) -> None:
        self.domain = take_domain() if domain is None else domain
        self._is_own_domain = domain is None
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        self.node = rclpy.create_node("sr_hand_robot", context=self._context)
        self.position = SHADOW_HAND.poses["cup"].copy()
        self.position = self.bent(dict(zip(NAMES, self.position, strict=True)))
        self.rejects = self.gives_up = self.is_silent = False
        self.controllers = {
            name: Controller(self, name, joints) for name, joints in CONTROLLERS.items()
        }
        self._joint_states = self.node.create_publisher(JointState, "joint_states", 10)
        self.node.create_timer(PERIOD_S, self._step)
        self._links: list[tuple[rclpy.Context, RosControllerLink]] = []
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What a hardware file would say of it, patient enough for a busy machine."""
        given = {"driver": "shadow_hand", "finger_controller": "rh_trajectory_controller"}
        return {**given, "stale_s": 0.5, "connect_timeout_s": 3.0} | changes

    def parts(self, **changes: Any) -> dict[str, Any]:
        """What the driver needs from its node."""
        settings = ShadowHandSettings.model_validate(self.settings(**changes))
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=self.domain)
        link = RosControllerLink(
            "link",
            settings.namespace,
            settings.interface,
            settings.command_topic,
            list(CONTROLLERS),
            context,
        )
        self._links.append((context, link))
        return {"link": link}

    def unplug(self) -> None:
        """Be gone, at once and for good."""
        if self._context.ok():
            rclpy.shutdown(context=self._context)
            self._thread.join()

    def bent(self, targets: dict[str, float]) -> np.ndarray:
        """Where all joints stand when some have reached their targets, [24] rad."""
        found = self.position.copy()
        for name, target in targets.items():
            found[NAMES.index(name)] = target
        for pair in COUPLED:
            indices = [NAMES.index(name) for name in pair]
            found[indices] = found[indices].mean()
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        for context, link in self._links:
            link.close()
            rclpy.try_shutdown(context=context)
        if self._is_own_domain:
            leave_domain(self.domain)

    def _step(self) -> None:
        for controller in self.controllers.values():
            controller.step()
        if self.is_silent:
            return
        # As the hand's packages do, by name, and not in the order of ours.
        names = sorted(NAMES)
        message = JointState(
            name=names,
            position=[float(self.position[NAMES.index(name)]) for name in names],
            velocity=[0.0] * len(names),
            effort=[0.0] * len(names),
        )
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._joint_states.publish(message)

    def _spin(self) -> None:
        executor = SingleThreadedExecutor(context=self._context)
        executor.add_node(self.node)
        try:
            executor.spin()
        except ExternalShutdownException:
            return


PEER = ShadowHand


def simulator() -> ShadowHand:
    """Return a hand in the domain of this process, for a driver's node to find."""
    return ShadowHand(int(os.environ.get("ROS_DOMAIN_ID", "0")))
