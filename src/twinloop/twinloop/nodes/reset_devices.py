# SPDX-License-Identifier: Apache-2.0
"""The devices of a reset as topics and actions: see `twinloop.resets.devices`.

Callbacks run in the thread of the node's executor, a reset in one of its own, which waits here.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from twinloop.contract import stamp_of
from twinloop.motion.trajectory import Trajectory
from twinloop.nodes import qos
from twinloop.nodes.arm_client import ArmClient, Goal
from twinloop.nodes.joint_messages import trajectory
from twinloop.perception.images import ImageRefused, from_camera_info, to_array
from twinloop.perception.tray import TrayFinder, TraySight
from twinloop.resets.devices import Course, PalmSight
from twinloop.resets.faults import Fault, StepFailed
from twinloop.robots.hand24 import HAND24
from twinloop_interfaces.msg import GuardStatus, TrackedBallArray

Array = NDArray[np.float64]

_PERIOD_NS = 100_000_000  # between two commands
_STOPPED = (GuardStatus.STOPPED, GuardStatus.EMERGENCY_STOP)


class RosHand:
    """The hand, and robot time, which is that of its joints' stamps.

    While a reset waits, a command goes out at each control step: a twin in lock-step stands still
    while it thinks.

    Args:
        node: whose executor is spun.
        patience_s: steady time without joints after which a wait fails.
        withdrawn: once set, nothing is waited for.
    """

    def __init__(self, node: LifecycleNode, patience_s: float, withdrawn: threading.Event) -> None:
        self._node = node
        self._withdrawn = withdrawn
        self._patience_s = patience_s
        self._stamp_ns = 0
        self._sent_ns = 0
        self._position = np.full(24, np.nan)
        self._goal: Array | None = None
        self._waits = False
        self._ticked = threading.Condition()
        self._command = node.create_publisher(JointTrajectory, "command", qos.COMMAND)
        self._joints = node.create_subscription(
            JointState, "joint_states", self._on_joints, qos.SENSOR
        )

    def close(self) -> None:
        self._node.destroy_subscription(self._joints)
        self._node.destroy_publisher(self._command)

    @property
    def is_there(self) -> bool:
        return bool(np.isfinite(self._position).all())

    def begin(self) -> None:
        """Command from the next step on: hold, at first."""
        self._goal = np.clip(self._position, HAND24.lower, HAND24.upper)

    def end(self) -> None:
        """Command no more."""
        self._goal = None

    def position(self) -> Array:
        return self._position.copy()

    def send(self, posture: Array) -> None:
        self._goal = posture.copy()

    def now_s(self) -> float:
        return self._stamp_ns * 1e-9

    def wait(self, seconds: float) -> None:
        """Let robot time pass.

        Raises:
            StepFailed: the joints are silent.
        """
        until_ns = self._stamp_ns + round(seconds * 1e9)
        heard_s, stamp_ns = time.monotonic(), self._stamp_ns
        with self._ticked:
            self._waits = True
            try:
                # Time that was set back is no reason to wait for ever.
                while stamp_ns <= self._stamp_ns < until_ns and not self._withdrawn.is_set():
                    self._ticked.wait(0.1)
                    if self._stamp_ns != stamp_ns:
                        heard_s, stamp_ns = time.monotonic(), self._stamp_ns
                    elif time.monotonic() - heard_s > self._patience_s:
                        raise StepFailed(
                            Fault.STOPPED, f"joint_states are silent for {self._patience_s:g} s"
                        )
            finally:
                self._waits = False

    def _on_joints(self, message: JointState) -> None:
        places = {name: index for index, name in enumerate(message.name)}
        if any(name not in places for name in HAND24.joint_names):
            return
        order = [places[name] for name in HAND24.joint_names]
        with self._ticked:
            self._position = np.asarray(message.position)[order]
            self._stamp_ns = stamp_of(message)
            is_due = self._stamp_ns // _PERIOD_NS > self._sent_ns // _PERIOD_NS
            # A twin that waits says again where it stands: the command may have been refused.
            is_due |= self._stamp_ns == self._sent_ns
            goal = self._goal if is_due and self._waits else None
            if goal is not None:
                self._sent_ns = self._stamp_ns
            self._ticked.notify_all()
        if goal is not None:
            names, source = list(HAND24.joint_names), self._node.get_fully_qualified_name()
            self._command.publish(trajectory(names, self._sent_ns, source, goal))


class RosArm:
    """Trajectories through the arm's action."""

    def __init__(self, client: ArmClient) -> None:
        self._client = client
        self._goal: Goal | None = None

    @property
    def detail(self) -> str:
        return "" if self._goal is None else self._goal.why

    def position(self) -> Array:
        return self._client.position.copy()

    def follow(self, trajectory: Trajectory) -> None:
        self._goal = self._client.execute(trajectory)

    def course(self) -> Course:
        return _course(self._goal)

    def cancel(self) -> None:
        if self._goal is not None:
            self._goal.cancel()


