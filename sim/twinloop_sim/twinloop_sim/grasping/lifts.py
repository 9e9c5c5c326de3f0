# SPDX-License-Identifier: Apache-2.0
"""Simulated lifts by a gripper that flies freely: straight down, close, up, and a shake.

It checks labels and plays the arm where none is simulated. It moves along its approach on a rail,
with limited force, so that what it hits stops it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import pybullet as bullet
from numpy.typing import NDArray
from twinloop.grasping.gripper import Gripper
from twinloop.robots.rotations import quaternion_from_matrix

from twinloop_sim.grasping.scene import STEP_S, Scene

Array = NDArray[np.float64]
ABOVE_M, LIFT_M = 0.1, 0.16
_HELD_M = 0.1  # that a lifted object rises at least
_DOWN_M_S, _UP_M_S, _CLOSE_M_S = 0.4, 0.35, 0.12
_RAIL_N, _GRIP_N = 60.0, 25.0
_PALM_HEIGHT_M = 0.04
_BLOCKED_M = 0.006


class End(enum.StrEnum):
    """How a lift ended."""

    HELD = "held"
    BLOCKED = "blocked on the way down"
    MISSED = "closed on nothing"
    LOST = "slipped off"


@dataclass(frozen=True)
class Lift:
    """The outcome of a lift.

    Attributes:
        end: how it ended.
        bodies: that are in the hand at its end.
        seconds: of simulated time it took.
    """

    end: End
    bodies: tuple[int, ...]
    seconds: float


def lift(scene: Scene, position: Array, rotation: Array, width_m: float, gripper: Gripper) -> Lift:
    """Grasp and lift; what is held stays in the scene, in mid-air, for the caller to remove.

    Args:
        position: of the middle between the tips in the world [3], m.
        rotation: of the grasp [3, 3]: across, closing, approach.
    """
    hand = _Hand(scene, position, rotation, width_m, gripper)
    before = {body: scene.pose(body)[0][2] for body in scene.items}
    hand.move(ABOVE_M, _DOWN_M_S)
    blocked = ABOVE_M - hand.travel() > _BLOCKED_M
    opening = hand.close()
    hand.move(ABOVE_M - LIFT_M, _UP_M_S)
    hand.shake()
    held = tuple(b for b in scene.items if scene.pose(b)[0][2] - before[b] > _HELD_M)
    seconds = hand.seconds
    hand.remove()
    if held:
        return Lift(End.HELD, held, seconds)
    if blocked:
        return Lift(End.BLOCKED, (), seconds)
    return Lift(End.MISSED if opening < 0.002 else End.LOST, (), seconds)


class _Hand:
    """Rail, palm and two fingers, above a grasp."""

    def __init__(
        self, scene: Scene, position: Array, rotation: Array, width_m: float, gripper: Gripper
    ) -> None:
        self._scene, client = scene, scene.client
        self.seconds = 0.0
        start = position - (ABOVE_M) * rotation[:, 2]
        palm = [gripper.palm_m[1] / 2, gripper.palm_m[0] / 2, _PALM_HEIGHT_M / 2]
        finger = [gripper.finger_width_m / 2, gripper.finger_thickness_m / 2,
                  gripper.finger_length_m / 2]  # fmt: skip
        shapes = [
            client.createCollisionShape(bullet.GEOM_BOX, halfExtents=half)
            for half in (palm, finger, finger)
        ]
        half = width_m / 2 + finger[1]
        self._half_opening = width_m / 2
        self.body = client.createMultiBody(
            baseMass=0.0,
            basePosition=start.tolist(),
            baseOrientation=quaternion_from_matrix(rotation)[[1, 2, 3, 0]].tolist(),
            linkMasses=[1.0, 0.1, 0.1],
            linkCollisionShapeIndices=shapes,
            linkVisualShapeIndices=[-1] * 3,
            linkPositions=[
                [0, 0, -gripper.finger_length_m - palm[2]],
                [0, half, palm[2] + finger[2]],
                [0, -half, palm[2] + finger[2]],
            ],
            linkOrientations=[[0, 0, 0, 1]] * 3,
            linkInertialFramePositions=[[0, 0, 0]] * 3,
            linkInertialFrameOrientations=[[0, 0, 0, 1]] * 3,
            linkParentIndices=[0, 1, 1],
            linkJointTypes=[bullet.JOINT_PRISMATIC] * 3,
            linkJointAxis=[[0, 0, 1], [0, -1, 0], [0, 1, 0]],
        )  # fmt: skip
        for link in (1, 2):
            client.changeDynamics(
                self.body, link, lateralFriction=1.0, spinningFriction=0.004, rollingFriction=1e-4,
            )  # fmt: skip
        for link in range(3):
            client.changeDynamics(self.body, link, linearDamping=0.0, angularDamping=0.0,
                                  jointLowerLimit=-1.0, jointUpperLimit=1.0)  # fmt: skip
        self._gear = client.createConstraint(
            self.body, 1, self.body, 2, bullet.JOINT_GEAR, [0, 1, 0], [0, 0, 0], [0, 0, 0]
        )
        client.changeConstraint(self._gear, gearRatio=-1, erp=0.5, maxForce=200)
        self._rail, self._grip = 0.0, 0.0

    def travel(self) -> float:
        return float(self._scene.client.getJointState(self.body, 0)[0])

    def move(self, goal: float, speed: float) -> None:
        """Move along the approach to `goal`, m from the start."""
        steps = max(int(abs(goal - self._rail) / speed / STEP_S), 1)
        for place in np.linspace(self._rail, goal, steps + 1)[1:]:
            self._rail = float(place)
            self._step()
        for _ in range(12):
            self._step()

    def close(self) -> float:
        """Close until both fingers stand; returns the opening that is left, m."""
        goal = self._half_opening
        for _ in range(int(goal / _CLOSE_M_S / STEP_S) + 36):
            self._grip = min(self._grip + _CLOSE_M_S * STEP_S, goal + 0.01)
            self._step()
        states = self._scene.client.getJointStates(self.body, [1, 2])
        return 2 * self._half_opening - float(states[0][0] + states[1][0])

    def shake(self) -> None:
        """Move up and down quickly: what is held loosely falls."""
        for goal in (self._rail - 0.02, self._rail + 0.02, self._rail - 0.02, self._rail):
            self.move(goal, 0.5)

    def remove(self) -> None:
        self._scene.client.removeConstraint(self._gear)
        self._scene.client.removeBody(self.body)

    def _step(self) -> None:
        client = self._scene.client
        client.setJointMotorControl2(
            self.body, 0, bullet.POSITION_CONTROL, self._rail, force=_RAIL_N, positionGain=0.6
        )
        for link in (1, 2):
            client.setJointMotorControl2(
                self.body, link, bullet.POSITION_CONTROL, self._grip, force=_GRIP_N,
                positionGain=0.4,
            )  # fmt: skip
        client.stepSimulation()
        self.seconds += STEP_S
