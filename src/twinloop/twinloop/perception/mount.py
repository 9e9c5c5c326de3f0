# SPDX-License-Identifier: Apache-2.0
"""Where a camera rig sits: the pose of one frame in another, and its file.

`twinloop calibrate hand-camera` writes the file, trackers read it. Frames are links of the robot's
URDF, such as `rh_forearm` and `camera_left_optical`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twinloop.robots.kinematics import fixed_transform
from twinloop.robots.rotations import matrix_from_quaternion, quaternion_from_matrix
from twinloop.yaml_files import read_yaml

Array = NDArray[np.float64]
_UNIT_WITHIN = 1e-3


@dataclass(frozen=True)
class Mount:
    """A frame that is fixed in another.

    Attributes:
        parent: frame that it is fixed in, such as `rh_forearm`.
        child: frame that is fixed, such as `camera_left_optical`.
        transform: turns points in the child frame into the parent frame [4, 4], m.

    Raises:
        ValueError: the transform is no finite rigid transform, or a frame has no name.
    """

    parent: str
    child: str
    transform: Array

    def __post_init__(self) -> None:
        if not self.parent or not self.child:
            raise ValueError(
                f"mount: frames are {self.parent!r} and {self.child!r}, expected two names"
            )
        transform = np.asarray(self.transform, dtype=np.float64)
        if transform.shape != (4, 4) or not np.isfinite(transform).all():
            raise ValueError(
                f"mount of {self.child} in {self.parent}: transform is {transform.tolist()}, "
                "expected a finite 4 x 4 matrix"
            )
        rotation = transform[:3, :3]
        if (
            not np.allclose(rotation @ rotation.T, np.eye(3), atol=_UNIT_WITHIN)
            or np.linalg.det(rotation) < 0.0
            or not np.array_equal(transform[3], [0.0, 0.0, 0.0, 1.0])
        ):
            raise ValueError(
                f"mount of {self.child} in {self.parent}: transform is {transform.tolist()}, "
                "expected a rotation, a position and the row 0 0 0 1"
            )
        object.__setattr__(self, "transform", transform)


class _MountFile(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    parent_frame: str = Field(min_length=1)
    child_frame: str = Field(min_length=1)
    position: list[float] = Field(min_length=3, max_length=3)
    quaternion: list[float] = Field(min_length=4, max_length=4)


def load_mount(path: str | Path) -> Mount:
    """Read a mount file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a mount; names file, field and what was expected.
    """
    path = Path(path)
    content = read_yaml(path)
    try:
        found = _MountFile.model_validate(content)
        quaternion = np.array(found.quaternion)
        length = float(np.linalg.norm(quaternion))
        if abs(length - 1.0) > _UNIT_WITHIN:
            raise ValueError(
                f"quaternion is {found.quaternion}, of length {length:g}, expected (w, x, y, z) "
                "of length 1"
            )
        transform = np.eye(4)
        transform[:3, :3] = matrix_from_quaternion(quaternion / length)
        transform[:3, 3] = found.position
        return Mount(found.parent_frame, found.child_frame, transform)
    except (ValidationError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def save_mount(path: str | Path, mount: Mount) -> None:
    """Write a mount file: frames, position [m] and quaternion (w, x, y, z)."""
    Path(path).write_text(to_yaml(mount), encoding="utf-8")


def to_yaml(mount: Mount) -> str:
    """Return the text of a mount file."""
    quaternion = quaternion_from_matrix(mount.transform[:3, :3])
    content = {
        "parent_frame": mount.parent,
        "child_frame": mount.child,
        "position": [float(value) for value in mount.transform[:3, 3]],
        "quaternion": [float(value) for value in quaternion],
    }
    return str(yaml.safe_dump(content, sort_keys=False))


def mount_from_urdf(urdf: str, parent: str, child: str) -> Mount:
    """Return the mount that a robot description states.

    Raises:
        ValueError: an unknown link, or a joint between the two can move.
    """
    return Mount(parent, child, fixed_transform(urdf, parent, child))