class RosGripper:
    """Widths through the gripper's action."""

    def __init__(self, client: ArmClient) -> None:
        self._client = client
        self._goal: Goal | None = None

    @property
    def detail(self) -> str:
        return "" if self._goal is None else self._goal.why

    def width_m(self) -> float:
        return self._client.width_m

    def move(self, width_m: float, effort_n: float) -> None:
        self._goal = self._client.grip(width_m, effort_n)

    def course(self) -> Course:
        goal = self._goal
        stalled = goal is not None and goal.is_over and getattr(goal.result, "stalled", False)
        return Course.DONE if stalled else _course(goal)


class RosTrayEyes:
    """Finds balls in the newest image of the tray camera, once somebody looks.

    Args:
        node: whose executor is spun.
        radius_m: of the balls.
    """

    def __init__(self, node: LifecycleNode, radius_m: float) -> None:
        self._radius_m = radius_m
        self._finder: TrayFinder | None = None
        self._image: Image | None = None
        self._found: tuple[float, TraySight] | None = None
        self.complaint = ""
        self._node = node
        self._made = [
            node.create_subscription(CameraInfo, "tray/camera_info", self._on_info, qos.IMAGE),
            node.create_subscription(Image, "tray/image_raw", self._on_image, qos.IMAGE),
        ]

    def close(self) -> None:
        for subscription in self._made:
            self._node.destroy_subscription(subscription)

    def look(self, after_s: float) -> TraySight | None:
        image, finder = self._image, self._finder
        if image is None or finder is None:
            return None
        stamp_s = stamp_of(image) * 1e-9
        if stamp_s <= after_s:
            return None
        if self._found is None or self._found[0] != stamp_s:
            try:
                self._found = (stamp_s, finder.find(to_array(image, "rgb8")))
            except (ImageRefused, ValueError) as error:
                self.complaint = f"tray/image_raw: {error}"
                return None
            self.complaint = ""
        return self._found[1]

    def _on_info(self, message: CameraInfo) -> None:
        if self._finder is not None:
            return
        try:
            self._finder = TrayFinder(from_camera_info(message, "tray"), self._radius_m)
        except ValueError as error:
            self.complaint = f"tray/camera_info: {error}"

    def _on_image(self, message: Image) -> None:
        self._image = message


class RosPalmEyes:
    """The tracker's balls."""

    def __init__(self, node: LifecycleNode) -> None:
        self._sight: PalmSight | None = None
        self._node = node
        self._made = node.create_subscription(TrackedBallArray, "balls", self._on_balls, qos.SENSOR)

    def close(self) -> None:
        self._node.destroy_subscription(self._made)

    def look(self, after_s: float) -> PalmSight | None:
        sight = self._sight
        return sight if sight is not None and sight.stamp_s > after_s else None

    def _on_balls(self, message: TrackedBallArray) -> None:
        balls = message.balls
        if len(balls) != 2:
            return
        self._sight = PalmSight(
            stamp_of(message) * 1e-9,
            np.array([_vector(ball.position) for ball in balls]),
            np.linalg.norm([_vector(ball.velocity) for ball in balls], axis=-1),
            np.array([ball.stale for ball in balls]),
        )


class RosSafety:
    """What the guard and the emergency stop say."""

    def __init__(self, node: LifecycleNode) -> None:
        self._guard = self._pressed = ""
        self.source = ""
        self._node = node
        self._made = [
            node.create_subscription(GuardStatus, "guard_status", self._on_guard, qos.latched()),
            node.create_subscription(Bool, "emergency_stop", self._on_stop, qos.HEARTBEAT),
        ]

    def close(self) -> None:
        for subscription in self._made:
            self._node.destroy_subscription(subscription)

    def stopped(self) -> str:
        return self._pressed or self._guard

    def _on_guard(self, message: GuardStatus) -> None:
        self.source = message.source
        self._guard = f"guard: {message.reason}" if message.state in _STOPPED else ""

    def _on_stop(self, message: Bool) -> None:
        self._pressed = "emergency stop pressed" if message.data else ""


def _course(goal: Goal | None) -> Course:
    if goal is None:
        return Course.IDLE
    if not goal.is_over:
        return Course.ACTIVE
    return Course.DONE if goal.succeeded else Course.FAILED


def _vector(message: Any) -> list[float]:
    return [message.x, message.y, message.z]
