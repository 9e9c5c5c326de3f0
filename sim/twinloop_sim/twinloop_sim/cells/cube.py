# SPDX-License-Identifier: Apache-2.0
"""A cube in the palm of the 24-joint hand, to be turned to an orientation.

World frame: z up, metres. The cube's pose is told in the palm frame: normal -y, fingers +z, thumb
side +x.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import palm_chain
from twinloop.robots.rotations import matrix_from_quaternion

from twinloop_sim.cells.object_cell import ObjectCell
from twinloop_sim.cells.pose_tracker import Pose, Tracked, TrackerSettings, rotation_of
from twinloop_sim.cells.scene import Array, Scene, Start, add_hand_servos, robot_spec

CUBE_SIDE_M = 0.055
_MASS_KG = 0.06
_START_M = (0.003, 0.006, 0.205)
_SPREAD_M = 0.002
_JOINTS = len(HAND24.joint_names)
_NORMAL = np.array([0.0, 1.0, 0.0])
GOALS = ("normal", "any")
_LARGEST_TURN = np.pi / 2


class CubeScene(Scene):
    """The hand, palm up, with a cube.

    Args:
        goals: `normal`: turns about the palm's normal; `any`: about any axis; up to a quarter turn
            from where the cube rests at the start.
    """

    task = "cube"
    robot = HAND24
    tracker = TrackerSettings(
        position_noise_m=0.0005,
        rotation_noise=0.010,
        position_bias_m=0.002,
        rotation_bias=0.015,
    )
    substeps = 2
    settle_s = 1.0

    def __init__(self, goals: str = "normal") -> None:
        if goals not in GOALS:
            raise ValueError(f"cube: goals is {goals!r}, expected one of {GOALS}")
        self._goals = goals
        super().__init__()

    def build(self) -> mujoco.MjModel:
        spec = robot_spec("hand.urdf.xacro", self.substeps)
        add_hand_servos(spec)
        contact = {"contype": 1, "conaffinity": 1, "condim": 4, "friction": (1.0, 0.005, 0.0001)}
        spec.worldbody.add_geom(
            name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], **contact
        )
        cube = spec.worldbody.add_body(name="cube", pos=_START_M)
        cube.add_freejoint(name="cube")
        half = CUBE_SIDE_M / 2
        cube.add_geom(
            name="cube",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[half] * 3,
            mass=_MASS_KG,
            rgba=[0.20, 0.45, 0.75, 1],
            **contact,
        )
        # Colours tell the sides apart; they touch nothing.
        for side, rgba in (
            ([0, 0, half], [0.90, 0.30, 0.20, 1]),
            ([half, 0, 0], [0.95, 0.75, 0.20, 1]),
        ):
            size = [0.0005 if place else 0.7 * half for place in side]
            cube.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=size,
                pos=side,
                rgba=rgba,
                mass=1e-6,
                contype=0,
                conaffinity=0,
            )
        return spec.compile()

    def start(self, rng: np.random.Generator) -> Start:
        joints = HAND24.poses["cup"] + rng.normal(0.0, 0.01, _JOINTS)
        joints = np.clip(joints, HAND24.lower, HAND24.upper)
        place = np.asarray(_START_M) + rng.normal(0.0, _SPREAD_M, 3)
        yaw = rng.normal(0.0, 0.05)
        axis = _NORMAL
        if self._goals == "any":
            axis = rng.standard_normal(3)
            axis = axis / np.linalg.norm(axis)
        turn = rng.uniform(-_LARGEST_TURN, _LARGEST_TURN) * axis
        cube = [*place, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        return Start(np.concatenate([joints, cube]), joints, rotation_of(turn).ravel())

    def aim(self, goal: Array, seen: Tracked) -> Array:
        turn = goal.reshape(-1, 3, 3)
        return np.asarray(turn @ seen.rotation).reshape(len(goal), -1)

    def pose(self, qpos: Array) -> Pose:
        position, rotation = palm_chain("right").poses(qpos[..., :2])
        position, rotation = position[..., 0, :], rotation[..., 0, :, :]
        inverse = rotation.swapaxes(-1, -2)
        offset = qpos[..., _JOINTS : _JOINTS + 3] - position
        return Pose(
            (inverse @ offset[..., None])[..., 0],
            inverse @ matrix_from_quaternion(qpos[..., _JOINTS + 3 :]),
        )

    def channels(self, seen: Tracked, goal: Array, steps: NDArray[np.int64]) -> dict[str, Array]:
        return {
            "cube_position": seen.position,
            "cube_rotation": _two_columns(seen.rotation),
            "cube_velocity": seen.linear,
            "cube_spin": seen.angular,
            "goal": _two_columns(goal.reshape(-1, 3, 3)),
        }


def _two_columns(rotation: Array) -> Array:
    """Return the first two columns [N, 6] of matrices [N, 3, 3], one after the other."""
    return np.concatenate([rotation[:, :, 0], rotation[:, :, 1]], axis=-1)


def make(
    hands: int,
    engine: str = "mujoco",
    threads: int = 1,
    joint_speed: float | None = None,
    goals: str = "normal",
) -> ObjectCell:
    """Return N hands with cubes; see `CubeScene` for `goals`.

    Raises:
        ValueError: another engine than MuJoCo, or unknown goals.
    """
    if engine != "mujoco":
        raise ValueError(f"the cube cell runs on mujoco, not on {engine!r}")
    return ObjectCell(CubeScene(goals), hands, threads, joint_speed)
