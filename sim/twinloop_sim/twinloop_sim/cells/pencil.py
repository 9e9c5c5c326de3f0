# SPDX-License-Identifier: Apache-2.0
"""The 24-joint hand, palm down, with a pencil over paper.

The pencil is not held by friction: soft ball joints tie it to the pads of thumb, index and middle
finger, where a grip would hold it. What the fingers do moves it, and its tip slides on the paper.

Paper frame: x to the right and y up for the writer, z off the paper; its origin is where the tip
is in the grip's own pose.
"""

from __future__ import annotations

from functools import lru_cache

import mujoco
import numpy as np
import xacro
from numpy.typing import NDArray
from twinloop.contract.hand_cell import PERIOD_S
from twinloop.contract.pencil import WAYPOINTS
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import Chain
from twinloop.robots.rotations import matrix_from_quaternion, quaternion_from_matrix

from twinloop_sim.cells.object_cell import ObjectCell
from twinloop_sim.cells.pose_tracker import Pose, Tracked, TrackerSettings
from twinloop_sim.cells.scene import Array, Scene, Start, add_hand_servos, robot_spec
from twinloop_sim.cells.strokes import digit_stroke, random_stroke

PATHS = ("random", *(f"digit{digit}" for digit in range(10)))
PATH_STEPS = 80 + WAYPOINTS
DIGIT_HEIGHT_M = 0.016
_JOINTS = len(HAND24.joint_names)
_PALM_DOWN = {"mount_rpy": f"{-np.pi / 2} {np.pi} 0"}
# In the palm frame: where the grip holds the pencil, which way its tip points, and how far off it
# is.
_GRIP_M = np.array([0.0239, -0.0668, 0.1094])
_AXIS = np.array([0.0017, -0.9818, 0.1898])
_TIP_M = 0.045
_BACK_M = 0.080
_RADIUS_M = 0.004
# Length of the line in each pad's link, and whose link it is.
_PADS = {"rh_thdistal": 0.027, "rh_ffdistal": 0.026, "rh_mfdistal": 0.026}
_PRESS_M = 0.001  # the paper lies this much higher than the tip would hang
_SPREAD_RAD = 0.003
_LINK_PALM = "rh_palm"


