# SPDX-License-Identifier: Apache-2.0
"""Both eyes' lenses, the rig between them and every pose of the board, fitted at once.

Corners that only one eye sees count too. Parameters: focal lengths, principal point and distortion
of each eye, and the right eye from the left one as rotation vector and position; of each view the
board's pose in the left eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration.boards import Board
from twinloop.perception.calibration.least_squares import Normal, Solution, solve
from twinloop.perception.calibration.views import View, transform, vectors

Array = NDArray[np.float64]
EYES = ("left", "right")


@dataclass(frozen=True)
class Lens:
    """Camera matrix [3, 3] and distortion [D] of one eye."""

    k: Array
    d: Array

    def numbers(self) -> Array:
        """Return fx, fy, cx, cy and the distortion [4 + D]."""
        return np.concatenate([self.k[[0, 1, 0, 1], [0, 1, 2, 2]], self.d])


def lens(numbers: Array) -> Lens:
    """Undo `Lens.numbers`."""
    fx, fy, cx, cy = numbers[:4]
    return Lens(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), np.array(numbers[4:]))


@dataclass(frozen=True)
class Fit:
    """What both eyes agree on best.

    Attributes:
        lenses: of each eye.
        rig: turns points of the left eye's frame into the right eye's [4, 4], m.
        poses: turn points of the board into the left eye's frame, [V] of [4, 4], m.
        residuals: seen minus expected pixels, [V][eye] of [N, 2], or None where not seen.
        solution: parameters with their covariance.
    """

    lenses: tuple[Lens, Lens]
    rig: Array
    poses: list[Array]
    residuals: list[tuple[Array | None, ...]]
    solution: Solution

    def lens_std(self, eye: int) -> Array:
        """Return the standard deviations of `Lens.numbers` [4 + D]."""
        count = len(self.lenses[eye].numbers())
        return np.sqrt(np.diag(self.solution.covariance)[eye * count : (eye + 1) * count])

    def baseline_std_m(self) -> float:
        """Return the standard deviation of the distance between the eyes, m."""
        at = slice(self._rig + 3, self._rig + 6)
        along = self.rig[:3, 3] / np.linalg.norm(self.rig[:3, 3])
        return float(np.sqrt(along @ self.solution.covariance[at, at] @ along))

    def rotation_std_rad(self) -> float:
        """Return the largest standard deviation of the rotation between the eyes, rad."""
        at = slice(self._rig, self._rig + 3)
        return float(np.sqrt(np.diag(self.solution.covariance)[at].max()))

    @property
    def _rig(self) -> int:
        return 2 * len(self.lenses[0].numbers())


def fit(
    board: Board,
    views: Sequence[View],
    lenses: tuple[Lens, Lens],
    rig: Array,
    poses: Sequence[Array],
) -> Fit:
    """Fit everything at once.

    Args:
        views: of two eyes each.
        lenses, rig, poses: where to begin, see `Fit`; distortion that is 0 there stays 0.

    Raises:
        NotSolvable: the views leave something undetermined.
    """
    size = len(lenses[0].numbers())
    start = np.concatenate([*(one.numbers() for one in lenses), vectors(rig)])
    free = np.ones(len(start), dtype=bool)
    for eye in (0, 1):
        free[eye * size + 4 : (eye + 1) * size] = lenses[eye].d != 0.0
    own = np.array([vectors(pose) for pose in poses])
    found = solve(partial(_normal, board, views), start, own, free)
    fitted_lenses = (lens(found.shared[:size]), lens(found.shared[size : 2 * size]))
    fitted_rig = transform(found.shared[-6:-3], found.shared[-3:])
    fitted_poses = [transform(one[:3], one[3:]) for one in found.own]
    residuals = [
        tuple(
            None
            if seen is None
            else seen.pixels - projected(board.points[seen.ids], side @ pose, fitted_lenses[eye])
            for eye, (seen, side) in enumerate(zip(view.seen, (np.eye(4), fitted_rig), strict=True))
        )
        for view, pose in zip(views, fitted_poses, strict=True)
    ]
    return Fit(fitted_lenses, fitted_rig, fitted_poses, residuals, found)


def _normal(board: Board, views: Sequence[View], shared: Array, own: Array) -> Normal:
    normal = Normal(len(shared), *own.shape)
    size = (len(shared) - 6) // 2
    rig_at = slice(2 * size, 2 * size + 6)
    for index, view in enumerate(views):
        for eye, seen in enumerate(view.seen):
            if seen is None:
                continue
            lens_at = slice(eye * size, (eye + 1) * size)
            seen_from, by_pose, by_rig = own[index], np.eye(6), None
            if eye == 1:
                seen_from, by_pose, by_rig = composed(own[index], shared[rig_at])
            points = board.points[seen.ids]
            pixels, by_view, by_lens = pixels_and_slopes(points, seen_from, shared[lens_at])
            blocks = [(lens_at, -by_lens)]
            if by_rig is not None:
                blocks.append((rig_at, -by_view @ by_rig))
            normal.add((seen.pixels - pixels).ravel(), blocks, index, -by_view @ by_pose)
    return normal


def composed(first: Array, second: Array) -> tuple[Array, Array, Array]:
    """Return `first` and then `second` as vectors [6], with Jacobians [6, 6] by each."""
    found = cv2.composeRT(first[:3], first[3:], second[:3], second[3:])
    vector = np.concatenate([found[0].ravel(), found[1].ravel()])
    slopes = np.empty((2, 6, 6))
    slopes[0, :3, :3], slopes[0, :3, 3:], slopes[1, :3, :3], slopes[1, :3, 3:] = found[2:6]
    slopes[0, 3:, :3], slopes[0, 3:, 3:], slopes[1, 3:, :3], slopes[1, 3:, 3:] = found[6:10]
    return vector, slopes[0], slopes[1]


def pixels_and_slopes(points: Array, pose: Array, numbers: Array) -> tuple[Array, Array, Array]:
    """Return pixels [N, 2] with Jacobians [2 N, 6] by the pose and [2 N, 4 + D] by the lens."""
    one = lens(numbers)
    found, derivatives = cv2.projectPoints(points, pose[:3], pose[3:], one.k, one.d)
    pixels = np.asarray(found, np.float64).reshape(-1, 2)
    jacobian = np.asarray(derivatives, np.float64)
    return pixels, jacobian[:, :6], jacobian[:, 6 : 6 + len(numbers)]


def projected(points: Array, pose: Array, one: Lens) -> Array:
    """Return pixels [N, 2] of points [N, 3] in a frame with a pose [4, 4] in the camera's."""
    return pixels_and_slopes(points, vectors(pose), one.numbers())[0]
