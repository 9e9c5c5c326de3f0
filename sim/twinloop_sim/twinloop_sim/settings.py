# SPDX-License-Identifier: Apache-2.0
"""Settings of the twins, read from config/twin/*.yaml and checked once."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from twinloop.paths import share
from twinloop.yaml_files import read_yaml

STEREO = ("left", "right")  # the eyes that the balls are tracked with
DEPTH = "depth"
TRAY = "tray"  # looks into the tray, where there is one
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Vector3 = tuple[float, float, float]
_Kind = TypeVar("_Kind", bound="_Section")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Balls(_Section):
    """Two equal balls; places in the world frame."""

    radius_m: Positive
    mass_kg: Positive
    start_m: tuple[Vector3, Vector3]


class Reset(_Section):
    """How much a seed changes the start, and how long the scene settles before time zero."""

    ball_spread_m: NotNegative
    joint_spread_rad: NotNegative
    settle_s: NotNegative


class Camera(_Section):
    """A camera on a link of the URDF (an optical frame), or one given by eye and target."""

    size: tuple[Annotated[int, Field(gt=0, le=4096)], Annotated[int, Field(gt=0, le=4096)]]
    oversample: int = Field(ge=1, le=4)
    horizontal_fov_deg: float = Field(gt=0.0, lt=170.0)
    link: str | None = None
    eye: Vector3 | None = None
    target: Vector3 | None = None

    @model_validator(mode="after")
    def _is_placed(self) -> Camera:
        free = self.eye is not None and self.target is not None
        if (self.link is not None) == free:
            raise ValueError("a camera needs either link, or eye and target")
        return self


class SceneSettings(_Section):
    """What stands in the cell."""

    side: Literal["right", "left"]
    tick_s: Positive
    balls: Balls
    reset: Reset
    cameras: dict[str, Camera]


class MujocoServo(_Section):
    gain: Positive
    damping: NotNegative
    armature: NotNegative


class MujocoServos(_Section):
    fingers: MujocoServo
    wrist: MujocoServo


class MujocoSettings(_Section):
    """MuJoCo's options; `substeps` physics steps make a tick."""

    substeps: int = Field(ge=1, le=100)
    integrator: Literal["Euler", "implicitfast"]
    cone: Literal["pyramidal", "elliptic"]
    solver_iterations: int = Field(ge=1, le=1000)
    contact_dimensions: Literal[3, 4, 6]
    friction: Vector3
    servo: MujocoServos


class BulletServo(_Section):
    position_gain: Positive
    velocity_gain: Positive
    fingers_force: Positive
    wrist_force: Positive


class BulletSettings(_Section):
    """PyBullet's options; `substeps` physics steps make a tick."""

    substeps: int = Field(ge=1, le=100)
    solver_iterations: int = Field(ge=1, le=1000)
    friction: Vector3
    servo: BulletServo


@lru_cache(maxsize=1)
def scene_settings() -> SceneSettings:
    """Read config/twin/scene.yaml; raises ValueError naming file and field."""
    return _read("scene", SceneSettings)


@lru_cache(maxsize=1)
def mujoco_settings() -> MujocoSettings:
    """Read config/twin/mujoco.yaml; raises ValueError naming file and field."""
    return _read("mujoco", MujocoSettings)


@lru_cache(maxsize=1)
def bullet_settings() -> BulletSettings:
    """Read config/twin/pybullet.yaml; raises ValueError naming file and field."""
    return _read("pybullet", BulletSettings)


def _read(name: str, kind: type[_Kind]) -> _Kind:
    path = share("config", "twin", f"{name}.yaml")
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error