class PencilScene(Scene):
    """The hand, its pencil and the paper.

    Args:
        paths: `random` strokes, or one digit, `digit0` to `digit9`.
    """

    task = "pencil"
    robot = HAND24
    tracker = TrackerSettings(
        position_noise_m=0.0003,
        rotation_noise=0.010,
        position_bias_m=0.0005,
        rotation_bias=0.010,
    )
    substeps = 2
    settle_s = 0.6

    def __init__(self, paths: str = "random") -> None:
        if paths not in PATHS:
            raise ValueError(f"pencil: paths is {paths!r}, expected one of {PATHS}")
        self._paths = paths
        self._origin, _ = _held(HAND24.poses["tripod"])
        self._origin = self._origin + np.array([0.0, 0.0, _PRESS_M])
        super().__init__()

    def build(self) -> mujoco.MjModel:
        spec = robot_spec("hand.urdf.xacro", self.substeps, **_PALM_DOWN)
        add_hand_servos(spec)
        for geom in spec.geoms:
            geom.contype = geom.conaffinity = 0  # the hand touches nothing, its pencil the paper
        for body in spec.bodies:
            body.gravcomp = 1.0  # a servo with a feed-forward of the hand's weight
        spec.worldbody.add_geom(
            name="paper",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.06, 0.06, 0.001],
            pos=[*self._origin[:2], self._origin[2] - 0.001],
            rgba=[0.97, 0.97, 0.94, 1],
            contype=2,
            conaffinity=2,
            condim=3,
            friction=[0.05, 0.005, 0.0001],
        )
        pencil = spec.worldbody.add_body(name="pencil", pos=self._origin)
        pencil.add_freejoint(name="pencil")
        # Its own frame has the tip at the origin and the shaft along z.
        pencil.add_geom(
            name="shaft",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[0, 0, 0.006, 0, 0, _TIP_M + _BACK_M],
            size=[_RADIUS_M, 0, 0],
            mass=0.006,
            rgba=[0.95, 0.75, 0.20, 1],
            contype=0,
            conaffinity=0,
        )
        pencil.add_geom(
            name="tip",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[0.001, 0, 0],
            pos=[0, 0, 0.001],
            mass=0.0005,
            rgba=[0.1, 0.1, 0.1, 1],
            contype=2,
            conaffinity=2,
            condim=3,
            friction=[0.05, 0.005, 0.0001],
        )
        self._tie(spec, pencil)
        return spec.compile()

    def _tie(self, spec: mujoco.MjSpec, pencil: mujoco.MjsBody) -> None:
        tip, rotation = _held(HAND24.poses["tripod"])
        position, turn = _chain().poses(HAND24.poses["tripod"])
        for row, (link, length) in enumerate(_PADS.items()):
            pad = position[row] + turn[row] @ np.array([0.0, 0.0, length])
            spec.body(link).add_site(name=f"{link}_pad", pos=[0, 0, length])
            pencil.add_site(name=f"{link}_grip", pos=rotation.T @ (pad - tip))
            tie = spec.add_equality(
                type=mujoco.mjtEq.mjEQ_CONNECT,
                objtype=mujoco.mjtObj.mjOBJ_SITE,
                name1=f"{link}_pad",
                name2=f"{link}_grip",
            )
            tie.solref = [0.01, 1.0]

    def start(self, rng: np.random.Generator) -> Start:
        limits = self.contract.action
        joints = HAND24.poses["tripod"] + rng.normal(0.0, _SPREAD_RAD, _JOINTS)
        joints = np.clip(joints, limits.lower, limits.upper)
        tip, rotation = _held(joints)
        if self._paths != "random":
            digit = int(self._paths.removeprefix("digit"))
            path = digit_stroke(digit, PATH_STEPS - WAYPOINTS, DIGIT_HEIGHT_M)
            path = np.concatenate([path, np.tile(path[-1:], (WAYPOINTS, 1))])
        else:
            path = random_stroke(rng, PATH_STEPS, PERIOD_S)
        qpos = np.concatenate([joints, tip, quaternion_from_matrix(rotation)])
        return Start(qpos, joints, path.ravel())

    def aim(self, goal: Array, seen: Tracked) -> Array:
        """Let paths begin where the tip is."""
        paths = goal.reshape(len(goal), -1, 2) + seen.position[:, None, :2]
        return np.asarray(paths.reshape(len(goal), -1))

    def pose(self, qpos: Array) -> Pose:
        pencil = qpos[..., _JOINTS:]
        return Pose(pencil[..., :3] - self._origin, matrix_from_quaternion(pencil[..., 3:]))

    def channels(self, seen: Tracked, goal: Array, steps: NDArray[np.int64]) -> dict[str, Array]:
        paths = goal.reshape(len(goal), -1, 2)
        ahead = np.minimum(steps[:, None] + np.arange(WAYPOINTS), paths.shape[1] - 1)
        waypoints = np.take_along_axis(paths, ahead[..., None], axis=1)
        return {
            "tip_position": seen.position,
            "tip_velocity": seen.linear,
            "goal": waypoints.reshape(len(goal), -1),
        }


@lru_cache(maxsize=1)
def _chain() -> Chain:
    text = xacro.process_file(str(share("urdf", "hand.urdf.xacro")), mappings=_PALM_DOWN).toxml()
    return Chain(text, HAND24.joint_names, (*_PADS, _LINK_PALM))


def _held(joints: Array) -> tuple[Array, Array]:
    """Return the tip's place [3] and the pencil's orientation [3, 3] in the world, as the grip
    would hold it with these joints."""
    position, turn = _chain().poses(joints)
    palm, to_world = position[-1], turn[-1]
    up = -to_world @ (_AXIS / np.linalg.norm(_AXIS))
    tip = palm + to_world @ _GRIP_M - _TIP_M * up
    side = np.cross(up, [0.0, 1.0, 0.0])
    side = side / np.linalg.norm(side)
    return tip, np.stack([side, np.cross(up, side), up], axis=1)


def make(
    hands: int,
    engine: str = "mujoco",
    threads: int = 1,
    joint_speed: float | None = None,
    paths: str = "random",
) -> ObjectCell:
    """Return N hands with pencils; see `PencilScene` for `paths`.

    Raises:
        ValueError: another engine than MuJoCo, or unknown paths.
    """
    if engine != "mujoco":
        raise ValueError(f"the pencil cell runs on mujoco, not on {engine!r}")
    return ObjectCell(PencilScene(paths), hands, threads, joint_speed)
