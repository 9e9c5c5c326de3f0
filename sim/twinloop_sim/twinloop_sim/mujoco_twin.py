# SPDX-License-Identifier: Apache-2.0
"""Hands in MuJoCo, advanced side by side by `mujoco.rollout` on a pool of threads."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import mujoco
import numpy as np
from mujoco import rollout
from numpy.typing import ArrayLike, NDArray
from twinloop.robots.description import hand_joint_names, hand_urdf, joint_prefix
from twinloop.robots.kinematics import palm_chain
from twinloop.robots.rotations import quaternion_from_matrix

from twinloop_sim.settings import MujocoSettings, SceneSettings, mujoco_settings
from twinloop_sim.twin import JOINTS, Array, BatchTwin, State, start_state
from twinloop_sim.variation import Variation

PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
_TAG = b"twinloop/mujoco/1\n"
_BALLS_Q, _BALLS_V = 14, 12  # at the end of positions and velocities


def build_model(scene: SceneSettings, settings: MujocoSettings) -> mujoco.MjModel:
    """Compile the hand's URDF with two balls, a floor and position servos added."""
    return hand_spec(hand_urdf(scene.side), scene, settings).compile()


def hand_spec(urdf: str, scene: SceneSettings, settings: MujocoSettings) -> mujoco.MjSpec:
    """Return a URDF with two balls and the hand's servos added, and a floor where it has none."""
    prefix = joint_prefix(scene.side)
    spec = mujoco.MjSpec.from_string(urdf)
    spec.compiler.fusestatic = False
    spec.option.timestep = scene.tick_s / settings.substeps
    spec.option.integrator = _option("mjINT", settings.integrator)
    spec.option.cone = _option("mjCONE", settings.cone)
    spec.option.iterations = settings.solver_iterations
    # Without warm starts the physical state is all there is: results do not depend on how ticks
    # are cut into calls, and a state that was saved goes on bit-exactly.
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART

    for geom in spec.geoms:
        # The hand touches balls, but not itself, as in the reference task.
        geom.contype, geom.conaffinity = 1, 0
        geom.friction = settings.friction
        geom.condim = settings.contact_dimensions
    for joint in spec.joints:
        if not joint.name.startswith(prefix):
            continue
        short = joint.name.removeprefix(prefix)
        servo = settings.servo.wrist if short.startswith("WR") else settings.servo.fingers
        joint.damping = [servo.damping, 0.0, 0.0]
        joint.armature = servo.armature
    for name in hand_joint_names(scene.side):
        short = name.removeprefix(prefix)
        servo = settings.servo.wrist if short.startswith("WR") else settings.servo.fingers
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=servo.gain)

    contact = {
        "contype": 1,
        "conaffinity": 1,
        "friction": settings.friction,
        "condim": settings.contact_dimensions,
    }
    if all(body.name != "floor" for body in spec.bodies):
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], **contact
        )
    for index, place in enumerate(scene.balls.start_m):
        ball = spec.worldbody.add_body(name=f"ball{index}", pos=place)
        ball.add_freejoint(name=f"ball{index}")
        radius = scene.balls.radius_m
        ball.add_geom(
            name=f"ball{index}",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[radius, 0, 0],
            mass=scene.balls.mass_kg,
            **contact,
        )
    return spec


def varied(model: mujoco.MjModel, variation: Variation) -> mujoco.MjModel:
    """Return a copy of a model with what a variation says of its physics."""
    model = copy(model)
    for index in range(2):
        ball = model.body(f"ball{index}").id
        model.body_mass[ball] *= variation.ball_mass
        model.body_inertia[ball] *= variation.ball_mass
    if variation.friction is not None:
        # Of hand and balls, not of what has a say of its own.
        model.geom_friction[model.geom_priority == 0, 0] = variation.friction
    model.actuator_gainprm[:JOINTS, 0] *= variation.actuator_gain
    model.actuator_biasprm[:JOINTS, 1] *= variation.actuator_gain
    # What was derived from the masses is derived anew.
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _option(kind: str, name: str) -> int:
    enum = {"mjINT": mujoco.mjtIntegrator, "mjCONE": mujoco.mjtCone}[kind]
    return int(getattr(enum, f"{kind}_{name.upper()}"))


