# SPDX-License-Identifier: Apache-2.0
"""Franka's arm between two bins in PyBullet, from the cell's URDF: it really moves and grips.

Servos of the joints follow what the arm's controllers tell, with the forces that the robot has.
What the joints measure, torques included, is what the robot's own sensors would tell; torques carry
noise. Fingers touch everything; the rest of the arm touches things and bins, not itself.
"""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

import numpy as np
import pybullet as bullet
from numpy.typing import NDArray
from twinloop.grasping.pick_settings import PickSettings, load_settings
from twinloop.motion.semantics import semantics
from twinloop.robots.description import bins_urdf
from twinloop.robots.panda import FINGER_JOINTS, FINGER_TRAVEL_M, PANDA

from twinloop_sim.arm import Arm
from twinloop_sim.arm_twin import ArmState
from twinloop_sim.grasping.objects import ObjectFiles
from twinloop_sim.grasping.scene import STEP_S, Scene

Array = NDArray[np.float64]

TICK_STEPS = 2  # physics steps between two setpoints
TICK_S = TICK_STEPS * STEP_S
_TORQUE_N_M = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])
_GAIN = 0.4  # of a position's error that a step makes up for
_FINGER_GAIN = 0.3
_STATIC = ("table", "first_bin", "second_bin")
_TORQUE_NOISE_N_M = 0.03
_KEPT_TICKS = 5  # of measurements


class BinCell(Scene):
    """A `Scene` whose bin stands before an arm, with another bin beside it.

    Args:
        files: of the objects.
        settings: places of the bins.

    Attributes:
        arm: with its gripper; moves as the cell ticks.
        strains: joints, velocities, accelerations that they were told, and torques of the last
            ticks, [7] each: rad, rad/s, rad/s^2, N m.
        now_s: simulated time.
    """

    def __init__(
        self, files: ObjectFiles | None = None, settings: PickSettings | None = None
    ) -> None:
        super().__init__(files)
        self.settings = settings or load_settings()
        self._folder = tempfile.TemporaryDirectory(prefix="twinloop-bins-")
        self._urdf = Path(self._folder.name) / "bins.urdf"
        self._urdf.write_text(bins_urdf())
        self.now_s = 0.0
        self.clear(True)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()

    def clear(self, has_bin: bool) -> None:
        """Begin anew: bins without objects, the arm at rest, its gripper open.

        Raises:
            ValueError: without a bin there is no such cell.
        """
        if not has_bin:
            raise ValueError("a cell of bins has a bin")
        self._begin(True)
        client = self.client
        self._body = client.loadURDF(
            str(self._urdf),
            useFixedBase=True,
            flags=bullet.URDF_USE_INERTIA_FROM_FILE | bullet.URDF_USE_SELF_COLLISION,
        )
        count = client.getNumJoints(self._body)
        about = [client.getJointInfo(self._body, index) for index in range(count)]
        joints = {one[1].decode(): one[0] for one in about}
        links = {one[12].decode(): one[0] for one in about}
        self._joints = [joints[name] for name in PANDA.joint_names]
        self._fingers = [joints[name] for name in FINGER_JOINTS]
        self._part_from_itself(links)
        rest = semantics("right", "bins").states["rest"]
        for index, value in zip(self._joints, rest, strict=True):
            client.resetJointState(self._body, index, float(value))
        for index in self._fingers:
            client.resetJointState(self._body, index, FINGER_TRAVEL_M)
        for name in ("panda_leftfinger", "panda_rightfinger"):
            client.changeDynamics(
                self._body, links[name], lateralFriction=1.0, spinningFriction=0.004,
                rollingFriction=1e-4,
            )  # fmt: skip
            # In one call with damping, PyBullet leaves a link's friction as it was.
            client.changeDynamics(self._body, links[name], linearDamping=0.0, angularDamping=0.0)
        for name in _STATIC:
            client.changeDynamics(self._body, links[name], lateralFriction=1.0)
        # The fingers of the real hand are geared.
        gear = client.createConstraint(
            self._body, self._fingers[0], self._body, self._fingers[1], bullet.JOINT_GEAR,
            [0, 1, 0], [0, 0, 0], [0, 0, 0],
        )  # fmt: skip
        client.changeConstraint(gear, gearRatio=-1, erp=0.5, maxForce=200)
        self.strains: deque[tuple[Array, Array, Array, Array]] = deque(maxlen=_KEPT_TICKS)
        self._noise = np.random.default_rng(0)
        self.arm = Arm(self._measured(), TICK_S)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The one arm."""
        return (self.arm,)

    def tick(self) -> None:
        """Advance by `TICK_S` under what the arm's controllers tell."""
        client = self.client
        self.arm.targets()
        told, target = self.arm.setpoint, self.arm.gripper.target
        client.setJointMotorControlArray(
            self._body,
            self._joints,
            bullet.POSITION_CONTROL,
            targetPositions=told.position.tolist(),
            targetVelocities=told.velocity.tolist(),
            forces=_TORQUE_N_M.tolist(),
            positionGains=[_GAIN] * 7,
            velocityGains=[1.0] * 7,
        )
        client.setJointMotorControlArray(
            self._body,
            self._fingers,
            bullet.POSITION_CONTROL,
            targetPositions=[target.width_m / 2] * 2,
            forces=[target.max_effort_n] * 2,
            positionGains=[_FINGER_GAIN] * 2,
            velocityGains=[1.0] * 2,
        )
        for _ in range(TICK_STEPS):
            client.stepSimulation()
        self.now_s += TICK_S
        self.arm.state = state = self._measured()
        self.strains.append((state.q, state.qd, told.acceleration, self.torque))

    def run(self, seconds: float) -> None:
        """Let time pass; the arm goes on with what it does."""
        for _ in range(max(1, round(seconds / TICK_S))):
            self.tick()

    def is_in_target(self, body: int) -> bool:
        """Return whether an object truly lies in the other bin."""
        return self.settings.target.holds(self.pose(body)[0])

    def _measured(self) -> ArmState:
        states = self.client.getJointStates(self._body, self._joints + self._fingers)
        position = np.array([one[0] for one in states])
        velocity = np.array([one[1] for one in states])
        torque = np.array([one[3] for one in states[:7]])
        self.torque: Array = torque + _TORQUE_NOISE_N_M * self._noise.standard_normal(7)
        return ArmState(position[:7], velocity[:7], position[7:], velocity[7:])

    def _part_from_itself(self, links: dict[str, int]) -> None:
        """Let the arm touch bins and table, and neither itself nor what it is mounted on.

        The hulls of its first two links reach into the table; contacts there push nothing, but
        joints at rest would tell velocities.
        """
        static = {links[name] for name in _STATIC}
        indices = list(links.values())
        for first in indices:
            for second in indices:
                if first < second and (first in static) == (second in static):
                    self.client.setCollisionFilterPair(self._body, self._body, first, second, 0)
        for part in ("panda_link0", "panda_link1"):
            for name in _STATIC:
                pair = links[part], links[name]
                self.client.setCollisionFilterPair(self._body, self._body, *pair, 0)
