# SPDX-License-Identifier: Apache-2.0
"""What the scenes of Franka's arm on its own share: servos, table, and inverse kinematics.

World frame: that of the arm's base; z up, metres, the table's top at zero. Tools point down.
"""

from __future__ import annotations

from functools import lru_cache

import mujoco
import numpy as np
import xacro
from numpy.typing import ArrayLike
from twinloop.paths import share
from twinloop.robots.kinematics import Chain
from twinloop.robots.panda import FINGER_JOINTS, PANDA

from twinloop_sim.arm_cell import arm_cell_settings
from twinloop_sim.cells.scene import Array, robot_spec

TOOL = "panda_hand_tcp"
DOWN = np.diag([1.0, -1.0, -1.0])  # orientation of a tool that points down, its x axis along x
JOINTS = len(PANDA.joint_names)
_DAMPING = 1e-3
_ITERATIONS = 200


def arm_spec(substeps: int, opening_m: float) -> mujoco.MjSpec:
    """Return the arm with servos on a table; its fingers stay where they are.

    Args:
        substeps: physics steps in a tick.
        opening_m: of each finger.
    """
    spec = robot_spec("panda.urdf.xacro", substeps)
    for equality in list(spec.equalities):
        spec.delete(equality)
    for name in FINGER_JOINTS:
        joint = spec.joint(name)
        body = joint.parent
        body.pos = np.asarray(body.pos) + opening_m * np.asarray(joint.axis)
        spec.delete(joint)
    servos = arm_cell_settings().arm
    for name, gain, damping in zip(PANDA.joint_names, servos.gain, servos.damping, strict=True):
        joint = spec.joint(name)
        # Integrated implicitly, so that a stiff servo is stable; see `arm_cell`.
        joint.damping = [damping, 0.0, 0.0]
        joint.actfrclimited = mujoco.mjtLimited.mjLIMITED_FALSE
        joint.armature = servos.armature
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=gain)
    for body in spec.bodies:
        if body.name.startswith("panda"):
            body.gravcomp = 1.0  # Franka's control interface compensates the arm's weight itself
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[1.0, 1.0, 0.1],
        rgba=[0.80, 0.82, 0.84, 1],
        contype=1,
        conaffinity=1,
        condim=4,
        friction=(0.5, 0.005, 0.0001),
    )
    return spec


@lru_cache(maxsize=1)
def tool_chain() -> Chain:
    """Return the kinematics from the base to the tool."""
    urdf = xacro.process_file(str(share("urdf", "panda.urdf.xacro"))).toxml()
    return Chain(urdf, PANDA.joint_names, (TOOL,))


def reach(position: ArrayLike) -> Array:
    """Return joint positions [7], rad, near the ready pose, with the tool at a place and down.

    Damped least squares with differences of the forward kinematics.

    Raises:
        ValueError: the arm does not reach there.
    """
    place = np.asarray(position, dtype=np.float64)
    q = PANDA.poses["ready"].copy()
    for _ in range(_ITERATIONS):
        error = _miss(q, place)
        if np.abs(error).max() < 1e-7:
            return q
        nudged = q + 1e-6 * np.eye(JOINTS)
        jacobian = np.stack([(_miss(row, place) - error) / 1e-6 for row in nudged], axis=1)
        damped = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
        step = -jacobian.T @ np.linalg.solve(damped, error)
        q = np.clip(q + np.clip(step, -0.2, 0.2), PANDA.lower, PANDA.upper)
    raise ValueError(f"the arm does not reach {place.tolist()} with its tool down")


def _miss(q: Array, place: Array) -> Array:
    position, rotation = tool_chain().poses(q)
    turn = rotation[0] @ DOWN.T
    skew = 0.5 * (turn - turn.T)
    return np.concatenate([position[0] - place, [skew[2, 1], skew[0, 2], skew[1, 0]]])
