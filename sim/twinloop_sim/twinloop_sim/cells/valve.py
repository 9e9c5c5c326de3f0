# SPDX-License-Identifier: Apache-2.0
"""A claw of nine joints over a valve with three spokes, to be turned to an angle.

World frame: z up, metres; the valve turns about the z axis, and its angle is that of the marked
spoke from +x.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray
from twinloop.robots.dclaw import DCLAW

from twinloop_sim.cells.object_cell import ObjectCell
from twinloop_sim.cells.pose_tracker import Pose, Tracked, TrackerSettings
from twinloop_sim.cells.scene import Array, Scene, Start, add_servo, robot_spec

SPOKES = 3
SPOKE_REACH_M = 0.085
_HUB_RADIUS_M = 0.022
_SPOKE_HALF_WIDTH_M = 0.009
_HALF_HEIGHT_M = 0.016
_HEIGHT_M = 0.030  # of the spokes' middle over the table
_START_SPREAD_RAD = 0.02


class ValveScene(Scene):
    """The claw, its valve and the table."""

    task = "valve"
    robot = DCLAW
    tracker = TrackerSettings(
        position_noise_m=0.0005,
        rotation_noise=0.008,
        position_bias_m=0.002,
        rotation_bias=0.015,
    )

    def build(self) -> mujoco.MjModel:
        spec = robot_spec("dclaw.urdf.xacro", self.substeps)
        for name in DCLAW.joint_names:
            # A servo of the XM430 series with its gears, at a fifth of its stall torque.
            add_servo(spec, name, gain=3.0, damping=0.15, armature=0.005, torque=0.8)
        contact = {"contype": 1, "conaffinity": 1, "condim": 4, "friction": (0.8, 0.005, 0.0001)}
        spec.worldbody.add_geom(
            name="table",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[0.5, 0.5, 0.1],
            rgba=[0.80, 0.82, 0.84, 1],
            **contact,
        )
        valve = spec.worldbody.add_body(name="valve", pos=[0, 0, _HEIGHT_M])
        joint = valve.add_joint(
            name="valve", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], armature=0.0005
        )
        joint.damping = [0.01, 0.0, 0.0]
        joint.frictionloss = 0.05
        valve.add_geom(
            name="hub",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[_HUB_RADIUS_M, _HALF_HEIGHT_M, 0],
            mass=0.05,
            rgba=[0.25, 0.28, 0.33, 1],
            **contact,
        )
        for spoke in range(SPOKES):
            angle = 2 * np.pi * spoke / SPOKES
            valve.add_geom(
                name=f"spoke{spoke}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[SPOKE_REACH_M / 2, _SPOKE_HALF_WIDTH_M, _HALF_HEIGHT_M],
                pos=[SPOKE_REACH_M / 2 * np.cos(angle), SPOKE_REACH_M / 2 * np.sin(angle), 0],
                quat=[np.cos(angle / 2), 0, 0, np.sin(angle / 2)],
                mass=0.03,
                rgba=[0.85, 0.20, 0.15, 1] if spoke == 0 else [0.12, 0.42, 0.60, 1],
                **contact,
            )
        return spec.compile()

    def start(self, rng: np.random.Generator) -> Start:
        """Fingers raised, the valve and its goal at any angle."""
        raised = DCLAW.poses["raised"]
        joints = raised + rng.normal(0.0, _START_SPREAD_RAD, len(raised))
        joints = np.clip(joints, DCLAW.lower, DCLAW.upper)
        angle, goal = rng.uniform(-np.pi, np.pi, 2)
        return Start(np.append(joints, angle), joints, np.array([goal]))

    def pose(self, qpos: Array) -> Pose:
        angle = qpos[..., -1]
        cosine, sine = np.cos(angle), np.sin(angle)
        zero, one = np.zeros_like(angle), np.ones_like(angle)
        rows = [[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]]
        rotation = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
        return Pose(np.broadcast_to([0.0, 0.0, _HEIGHT_M], (*angle.shape, 3)), rotation)

    def channels(self, seen: Tracked, goal: Array, steps: NDArray[np.int64]) -> dict[str, Array]:
        angle = np.arctan2(seen.rotation[:, 1, 0], seen.rotation[:, 0, 0])
        return {
            "valve_angle": np.stack([np.sin(angle), np.cos(angle)], axis=-1),
            "valve_velocity": seen.angular[:, 2:],
            "goal": np.concatenate([np.sin(goal), np.cos(goal)], axis=-1),
        }


def make(
    hands: int, engine: str = "mujoco", threads: int = 1, joint_speed: float | None = None
) -> ObjectCell:
    """Return N claws over valves.

    Raises:
        ValueError: another engine than MuJoCo.
    """
    if engine != "mujoco":
        raise ValueError(f"the valve cell runs on mujoco, not on {engine!r}")
    return ObjectCell(ValveScene(), hands, threads, joint_speed)
