# SPDX-License-Identifier: Apache-2.0
"""The robot-world and hand-eye problem: cameras on a mount, a board on a link whose pose is known.

Least squares over every corner that every eye sees, begun from the closed form of Shah ("Solving
the robot-world/hand-eye calibration problem using the Kronecker product", J. Mechanisms Robotics
2013), or from the board's place where that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration.boards import Charuco
from twinloop.perception.calibration.bundle import Lens, composed, pixels_and_slopes, projected
from twinloop.perception.calibration.least_squares import Normal, solve
from twinloop.perception.calibration.link import Link
from twinloop.perception.calibration.views import (
    CalibrationRefused,
    View,
    board_poses,
    mean_transform,
    transform,
    vectors,
)
from twinloop.perception.camera_model import CameraModel, StereoModel

Array = NDArray[np.float64]
_VARIANCE_STEPS = 5
_LEAST_PIXEL_STD = 0.005  # pixels
_LIKELY_JOINT_STD = float(np.radians(0.2))
_LEAST_JOINT_STD = 1e-4  # rad


@dataclass(frozen=True)
class Rig:
    """Lenses, sizes, and transforms [4, 4] from the left eye into each."""

    lenses: tuple[Lens, ...]
    sizes: tuple[tuple[int, int], ...]
    from_left: tuple[Array, ...]

    @staticmethod
    def of(cameras: StereoModel | CameraModel) -> Rig:
        if isinstance(cameras, CameraModel):
            return Rig((Lens(cameras.k, cameras.d),), (cameras.size,), (np.eye(4),))
        both = (cameras.left, cameras.right)
        return Rig(
            tuple(Lens(one.k, one.d) for one in both),
            tuple(one.size for one in both),
            (np.eye(4), cameras.right_from_left()),
        )


@dataclass(frozen=True)
class Estimate:
    """What fits best.

    Attributes:
        camera: turns points of the mount into the left eye's frame [4, 4], m.
        camera_covariance: of its rotation vector and position [6, 6].
        on_link: turns points of the board into its link's frame [4, 4], m.
        residuals: seen minus expected pixels, [V][eye] of [N, 2], or None where not seen.
        pixel_std, joint_std_rad: standard deviations of corners, pixels, and of joint positions,
            rad, as the residuals tell them.
    """

    camera: Array
    camera_covariance: Array
    on_link: Array
    residuals: list[tuple[Array | None, ...]]
    pixel_std: float
    joint_std_rad: float


@dataclass(frozen=True)
class Problem:
    """What was seen, and of what.

    Joint sensors err too, and move all corners of a view together: each view's joint positions are
    parameters that were measured. How far corners and joints are off is estimated from what is
    left of each (Koch, "Parameter Estimation and Hypothesis Testing in Linear Models", 3.6).

    Parameters: mount in the left eye's frame [6] and the board on its link [6]; of each view the
    corrections of its joints [J].
    """

    board: Charuco
    rig: Rig
    link: Link
    views: list[View]
    is_board_free: bool

    def solve(self, camera: Array, on_link: Array) -> Estimate:
        """Return what fits best, from a rough start [4, 4] each.

        Raises:
            NotSolvable: the views leave something undetermined.
        """
        shared = np.concatenate([vectors(camera), vectors(on_link)])
        own = np.zeros((len(self.views), len(self.link.joints)))
        free = np.repeat([True, self.is_board_free], 6)
        pixel_std, joint_std = 0.1, _LIKELY_JOINT_STD
        for _ in range(_VARIANCE_STEPS):
            weighted = partial(self._normal, pixel_std=pixel_std, joint_std=joint_std)
            found = solve(weighted, shared, own, free)
            shared, own = found.shared, found.own
            corners = [
                one for view in self.residuals(shared, own) for one in view if one is not None
            ]
            pixels = np.concatenate(corners).ravel()
            # How many measurements of each kind are over, beyond what determines the parameters.
            known = float(np.einsum("vii->", found.own_covariance)) / (found.sigma * joint_std) ** 2
            joints_over = own.size - known
            pixels_over = len(pixels) - int(free.sum()) - joints_over
            pixel_std = max(float(np.sqrt((pixels**2).sum() / pixels_over)), _LEAST_PIXEL_STD)
            # A view or two tell nothing about joint sensors.
            if joints_over >= 1.0:
                joint_std = float(np.sqrt((own**2).sum() / joints_over))
                joint_std = max(joint_std, _LEAST_JOINT_STD)
        return Estimate(
            transform(shared[:3], shared[3:6]),
            found.covariance[:6, :6],
            transform(shared[6:9], shared[9:12]),
            self.residuals(shared, own),
            pixel_std,
            joint_std if own.size else 0.0,
        )

    def residuals(self, shared: Array, own: Array) -> list[tuple[Array | None, ...]]:
        """Return seen minus expected pixels, [V][eye] of [N, 2], or None where not seen."""
        camera, on_link = transform(shared[:3], shared[3:6]), transform(shared[6:9], shared[9:12])
        result = []
        for view, correction in zip(self.views, own, strict=True):
            in_left = camera @ self.link.pose(_joints(view, correction)) @ on_link
            result.append(
                tuple(
                    None
                    if seen is None
                    else seen.pixels - projected(self.board.points[seen.ids], eye @ in_left, lens)
                    for seen, lens, eye in zip(
                        view.seen, self.rig.lenses, self.rig.from_left, strict=True
                    )
                )
            )
        return result

    def _normal(self, shared: Array, own: Array, pixel_std: float, joint_std: float) -> Normal:
        normal = Normal(len(shared), *own.shape)
        count = own.shape[1]
        for index, view in enumerate(self.views):
            if count:
                normal.add(own[index] / joint_std, [], index, np.eye(count) / joint_std)
            link, by_joints = self._link_vectors(_joints(view, own[index]))
            on_mount, by_board, by_link = composed(shared[6:12], link)
            in_left, by_mount, by_camera = composed(on_mount, shared[:6])
            for seen, lens, eye in zip(view.seen, self.rig.lenses, self.rig.from_left, strict=True):
                if seen is None:
                    continue
                in_eye, by_left, _ = composed(in_left, vectors(eye))
                points = self.board.points[seen.ids]
                pixels, by_eye, _ = pixels_and_slopes(points, in_eye, lens.numbers())
                slopes = -by_eye @ by_left / pixel_std
                blocks = [
                    (slice(0, 6), slopes @ by_camera),
                    (slice(6, 12), slopes @ by_mount @ by_board),
                ]
                errors = (seen.pixels - pixels).ravel() / pixel_std
                normal.add(errors, blocks, index, slopes @ by_mount @ by_link @ by_joints)
        return normal

    def _link_vectors(self, joints: Array) -> tuple[Array, Array]:
        """Return the link's pose in the mount's frame [6], with its slopes by the joints [6, J]."""
        step = 1e-5
        slopes = [
            (vectors(self.link.pose(joints + change)) - vectors(self.link.pose(joints - change)))
            / (2.0 * step)
            for change in step * np.eye(len(self.link.joints))
        ]
        return vectors(self.link.pose(joints)), np.array(slopes).reshape(-1, 6).T


def _joints(view: View, correction: Array) -> Array:
    return np.zeros(0) if view.joints is None else view.joints + correction


def begin(
    board: Charuco,
    views: Sequence[View],
    link: Link,
    rig: Rig,
    known: Array | None,
) -> tuple[Array, Array]:
    """Return the mount in the camera's frame and the board on its link [4, 4], roughly.

    Args:
        known: place of the board on its link [4, 4], None where it is to be found.

    Raises:
        CalibrationRefused: no view tells the board's pose.
    """
    seen = [
        (found, link.pose(np.zeros(0) if view.joints is None else view.joints))
        for view in views
        if (found := _board_in_left(board, view, rig)) is not None
    ]
    if not seen:
        raise CalibrationRefused(
            "no view shows enough of the board to tell its pose: bring all of it into sight"
        )
    boards, links = [list(part) for part in zip(*seen, strict=True)]
    if known is not None:
        back = np.linalg.inv(known)
        cameras = [
            one @ back @ np.linalg.inv(link) for one, link in zip(boards, links, strict=True)
        ]
        return mean_transform(cameras), known
    solved = cv2.calibrateRobotWorldHandEye(
        [one[:3, :3] for one in boards],
        [one[:3, 3] for one in boards],
        [one[:3, :3] for one in links],
        [one[:3, 3] for one in links],
    )
    board_from_link, camera = np.eye(4), np.eye(4)
    board_from_link[:3, :3], board_from_link[:3, 3] = solved[0], np.ravel(solved[1])
    camera[:3, :3], camera[:3, 3] = solved[2], np.ravel(solved[3])
    return camera, np.asarray(np.linalg.inv(board_from_link))


def _board_in_left(board: Charuco, view: View, rig: Rig) -> Array | None:
    """Return the board's pose [4, 4] that fits what all eyes see best."""
    best, least = None, np.inf
    for seen, lens, from_left in zip(view.seen, rig.lenses, rig.from_left, strict=True):
        if seen is None:
            continue
        for pose in board_poses(board, seen, lens.k, lens.d):
            in_left = np.linalg.inv(from_left) @ pose
            errors = [
                other.pixels - projected(board.points[other.ids], side @ in_left, one)
                for other, one, side in zip(view.seen, rig.lenses, rig.from_left, strict=True)
                if other is not None
            ]
            cost = float((np.concatenate(errors) ** 2).sum())
            if cost < least:
                best, least = in_left, cost
    return best
