# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras with lens distortion, alone and in stereo, and their files in ROS form.

A stereo pair's geometry is in its two files, as ROS has it (REP-104): the rectifying rotations R,
and a projection matrix P of the right camera whose fourth column holds -fx times the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twinloop.yaml_files import read_yaml

Array = NDArray[np.float64]
DISTORTIONS = {"plumb_bob": 5, "rational_polynomial": 8}  # model: number of coefficients


@dataclass(frozen=True)
class CameraModel:
    """A calibrated camera.

    Attributes:
        name: of the camera, such as `left`.
        size: width and height, pixels.
        k: camera matrix [3, 3].
        d: distortion coefficients [5] or [8], as OpenCV orders them.
        r: rectifying rotation [3, 3].
        p: projection matrix [3, 4] of the rectified image.
        distortion: a key of `DISTORTIONS`.

    Raises:
        ValueError: a matrix of the wrong shape, a value that is not finite, a focal length that
            is not positive, a rotation that is none, or an unknown distortion model.
    """

    name: str
    size: tuple[int, int]
    k: Array
    d: Array
    r: Array
    p: Array
    distortion: str = "plumb_bob"

    def __post_init__(self) -> None:
        if self.distortion not in DISTORTIONS:
            raise ValueError(
                f"camera {self.name}: distortion model {self.distortion!r}, expected one of "
                f"{', '.join(DISTORTIONS)}"
            )
        shapes = {"k": (3, 3), "d": (DISTORTIONS[self.distortion],), "r": (3, 3), "p": (3, 4)}
        for field, shape in shapes.items():
            value = np.asarray(getattr(self, field), dtype=np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(
                    f"camera {self.name}: {field} is {value.tolist()}, expected finite {shape}"
                )
            object.__setattr__(self, field, value)
        width, height = self.size
        if width < 1 or height < 1:
            raise ValueError(f"camera {self.name}: size is {width}x{height} pixels")
        focal = (self.k[0, 0], self.k[1, 1], self.p[0, 0], self.p[1, 1])
        if min(focal) <= 0.0:
            raise ValueError(
                f"camera {self.name}: focal lengths in k and p are {focal}, expected more than 0"
            )
        if not np.allclose(self.r @ self.r.T, np.eye(3), atol=1e-3) or np.linalg.det(self.r) < 0.0:
            raise ValueError(f"camera {self.name}: r is {self.r.tolist()}, expected a rotation")

    def project(self, points: ArrayLike) -> Array:
        """Return raw pixels [..., 2] of points [..., 3], m, in the camera's optical frame.

        Points that are not in front of the camera give NaN.
        """
        given = np.asarray(points, dtype=np.float64)
        flat = given.reshape(-1, 3)
        pixels = np.full((len(flat), 2), np.nan)
        ahead = flat[:, 2] > 0.0
        if ahead.any():
            seen = cv2.projectPoints(flat[ahead], np.zeros(3), np.zeros(3), self.k, self.d)[0]
            pixels[ahead] = seen.reshape(-1, 2)
        return pixels.reshape(*given.shape[:-1], 2)

    def rays(self, pixels: ArrayLike) -> Array:
        """Return (x/z, y/z, 1) [..., 3] of raw pixels [..., 2], in the camera's optical frame."""
        given = np.asarray(pixels, dtype=np.float64)
        flat = given.reshape(-1, 1, 2)
        if len(flat) == 0:
            return np.zeros((*given.shape[:-1], 3))
        plane = cv2.undistortPoints(flat, self.k, self.d).reshape(*given.shape[:-1], 2)
        return np.concatenate([plane, np.ones((*plane.shape[:-1], 1))], axis=-1)

    @property
    def has_distortion(self) -> bool:
        return bool(np.any(self.d != 0.0))


@dataclass(frozen=True)
class StereoModel:
    """Two calibrated cameras that see the same scene.

    Raises:
        ValueError: the right camera's P holds no positive baseline.
    """

    left: CameraModel
    right: CameraModel

    def __post_init__(self) -> None:
        if not self.baseline_m > 0.0:
            raise ValueError(
                f"cameras {self.left.name} and {self.right.name}: baseline is {self.baseline_m} m "
                "(minus the fourth element of the right camera's P by its first), expected more "
                "than 0"
            )

    @property
    def baseline_m(self) -> float:
        """Distance between the cameras, m."""
        return float(-self.right.p[0, 3] / self.right.p[0, 0])

    def right_from_left(self) -> Array:
        """Return the transform [4, 4] of points in the left optical frame into the right one."""
        result = np.eye(4)
        result[:3, :3] = self.right.r.T @ self.left.r
        result[:3, 3] = self.right.r.T @ np.array([-self.baseline_m, 0.0, 0.0])
        return result

    def triangulate(self, left: ArrayLike, right: ArrayLike) -> Array:
        """Return points [..., 3], m, in the left optical frame, from raw pixels [..., 2] of each.

        The middle of the shortest link between the two rays; NaN where they are parallel.
        """
        transform = self.right_from_left()
        rotation = transform[:3, :3].T
        origin = -rotation @ transform[:3, 3]
        a = self.left.rays(left)
        b = self.right.rays(right) @ rotation.T
        aa, bb, ab = (a * a).sum(-1), (b * b).sum(-1), (a * b).sum(-1)
        ao, bo = a @ origin, b @ origin
        denominator = aa * bb - ab * ab
        with np.errstate(divide="ignore", invalid="ignore"):
            along_a = (ao * bb - bo * ab) / denominator
            along_b = (ao * ab - bo * aa) / denominator
        middle = 0.5 * (along_a[..., None] * a + origin + along_b[..., None] * b)
        return np.where((denominator > 1e-12 * aa * bb)[..., None], middle, np.nan)


def pinhole(
    name: str, size: tuple[int, int], horizontal_fov_deg: float, baseline_m: float = 0.0
) -> CameraModel:
    """Return an ideal camera; `baseline_m` is its distance to the right of the left one."""
    width, height = size
    focal = width / 2 / np.tan(np.radians(horizontal_fov_deg) / 2)
    k = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    p = np.hstack([k, [[-focal * baseline_m], [0.0], [0.0]]])
    return CameraModel(name, size, k, np.zeros(5), np.eye(3), p)


class _Matrix(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    rows: int = Field(ge=1, le=4)
    cols: int = Field(ge=1, le=14)
    data: list[float] = Field(max_length=56)


class _CameraFile(BaseModel):
    """A calibration file as ROS's camera_calibration_parsers writes it."""

    model_config = ConfigDict(extra="ignore")
    image_width: int = Field(ge=1, le=16384)
    image_height: int = Field(ge=1, le=16384)
    camera_name: str
    camera_matrix: _Matrix
    distortion_model: str
    distortion_coefficients: _Matrix
    rectification_matrix: _Matrix
    projection_matrix: _Matrix


def load_camera(path: str | Path) -> CameraModel:
    """Read a calibration file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a calibration; names file, field and what was expected.
    """
    path = Path(path)
    content = read_yaml(path)
    try:
        found = _CameraFile.model_validate(content)
        return CameraModel(
            found.camera_name,
            (found.image_width, found.image_height),
            _array(found.camera_matrix, "camera_matrix"),
            _array(found.distortion_coefficients, "distortion_coefficients").ravel(),
            _array(found.rectification_matrix, "rectification_matrix"),
            _array(found.projection_matrix, "projection_matrix"),
            found.distortion_model,
        )
    except (ValidationError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def save_camera(path: str | Path, camera: CameraModel) -> None:
    """Write a calibration file, in the form that ROS's camera drivers read."""
    Path(path).write_text(to_yaml(camera), encoding="utf-8")


def to_yaml(camera: CameraModel) -> str:
    """Return the text of a calibration file."""
    width, height = camera.size
    content = {
        "image_width": width,
        "image_height": height,
        "camera_name": camera.name,
        "camera_matrix": _matrix(camera.k),
        "distortion_model": camera.distortion,
        "distortion_coefficients": _matrix(camera.d[None]),
        "rectification_matrix": _matrix(camera.r),
        "projection_matrix": _matrix(camera.p),
    }
    return str(yaml.safe_dump(content, sort_keys=False))


def _array(matrix: _Matrix, field: str) -> Array:
    if len(matrix.data) != matrix.rows * matrix.cols:
        raise ValueError(
            f"{field} has {len(matrix.data)} numbers, expected {matrix.rows} x {matrix.cols}"
        )
    return np.array(matrix.data, dtype=np.float64).reshape(matrix.rows, matrix.cols)


def _matrix(values: Array) -> dict[str, Any]:
    rows, cols = values.shape
    return {"rows": rows, "cols": cols, "data": [float(value) for value in values.ravel()]}
