# SPDX-License-Identifier: Apache-2.0
"""Views: what each camera saw of the board at one time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinloop.perception.calibration.boards import Board
from twinloop.perception.calibration.detection import Detection

Array = NDArray[np.float64]


class CalibrationRefused(ValueError):
    """There is no calibration to be made of what was given.

    Attributes:
        reasons: what is missing or wrong, each with what to do.
    """

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class View:
    """A board as it was seen at one time.

    Attributes:
        name: of the view, as reports call it, such as a file's name.
        seen: what each camera saw; None where it did not see the board.
        joints: joint positions at that time [J], rad, where they are known.
    """

    name: str
    seen: tuple[Detection | None, ...]
    joints: Array | None = None


def transform(rotation_vector: ArrayLike, position: ArrayLike) -> Array:
    """Return a rigid transform [4, 4] of a rotation vector [3], rad, and a position [3], m."""
    result = np.eye(4)
    result[:3, :3] = cv2.Rodrigues(np.asarray(rotation_vector, np.float64))[0]
    result[:3, 3] = np.asarray(position).ravel()
    return result


def vectors(pose: Array) -> Array:
    """Return rotation vector and position [6] of a rigid transform [4, 4]."""
    return np.concatenate([cv2.Rodrigues(pose[:3, :3])[0].ravel(), pose[:3, 3]])


def mean_transform(poses: Sequence[Array]) -> Array:
    """Return the median position and the mean rotation [4, 4] of transforms."""
    result = np.eye(4)
    u, _, vt = np.linalg.svd(np.sum([pose[:3, :3] for pose in poses], axis=0))
    result[:3, :3] = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    result[:3, 3] = np.median([pose[:3, 3] for pose in poses], axis=0)
    return result


def board_poses(board: Board, seen: Detection, k: Array, d: Array) -> list[Array]:
    """Return the poses [4, 4] a board may have in a camera's optical frame, the best one first.

    A plane that is nearly parallel to the picture can be tilted either way. None where the corners
    tell no pose.
    """
    _, turns, positions, _ = cv2.solvePnPGeneric(
        board.points[seen.ids], seen.pixels, k, d, flags=cv2.SOLVEPNP_IPPE
    )
    poses = [transform(turn, place) for turn, place in zip(turns, positions, strict=True)]
    return [pose for pose in poses if pose[2, 3] > 0.0 and np.isfinite(pose).all()]