class MujocoBatch(BatchTwin):
    """N hands in MuJoCo. See `BatchTwin`.

    Args:
        hands: how many.
        threads: threads that share the work; 1 works in the caller's thread.
        scene, settings: default to config/twin/scene.yaml and mujoco.yaml.
    """

    name = "mujoco"

    def __init__(
        self,
        hands: int,
        threads: int = 1,
        scene: SceneSettings | None = None,
        settings: MujocoSettings | None = None,
    ) -> None:
        super().__init__(hands, scene)
        if threads < 1:
            raise ValueError(f"a MuJoCo twin needs at least 1 thread, got {threads}")
        settings = settings or mujoco_settings()
        self.substeps = settings.substeps
        self.model = self._compile(settings)
        self._models: list[mujoco.MjModel] | None = None  # one a hand; None: all are nominal
        used = min(threads, hands)
        self._data = [mujoco.MjData(self.model) for _ in range(used)]
        self._pool = rollout.Rollout(nthread=used if used > 1 else 0)
        self.state_size = mujoco.mj_stateSize(self.model, PHYSICS)
        self.physics = np.zeros((hands, self.state_size))
        self.physics[:] = self._start(0)

    def _compile(self, settings: MujocoSettings) -> mujoco.MjModel:
        return build_model(self.scene, settings)

    def vary(self, hands: ArrayLike | None, variations: Sequence[Variation]) -> None:
        chosen = self.select(None, hands)
        if len(variations) != len(chosen):
            raise ValueError(
                f"mujoco twin: {len(chosen)} hands need as many variations, got {len(variations)}"
            )
        self.differences.replace(chosen, variations)
        models = self._models or [self.model] * self.hands
        for hand, variation in zip(chosen, variations, strict=True):
            models[hand] = varied(self.model, variation)
        self._models = models

    def reset(self, seeds: ArrayLike, hands: ArrayLike | None = None) -> State:
        chosen = self.select(seeds, hands)
        starts = np.stack([self._start(int(seed)) for seed in np.atleast_1d(seeds)])
        starts[:, 1 : 1 + JOINTS] -= self.differences.joint_offset[chosen]
        self.rest[chosen] = starts[:, 1 : 1 + JOINTS]
        ticks = round(self.scene.reset.settle_s / self.tick_s)
        if ticks:
            ctrl = np.repeat(starts[:, None, 1 : 1 + JOINTS], ticks, axis=1)
            starts = self.advance(starts, ctrl, np.asarray(chosen))[:, -1]
            starts[:, 0] = 0.0
        self._replace(chosen, starts)
        return self.state()

    def _replace(self, hands: list[int], physics: Array) -> None:
        # States that were given out are views: they must stay as they were.
        self.physics = self.physics.copy()
        self.physics[hands] = physics

    def _start(self, seed: int) -> Array:
        q, balls = start_state(self.scene, seed)
        data = self._data[0]
        mujoco.mj_resetData(self.model, data)
        data.qpos[:JOINTS] = q
        data.qpos[-_BALLS_Q:].reshape(2, 7)[:, :3] = balls
        physics = np.empty(self.state_size)
        mujoco.mj_getState(self.model, data, physics, PHYSICS)
        return physics

    def step(self, ctrl: ArrayLike) -> State:
        targets = self.check_ctrl(ctrl)
        states = self.advance(self.physics, targets)
        self.physics = states[:, -1].copy()
        return self.decode(states)

    def advance(
        self, physics: Array, ctrl: Array, hands: NDArray[np.integer] | None = None
    ) -> Array:
        """Roll physical states [M, S] forward under targets [M, T, 24]; returns [M, T, S].

        The twin's own state stays as it is: planners roll samples out with this.

        Args:
            physics: where to start from.
            ctrl: what the servos are told, rad.
            hands: whose variation each row has [M]; default: the twin's hands, in order.
        """
        model = self.model
        if self._models is not None:
            rows = range(self.hands) if hands is None else hands
            model = [self._models[hand] for hand in rows]
        if self.substeps > 1:
            ctrl = np.repeat(ctrl, self.substeps, axis=1)
        states, _ = self._pool.rollout(model, self._data, physics, ctrl)
        return states[:, self.substeps - 1 :: self.substeps]

    def state(self) -> State:
        return self.decode(self.physics)

    def decode(self, physics: Array) -> State:
        """Read physical states [..., S]."""
        qpos = physics[..., 1 : 1 + self.model.nq]
        qvel = physics[..., 1 + self.model.nq :][..., : self.model.nv]
        lead = physics.shape[:-1]
        ball_pose = qpos[..., -_BALLS_Q:].reshape(*lead, 2, 7)
        ball_twist = qvel[..., -_BALLS_V:].reshape(*lead, 2, 6)
        q = qpos[..., :JOINTS]
        position, rotation = palm_chain(self.scene.side).poses(q[..., :2])
        return State(
            time=physics[..., 0],
            q=q,
            qd=qvel[..., :JOINTS],
            ball_position=ball_pose[..., :3],
            ball_quaternion=ball_pose[..., 3:],
            ball_velocity=ball_twist[..., :3],
            palm_position=position[..., 0, :],
            palm_quaternion=quaternion_from_matrix(rotation[..., 0, :, :]),
            arm=qpos[..., JOINTS:-_BALLS_Q],
        )

    def get_state(self) -> list[bytes]:
        return [_TAG + row.tobytes() for row in self.physics]

    def set_state(self, states: list[bytes], hands: ArrayLike | None = None) -> State:
        chosen = self.select(None, hands)
        if len(states) != len(chosen):
            raise ValueError(
                f"mujoco twin: {len(chosen)} hands need as many states, got {len(states)}"
            )
        expected = len(_TAG) + 8 * self.state_size
        for state in states:
            if len(state) != expected or not state.startswith(_TAG):
                raise ValueError(
                    f"mujoco twin: a state of {len(state)} bytes starting {state[:20]!r}, expected "
                    f"{expected} bytes starting {_TAG!r}"
                )
        self._replace(chosen, np.stack([np.frombuffer(s[len(_TAG) :]) for s in states]))
        return self.state()

    def close(self) -> None:
        self._pool.close()
