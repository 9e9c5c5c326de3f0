# SPDX-License-Identifier: Apache-2.0
"""What a new cell has to say about itself: one robot, what stands about it, and what is tracked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import mujoco
import numpy as np
import xacro
from mujoco import rollout
from numpy.typing import ArrayLike, NDArray
from twinloop.contract import Contract, load
from twinloop.paths import share
from twinloop.robots.base import Robot
from twinloop.robots.hand24 import HAND24

from twinloop_sim.cells.pose_tracker import Pose, Tracked, TrackerSettings
from twinloop_sim.settings import mujoco_settings

Array = NDArray[np.float64]
PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS


@dataclass(frozen=True)
class Start:
    """Where an episode begins.

    Attributes:
        qpos: of the whole scene [nq]; the robot's joints come first.
        command: joint targets in force [A], rad.
        goal: numbers that fix the episode's goal [G].
    """

    qpos: Array
    command: Array
    goal: Array


class Scene(ABC):
    """One robot and one tracked object. Subclasses are stateless: batches share them.

    Attributes:
        task: name of the task and of its contract.
        robot: its joints lead the state and the action.
        tracker: how well the object's pose is known.
        tick_s, substeps: a tick, and physics steps in it.
        settle_s: how long a start settles before time zero.
    """

    task: str
    robot: Robot
    tracker: TrackerSettings
    tick_s = 0.01
    substeps = 2
    settle_s = 0.0

    def __init__(self) -> None:
        self.contract: Contract = load(self.task)
        self.model = self.build()

    @abstractmethod
    def build(self) -> mujoco.MjModel:
        """Compile the scene."""

    @abstractmethod
    def start(self, rng: np.random.Generator) -> Start:
        """Draw where an episode begins."""

    def aim(self, goal: Array, seen: Tracked) -> Array:
        """Return the goals [K, G] of episodes, where a start's are relative to its settled object:
        to what the tracker tells of it [K]."""
        return goal

    @abstractmethod
    def pose(self, qpos: Array) -> Pose:
        """Return the true pose of the tracked object: [..., nq] -> [...]."""

    @abstractmethod
    def channels(self, seen: Tracked, goal: Array, steps: NDArray[np.int64]) -> dict[str, Array]:
        """Return the channels of the observation beside the robot's own.

        Args:
            seen: what the tracker tells [N].
            goal: of the episodes [N, G].
            steps: control steps since the episodes began [N].
        """


class Physics:
    """Copies of a scene advanced side by side by `mujoco.rollout`, on a pool of threads."""

    def __init__(self, model: mujoco.MjModel, substeps: int, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1")
        self.model = model
        self.size = mujoco.mj_stateSize(model, PHYSICS)
        self._substeps = substeps
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)

    def at(self, qpos: Array) -> Array:
        """Return the physical state [S] at rest at time zero with these coordinates [nq]."""
        data = self._data[0]
        mujoco.mj_resetData(self.model, data)
        data.qpos[:] = qpos
        state = np.empty(self.size)
        mujoco.mj_getState(self.model, data, state, PHYSICS)
        return state

    def advance(self, states: Array, ctrl: Array) -> Array:
        """Roll states [M, S] forward under targets [M, T, A]; returns [M, T, S]."""
        ctrl = np.repeat(ctrl, self._substeps, axis=1)
        rolled, _ = self._pool.rollout(self.model, self._data, states, ctrl)
        return np.asarray(rolled[:, self._substeps - 1 :: self._substeps])

    def qpos(self, states: Array) -> Array:
        """Return the coordinates [..., nq] in states [..., S]."""
        return states[..., 1 : 1 + self.model.nq]

    def qvel(self, states: Array) -> Array:
        """Return the velocities [..., nv] in states [..., S]."""
        return states[..., 1 + self.model.nq :][..., : self.model.nv]

    def close(self) -> None:
        self._pool.close()


def robot_spec(urdf: str, substeps: int, **arguments: str) -> mujoco.MjSpec:
    """Return a robot of `urdf/` with the options that every scene shares.

    The robot touches objects, but not itself.

    Args:
        urdf: name of the xacro file.
        substeps: physics steps in a tick.
        arguments: of the xacro file.
    """
    text = xacro.process_file(str(share("urdf", urdf)), mappings=arguments).toxml()
    spec = mujoco.MjSpec.from_string(text)
    spec.compiler.fusestatic = False
    spec.compiler.discardvisual = False  # what a scene adds only to be seen stays
    spec.option.timestep = Scene.tick_s / substeps
    spec.option.iterations = 20
    # Without warm starts the physical state is all there is, so a saved state goes on bit-exactly.
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    for geom in spec.geoms:
        geom.contype, geom.conaffinity = 1, 0
        geom.friction = (1.0, 0.005, 0.0001)
        geom.condim = 4
    return spec


def add_servo(
    spec: mujoco.MjSpec, name: str, gain: float, damping: float, armature: float, torque: float
) -> None:
    """Drive a joint of the robot to its target.

    Args:
        gain: N m/rad. damping: N m s/rad. armature: kg m². torque: largest, N m.
    """
    joint = spec.joint(name)
    joint.damping = [damping, 0.0, 0.0]
    joint.armature = armature
    actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_position(kp=gain)
    actuator.forcelimited = True
    actuator.forcerange = (-torque, torque)


def add_hand_servos(spec: mujoco.MjSpec) -> None:
    """Drive the 24-joint hand as the Baoding twin does."""
    servos = mujoco_settings().servo
    for name in HAND24.joint_names:
        servo = servos.wrist if "_WR" in name else servos.fingers
        torque = 10.0 if "_WR" in name else 2.0
        add_servo(spec, name, servo.gain, servo.damping, servo.armature, torque)


def rng_of(seed: ArrayLike) -> np.random.Generator:
    """Return the random numbers of an episode's start.

    Raises:
        ValueError: a negative seed.
    """
    number = int(np.asarray(seed))
    if number < 0:
        raise ValueError(f"a seed must not be negative, got {number}")
    return np.random.default_rng([number, 2])
