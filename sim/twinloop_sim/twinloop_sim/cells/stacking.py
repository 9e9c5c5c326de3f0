# SPDX-License-Identifier: Apache-2.0
"""Franka's arm with a Lego-like block in its gripper, to be put onto another one.

Blocks have the size of a Duplo brick with four studs. The held one is hollow, with 0.8 mm of room
about the studs on each side; the other one stands on a plate that keeps hold of it unless it is
pushed hard. World frame: the arm's base; z up, metres.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray
from twinloop.robots.panda import PANDA

from twinloop_sim.cells.arm_scene import DOWN, JOINTS, TOOL, arm_spec, reach, tool_chain
from twinloop_sim.cells.object_cell import ObjectCell
from twinloop_sim.cells.pose_tracker import Pose, Tracked, TrackerSettings
from twinloop_sim.cells.scene import Array, Scene, Start

HALF_M = 0.0159
HEIGHT_M = 0.0192
_STUD_HEIGHT_M, _STUD_RADIUS_M, _STUD_AT_M = 0.0045, 0.0047, 0.008
_ROOM_M = 0.0008
_INSIDE_M = _STUD_AT_M + _STUD_RADIUS_M + _ROOM_M
_BELOW_TOOL_M = 0.004  # the fingers hold the block's upper half
_PLACE_M = np.array([0.5, 0.0])
_SPREAD_M = 0.004  # of the other block's place
_JOINT_SPREAD_RAD = 0.004
SEAT_M = HEIGHT_M + HEIGHT_M / 2  # height of the held block's middle when it sits

# Middle of the held block at the start, from the other block's place on the table.
STARTS = {
    "above": np.array([-0.05, 0.06, 0.140]),
    "aside": np.array([0.03, 0.13, 0.050]),
    "table": np.array([0.0, 0.08, HEIGHT_M / 2 + 0.0015]),
}


class StackingScene(Scene):
    """The arm, the block in its fingers, the other one and the table.

    Args:
        starts: `above`, `aside`, `table` (the block almost lies on the table, beside the other
            one), or `all`, in turn by seed.
    """

    task = "stacking"
    robot = PANDA
    # The block is where the encoders say that the gripper is.
    tracker = TrackerSettings(
        position_noise_m=0.0001,
        rotation_noise=0.0005,
        position_bias_m=0.0002,
        rotation_bias=0.001,
        alpha=1.0,
    )
    substeps = 4

    def __init__(self, starts: str = "all") -> None:
        if starts != "all" and starts not in STARTS:
            raise ValueError(
                f"stacking: starts is {starts!r}, expected all or one of {list(STARTS)}"
            )
        names = list(STARTS) if starts == "all" else [starts]
        self._joints = []
        for name in names:
            # The tool points down, so what is below it in its own frame is lower in the world.
            place = np.array([*_PLACE_M, _BELOW_TOOL_M]) + STARTS[name]
            self._joints.append(reach(place))
        super().__init__()

    def build(self) -> mujoco.MjModel:
        spec = arm_spec(self.substeps, HALF_M)
        held = {"contype": 1, "conaffinity": 0, "condim": 3, "friction": (0.3, 0.005, 0.0001)}
        tool = spec.body(TOOL)
        wall = (HALF_M - _INSIDE_M) / 2
        half = HEIGHT_M / 2
        shapes = [([HALF_M, HALF_M, 0.002], [0, 0, -half + 0.002])]
        for side in (-1, 1):
            at = side * (HALF_M - wall)
            shapes.append(([wall, HALF_M, half], [at, 0, 0]))
            shapes.append(([HALF_M, wall, half], [0, at, 0]))
        for size, place in shapes:
            tool.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=size,
                pos=[place[0], place[1], place[2] + _BELOW_TOOL_M],
                mass=0.004,
                rgba=[0.85, 0.20, 0.15, 1],
                **held,
            )
        fixed = {"contype": 1, "conaffinity": 1, "condim": 3, "friction": (0.3, 0.005, 0.0001)}
        other = spec.worldbody.add_body(name="other", pos=[*_PLACE_M, 0.0])
        for name, axis in (("other_x", [1, 0, 0]), ("other_y", [0, 1, 0])):
            joint = other.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
            joint.frictionloss = 40.0
            joint.damping = [200.0, 0.0, 0.0]
        blue = [0.12, 0.42, 0.60, 1]
        other.add_geom(
            name="other",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[HALF_M, HALF_M, half],
            pos=[0, 0, half],
            mass=0.5,
            rgba=blue,
            **fixed,
        )
        for x in (-_STUD_AT_M, _STUD_AT_M):
            for y in (-_STUD_AT_M, _STUD_AT_M):
                other.add_geom(
                    type=mujoco.mjtGeom.mjGEOM_CYLINDER,
                    size=[_STUD_RADIUS_M, _STUD_HEIGHT_M / 2, 0],
                    pos=[x, y, HEIGHT_M + _STUD_HEIGHT_M / 2],
                    mass=0.001,
                    rgba=blue,
                    **fixed,
                )
        return spec.compile()

    def start(self, rng: np.random.Generator) -> Start:
        joints = self._joints[int(rng.integers(len(self._joints)))]
        joints = joints + rng.normal(0.0, _JOINT_SPREAD_RAD, JOINTS)
        off = rng.uniform(-_SPREAD_M, _SPREAD_M, 2)
        goal = np.array([*(_PLACE_M + off), SEAT_M])
        return Start(np.concatenate([joints, off]), joints, goal)

    def pose(self, qpos: Array) -> Pose:
        position, rotation = tool_chain().poses(qpos[..., :JOINTS])
        position, rotation = position[..., 0, :], rotation[..., 0, :, :]
        return Pose(position + _BELOW_TOOL_M * rotation[..., :, 2], rotation @ DOWN.T)

    def channels(self, seen: Tracked, goal: Array, steps: NDArray[np.int64]) -> dict[str, Array]:
        columns = np.concatenate([seen.rotation[:, :, 0], seen.rotation[:, :, 1]], axis=-1)
        return {"block_position": seen.position, "block_rotation": columns, "goal": goal}


def make(
    hands: int,
    engine: str = "mujoco",
    threads: int = 1,
    joint_speed: float | None = None,
    starts: str = "all",
) -> ObjectCell:
    """Return N arms with blocks; see `StackingScene` for `starts`.

    Raises:
        ValueError: another engine than MuJoCo, or unknown starts.
    """
    if engine != "mujoco":
        raise ValueError(f"the stacking cell runs on mujoco, not on {engine!r}")
    return ObjectCell(StackingScene(starts), hands, threads, joint_speed)
