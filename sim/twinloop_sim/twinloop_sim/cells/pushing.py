# SPDX-License-Identifier: Apache-2.0
"""Franka's arm with its gripper half open behind a mug, to be pushed onto its coaster.

World frame: the arm's base; z up, metres.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray
from twinloop.robots.panda import PANDA
from twinloop.robots.rotations import matrix_from_quaternion

from twinloop_sim.cells.arm_scene import JOINTS, arm_spec, reach
from twinloop_sim.cells.object_cell import ObjectCell
from twinloop_sim.cells.pose_tracker import Pose, Tracked, TrackerSettings
from twinloop_sim.cells.scene import Array, Scene, Start

RADIUS_M = 0.040
_HEIGHT_M = 0.070
_MASS_KG = 0.30
_TOOL_HEIGHT_M = 0.050  # the fingers push, and the hand passes over the mug
_OPENING_M = 0.025  # of each finger: the mug leans on both
_BEHIND_M = 0.048  # from the mug's axis to the tool's; they touch at 0.042
_MUG_M = np.array([0.42, 0.0])
_COASTER_M = np.array([0.56, 0.06])
_MUG_SPREAD_M = 0.003
_COASTER_SPREAD_M = 0.010
_JOINT_SPREAD_RAD = 0.004


class PushingScene(Scene):
    """The arm, a mug with a handle, and the table; the coaster is thin and touches nothing."""

    task = "pushing"
    robot = PANDA
    tracker = TrackerSettings(
        position_noise_m=0.0005,
        rotation_noise=0.010,
        position_bias_m=0.002,
        rotation_bias=0.015,
    )
    substeps = 4

    def __init__(self) -> None:
        place = _MUG_M - [_BEHIND_M, 0.0]
        self._joints = reach([*place, _TOOL_HEIGHT_M])
        super().__init__()

    def build(self) -> mujoco.MjModel:
        spec = arm_spec(self.substeps, _OPENING_M)
        contact = {"contype": 1, "conaffinity": 1, "condim": 4, "friction": (0.3, 0.005, 0.0001)}
        mug = spec.worldbody.add_body(name="mug", pos=[*_MUG_M, _HEIGHT_M / 2])
        mug.add_freejoint(name="mug")
        white = [0.93, 0.92, 0.88, 1]
        mug.add_geom(
            name="mug",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[RADIUS_M, _HEIGHT_M / 2, 0],
            mass=_MASS_KG,
            rgba=white,
            **contact,
        )
        mug.add_geom(
            name="handle",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.006, 0.014, 0.025],
            pos=[0, -RADIUS_M - 0.010, 0],
            mass=0.02,
            rgba=white,
            **contact,
        )
        return spec.compile()

    def start(self, rng: np.random.Generator) -> Start:
        joints = self._joints + rng.normal(0.0, _JOINT_SPREAD_RAD, JOINTS)
        place = _MUG_M + rng.normal(0.0, _MUG_SPREAD_M, 2)
        goal = _COASTER_M + rng.uniform(-_COASTER_SPREAD_M, _COASTER_SPREAD_M, 2)
        mug = [*place, _HEIGHT_M / 2, 1.0, 0.0, 0.0, 0.0]
        return Start(np.concatenate([joints, mug]), joints, np.array([*goal, _HEIGHT_M / 2]))

    def pose(self, qpos: Array) -> Pose:
        mug = qpos[..., JOINTS:]
        return Pose(mug[..., :3], matrix_from_quaternion(mug[..., 3:]))

    def channels(self, seen: Tracked, goal: Array, steps: NDArray[np.int64]) -> dict[str, Array]:
        return {"mug_position": seen.position, "mug_velocity": seen.linear, "goal": goal}


def make(
    hands: int, engine: str = "mujoco", threads: int = 1, joint_speed: float | None = None
) -> ObjectCell:
    """Return N arms with mugs.

    Raises:
        ValueError: another engine than MuJoCo.
    """
    if engine != "mujoco":
        raise ValueError(f"the pushing cell runs on mujoco, not on {engine!r}")
    return ObjectCell(PushingScene(), hands, threads, joint_speed)
