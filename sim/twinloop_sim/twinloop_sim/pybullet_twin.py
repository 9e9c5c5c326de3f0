# SPDX-License-Identifier: Apache-2.0
"""Hands in PyBullet: the same URDF in another engine, as a cross-check."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pybullet as bullet
from numpy.typing import ArrayLike
from twinloop.robots.description import hand_joint_names, joint_prefix
from twinloop.robots.kinematics import palm_chain
from twinloop.robots.rotations import quaternion_from_matrix

from twinloop_sim.bullet_server import connect, load_hand
from twinloop_sim.settings import BulletSettings, SceneSettings, bullet_settings
from twinloop_sim.twin import Array, BatchTwin, State, start_state

_TAG = b"twinloop/pybullet/1\n"
_GRAVITY = -9.81


class BulletBatch(BatchTwin):
    """N hands in PyBullet, a physics server each, one after the other. See `BatchTwin`."""

    name = "pybullet"

    def __init__(
        self,
        hands: int,
        scene: SceneSettings | None = None,
        settings: BulletSettings | None = None,
    ) -> None:
        super().__init__(hands, scene)
        settings = settings or bullet_settings()
        self._worlds = [_World(self.scene, settings) for _ in range(hands)]

    def reset(self, seeds: ArrayLike, hands: ArrayLike | None = None) -> State:
        chosen = self.select(seeds, hands)
        ticks = round(self.scene.reset.settle_s / self.tick_s)
        for hand, seed in zip(chosen, np.atleast_1d(seeds).tolist(), strict=True):
            q, balls = start_state(self.scene, seed)
            self.rest[hand] = q
            self._worlds[hand].place(q, balls)
            for _ in range(ticks):
                self._worlds[hand].tick(q)
            self._worlds[hand].ticks = 0
        return self.state()

    def step(self, ctrl: ArrayLike) -> State:
        targets = self.check_ctrl(ctrl)
        rows = []
        for world, ticks in zip(self._worlds, targets, strict=True):
            row = []
            for target in ticks:
                world.tick(target)
                row.append(world.read())
            rows.append(np.stack(row))
        return self._decode(np.stack(rows))

    def state(self) -> State:
        return self._decode(np.stack([world.read() for world in self._worlds]))

    def _decode(self, rows: Array) -> State:
        """Read rows [..., 75]: time, q, qd, then pose and velocity of each ball."""
        lead = rows.shape[:-1]
        q, qd = rows[..., 1:25], rows[..., 25:49]
        balls = rows[..., 49:].reshape(*lead, 2, 10)
        position, rotation = palm_chain(self.scene.side).poses(q[..., :2])
        return State(
            time=rows[..., 0],
            q=q,
            qd=qd,
            ball_position=balls[..., :3],
            ball_quaternion=balls[..., 3:7],
            ball_velocity=balls[..., 7:],
            palm_position=position[..., 0, :],
            palm_quaternion=quaternion_from_matrix(rotation[..., 0, :, :]),
            arm=q[..., :0],
        )

    def get_state(self) -> list[bytes]:
        return [_TAG + world.save() for world in self._worlds]

    def set_state(self, states: list[bytes], hands: ArrayLike | None = None) -> State:
        chosen = self.select(None, hands)
        if len(states) != len(chosen):
            raise ValueError(
                f"pybullet twin: {len(chosen)} hands need as many states, got {len(states)}"
            )
        for state in states:
            if not state.startswith(_TAG) or len(state) < len(_TAG) + 8:
                raise ValueError(
                    f"pybullet twin: a state starting {state[:20]!r}, expected {_TAG!r}"
                )
        for hand, state in zip(chosen, states, strict=True):
            self._worlds[hand].load(state[len(_TAG) :])
        return self.state()

    def close(self) -> None:
        for world in self._worlds:
            world.close()


class _World:
    """One physics server with a floor, a hand and two balls."""

    def __init__(self, scene: SceneSettings, settings: BulletSettings) -> None:
        self._scene = scene
        self._settings = settings
        self._client = connect()
        self.ticks = 0
        self._build()

    def _build(self) -> None:
        client, scene, settings = self._client, self._scene, self._settings
        # A world that was used keeps contact caches: only a new one starts equally every time.
        client.resetSimulation()
        client.setGravity(0.0, 0.0, _GRAVITY)
        client.setPhysicsEngineParameter(
            fixedTimeStep=scene.tick_s / settings.substeps,
            numSolverIterations=settings.solver_iterations,
            deterministicOverlappingPairs=1,
        )
        sliding, torsional, rolling = settings.friction
        friction = {
            "lateralFriction": sliding,
            "spinningFriction": torsional,
            "rollingFriction": rolling,
        }
        floor = client.createMultiBody(0.0, client.createCollisionShape(bullet.GEOM_PLANE))
        client.changeDynamics(floor, -1, **friction)
        self._hand, self._joints = load_hand(client, scene.side)
        names = hand_joint_names(scene.side)
        wrist = tuple(f"{joint_prefix(scene.side)}{name}" for name in ("WRJ2", "WRJ1"))
        servo = settings.servo
        self._forces = [servo.wrist_force if n in wrist else servo.fingers_force for n in names]
        self._position_gains = [servo.position_gain] * len(names)
        self._velocity_gains = [servo.velocity_gain] * len(names)
        for link in range(-1, client.getNumJoints(self._hand)):
            # In one call with damping, PyBullet leaves a link's friction as it was.
            client.changeDynamics(self._hand, link, linearDamping=0.0, angularDamping=0.0)
            client.changeDynamics(self._hand, link, **friction)
        sphere = client.createCollisionShape(bullet.GEOM_SPHERE, radius=scene.balls.radius_m)
        self._balls = [
            client.createMultiBody(scene.balls.mass_kg, sphere, -1, place)
            for place in scene.balls.start_m
        ]
        for ball in self._balls:
            client.changeDynamics(ball, -1, linearDamping=0.0, angularDamping=0.0, **friction)

    def place(self, q: Array, balls: Array) -> None:
        """Start anew with joints at `q` [24], rad, and balls at rest at `balls` [2, 3], m."""
        self._build()
        for joint, angle in zip(self._joints, q, strict=True):
            self._client.resetJointState(self._hand, joint, angle)
        for ball, position in zip(self._balls, balls, strict=True):
            self._client.resetBasePositionAndOrientation(ball, position, (0.0, 0.0, 0.0, 1.0))
        self.ticks = 0

    def tick(self, target: Array) -> None:
        """Advance one tick with joint targets [24], rad."""
        self._client.setJointMotorControlArray(
            self._hand,
            self._joints,
            bullet.POSITION_CONTROL,
            targetPositions=target.tolist(),
            forces=self._forces,
            positionGains=self._position_gains,
            velocityGains=self._velocity_gains,
        )
        for _ in range(self._settings.substeps):
            self._client.stepSimulation()
        self.ticks += 1

    def read(self) -> Array:
        """Return time, q, qd, and for each ball position, quaternion (w first) and velocity."""
        joints = self._client.getJointStates(self._hand, self._joints)
        row = [self.ticks * self._scene.tick_s]
        row += [joint[0] for joint in joints]
        row += [joint[1] for joint in joints]
        for ball in self._balls:
            position, (x, y, z, w) = self._client.getBasePositionAndOrientation(ball)
            velocity, _ = self._client.getBaseVelocity(ball)
            row += [*position, w, x, y, z, *velocity]
        return np.array(row)

    def save(self) -> bytes:
        """Return the engine's state, tick count first."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.bullet"
            self._client.saveBullet(str(path))
            return self.ticks.to_bytes(8, "little") + path.read_bytes()

    def load(self, state: bytes) -> None:
        """Carry on from what `save` gave.

        Raises:
            ValueError: the engine does not take it.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.bullet"
            path.write_bytes(state[8:])
            try:
                self._client.restoreState(fileName=str(path))
            except bullet.error as error:
                raise ValueError(f"pybullet twin: a state that does not fit: {error}") from error
        self.ticks = int.from_bytes(state[:8], "little")

    def close(self) -> None:
        self._client.disconnect()
