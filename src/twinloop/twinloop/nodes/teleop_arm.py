# SPDX-License-Identifier: Apache-2.0
"""The arm and gripper under a pilot's hands, through their actions."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState

from twinloop.motion.planner import Scene
from twinloop.motion.semantics import arm_limits, semantics
from twinloop.motion.world import World
from twinloop.nodes import qos
from twinloop.nodes.arm_client import ArmClient, Goal
from twinloop.nodes.joint_messages import nanoseconds
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_TRAVEL_M, PANDA
from twinloop.teleop.arm import ArmJog
from twinloop.teleop.settings import GRIPPER, TeleopSettings

Array = NDArray[np.float64]

_SILENT_S = 0.2
_SAME_RAD = 0.1  # by which the hand may have moved since its shape was taken
_SETTLED = 0.01  # rad/s
_GAP_RAD = 0.1  # of which an arm that is blocked is off


class Told:
    """Where the arm's servos are told to be, from `arm/setpoint`: [7], rad, and rad/s."""

    def __init__(self) -> None:
        self.position = np.full(7, np.nan)
        self.velocity = np.zeros(7)
        self._stamp_ns = 0
        self._heard_s = -np.inf

    def age_s(self) -> float:
        """For how long nothing was heard, steady s."""
        return time.monotonic() - self._heard_s

    @property
    def stamp_s(self) -> float:
        """When it was told, on the robot's clock."""
        return self._stamp_ns * 1e-9

    def take(self, message: JointState) -> None:
        where = {name: index for index, name in enumerate(message.name)}
        if not set(PANDA.joint_names) <= set(where) or len(message.position) != len(message.name):
            return
        order = [where[name] for name in PANDA.joint_names]
        position = np.array(message.position)[order]
        if not np.isfinite(position).all():
            return
        stamp_ns = nanoseconds(message.header.stamp)
        passed_s = (stamp_ns - self._stamp_ns) * 1e-9
        if 0.0 < passed_s < _SILENT_S:
            # Drivers tell no velocity.
            self.velocity = (position - self.position) / passed_s
        elif passed_s != 0.0:
            self.velocity = np.zeros(7)
        self.position, self._stamp_ns, self._heard_s = position, stamp_ns, time.monotonic()


class PilotedArm:
    """Sends the links of a jog while the dead-man is held, and gives up at once when it is not.

    Args:
        node: whose executor is spun.
        settings: speeds and distances.

    Attributes:
        problem: why the arm does not move; empty where it does, or need not.
    """

    def __init__(self, node: LifecycleNode, settings: TeleopSettings) -> None:
        self._node = node
        self._settings = settings
        self._client = ArmClient(node)
        self._world = World(semantics())
        self._jog = ArmJog(self._world, settings.arm, arm_limits())
        self._hand = HAND24.poses["cup"].copy()
        self._drawn = self._hand.copy()
        self._motion: Goal | None = None
        self._grip: Goal | None = None
        self._way = 0.0  # of the gripper: -1 closes, 1 opens
        self._due_s = 0.0
        self.problem = ""
        self._told = Told()
        self._subscriptions = [
            node.create_subscription(JointState, "joint_states", self._on_hand, qos.SENSOR),
            node.create_subscription(JointState, "arm/setpoint", self._told.take, qos.SENSOR),
        ]

    def close(self) -> None:
        self._client.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    @property
    def clearance_m(self) -> float:
        return self._jog.clearance_m

    @property
    def chosen_joint(self) -> str:
        return self._jog.chosen_joint

    def choose(self, by: int) -> None:
        self._jog.choose(by)

    def rest(self) -> None:
        """Brake, and let go of what was begun; a grip that has closed on something stays."""
        for goal in (self._motion, self._grip):
            if goal is not None and not goal.is_over:
                goal.cancel()
        self._motion, self._grip, self._way = None, None, 0.0
        self._jog.forget()
        self.problem = ""

    def move(self, motions: Mapping[str, float], is_held: bool, now_s: float) -> None:
        """Carry out what is wanted; to be called often.

        Args:
            motions: by name.
            is_held: the dead-man.
            now_s: steady time.
        """
        if not is_held:
            if self._motion is not None or self._grip is not None:
                self.rest()
            return
        self._move_gripper(motions.get(GRIPPER, 0.0))
        if now_s < self._due_s:
            return
        self._due_s = now_s + self._settings.arm.renew_s
        self._move_arm(motions)

    def _move_arm(self, motions: Mapping[str, float]) -> None:
        told, last = self._told, self._motion
        if told.age_s() > _SILENT_S or self._client.silent_s > _SILENT_S:
            self.problem = self._client.missing or "arm/setpoint or arm/joint_states is silent"
            return
        gap = np.abs(told.position - self._client.position)
        if gap.max() > _GAP_RAD:
            joint = int(gap.argmax())
            self.problem = (
                f"{PANDA.joint_names[joint]} is {gap[joint]:.2f} rad from where it is told to be"
            )
            return
        if last is not None and last.is_over and not last.succeeded:
            # It does not follow the chain: go on once it stands.
            self.problem, self._motion = last.why, None
            self._jog.forget()
        elif last is not None:
            self.problem = ""
        if self._motion is None and np.abs(told.velocity).max() > _SETTLED:
            return
        self._draw_hand()
        # Not foretold: what is late then slows the arm down, where it would hurry it.
        link = self._jog.next(motions, told.position, told.stamp_s)
        if link is not None:
            self._motion = self._client.execute(link)

    def _move_gripper(self, value: float) -> None:
        way = float(np.sign(value))
        if way == self._way:
            return
        self._way = way
        if self._grip is not None and not self._grip.is_over:
            self._grip.cancel()
        self._grip = None
        if way:
            gripper = self._settings.gripper
            width_m = gripper.open_m if way > 0.0 else gripper.closed_m
            self._grip = self._client.grip(width_m, gripper.effort_n)

    def _draw_hand(self) -> None:
        """Give the world the hand's posture, where that has changed while the arm stands."""
        stands = np.abs(self._client.velocity).max() < _SETTLED
        if not stands or np.abs(self._hand - self._drawn).max() < _SAME_RAD:
            return
        self._drawn = self._hand.copy()
        finger_m = float(np.clip(self._client.width_m / 2, 0.0, FINGER_TRAVEL_M))
        self._world.arrange(Scene(hand=self._drawn, finger_m=finger_m))

    def _on_hand(self, message: JointState) -> None:
        where = {name: index for index, name in enumerate(message.name)}
        if len(message.position) != len(message.name) or not set(HAND24.joint_names) <= set(where):
            return
        posture = np.array(message.position)[[where[name] for name in HAND24.joint_names]]
        if np.isfinite(posture).all():
            self._hand = np.clip(posture, HAND24.lower, HAND24.upper)
