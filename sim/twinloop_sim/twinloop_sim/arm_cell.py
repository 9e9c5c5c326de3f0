# SPDX-License-Identifier: Apache-2.0
"""The whole cell in MuJoCo: hand, ramp, tray, stands and arm, from its URDF.

Balls touch everything; the arm touches balls with its fingers only. Whether it keeps clear of the
rest is the planner's affair, and checked with the planner: contacts that never happen would cost as
much as the hand does. Joint positions start with the hand's 24, then the arm's 7 and its two
fingers; the balls come last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import mujoco
import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from twinloop.paths import share
from twinloop.robots.description import cell_urdf
from twinloop.robots.panda import FINGER_JOINTS, FINGER_TRAVEL_M, PANDA
from twinloop.yaml_files import read_yaml

from twinloop_sim.mujoco_twin import hand_spec
from twinloop_sim.settings import MujocoSettings, SceneSettings

Positive = Annotated[float, Field(gt=0.0)]
Friction = tuple[Positive, Positive, Positive]
_Seven = tuple[Positive, Positive, Positive, Positive, Positive, Positive, Positive]
FINGERS = ("panda_leftfinger", "panda_rightfinger")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Surface(_Section):
    links: tuple[str, ...]
    friction: Friction


class ArmServos(_Section):
    gain: _Seven
    damping: _Seven
    armature: Positive


class GripperServo(_Section):
    gain: Positive
    damping: Positive
    armature: Positive
    force: Positive
    friction: Friction


class ArmCellSettings(_Section):
    """config/twin/arm_cell.yaml."""

    floors: Surface
    walls: Surface
    arm: ArmServos
    gripper: GripperServo


@lru_cache(maxsize=1)
def arm_cell_settings() -> ArmCellSettings:
    """Read config/twin/arm_cell.yaml; raises ValueError naming file and field."""
    path = share("config", "twin", "arm_cell.yaml")
    try:
        return ArmCellSettings.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


def build_cell_model(
    scene: SceneSettings, settings: MujocoSettings, cell: ArmCellSettings | None = None
) -> mujoco.MjModel:
    """Compile the cell's URDF with balls and servos; actuators are named after their joints."""
    cell = cell or arm_cell_settings()
    spec = hand_spec(cell_urdf(scene.side), scene, settings)
    for geom in spec.geoms:
        _set_contacts(geom, geom.parent.name, cell)
    for body in spec.bodies:
        if body.name.startswith("panda"):
            body.gravcomp = 1.0  # Franka's control interface compensates the arm's weight itself
    arm = zip(PANDA.joint_names, cell.arm.gain, cell.arm.damping, strict=True)
    for name, gain, damping in arm:
        _add_servo(spec, name, gain, damping, cell.arm.armature)
    grip = cell.gripper
    for name in FINGER_JOINTS:
        servo = _add_servo(spec, name, grip.gain, grip.damping, grip.armature)
        servo.forcerange = [-grip.force, grip.force]
        servo.ctrlrange = [0.0, FINGER_TRAVEL_M]
    return spec.compile()


def arm_positions(model: mujoco.MjModel) -> np.ndarray:
    """Return where the arm's joints [7] stand in `qpos`."""
    return np.array([model.joint(name).qposadr[0] for name in PANDA.joint_names])


def arm_targets(q: ArrayLike, qd: ArrayLike, cell: ArmCellSettings | None = None) -> np.ndarray:
    """Return what to tell the arm's servos [7] so that they follow a moving point without lag.

    Their torque is then gain (q - measured) + damping (qd - measured speed), as of any controller
    that is fed positions [7], rad, and velocities [7], rad/s.
    """
    servos = (cell or arm_cell_settings()).arm
    lead = np.array(servos.damping) / np.array(servos.gain)
    targets: np.ndarray = np.asarray(q) + lead * np.asarray(qd)
    return targets


def _set_contacts(geom: mujoco.MjsGeom, link: str, cell: ArmCellSettings) -> None:
    surfaces = ((cell.floors, 6), (cell.walls, 3))
    for surface, dimensions in surfaces:
        if link in surface.links:
            # Priority: what balls roll on says how, not the balls.
            geom.friction, geom.condim, geom.priority = surface.friction, dimensions, 1
    if link in FINGERS:
        geom.friction, geom.condim, geom.priority = cell.gripper.friction, 4, 1
        # Hard: as the ball is light, it would sink into pads of the usual softness, and creep.
        geom.solimp = [0.99, 0.999, 0.001, 0.5, 2.0]
    elif link.startswith("panda") or link in ("stands", "tray_camera"):
        geom.contype = geom.conaffinity = 0


def _add_servo(
    spec: mujoco.MjSpec, name: str, gain: float, damping: float, armature: float
) -> mujoco.MjsActuator:
    joint = spec.joint(name)
    # Damping of joints is integrated implicitly: stiff servos stay stable with long steps. It is
    # the servo's own, and what the servo gives to overcome it is no torque of the robot.
    joint.damping = [damping, 0.0, 0.0]
    joint.actfrclimited = mujoco.mjtLimited.mjLIMITED_FALSE
    joint.armature = armature
    actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_position(kp=gain)
    return actuator
