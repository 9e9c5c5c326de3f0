# SPDX-License-Identifier: Apache-2.0
"""Where the cameras are on the hand's mount, from a ChArUco board on the hand.

Two ways, which one fit serves: the board is at a known place on the mount (or on any link whose
pose the joints tell), and one view is enough; or it is fixed anyhow on a link that moves, such as
the palm, and views at several joint positions tell both its place and the cameras'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration.boards import Charuco
from twinloop.perception.calibration.checks import without_outliers
from twinloop.perception.calibration.hand_eye import Estimate, Problem, Rig, begin
from twinloop.perception.calibration.least_squares import NotSolvable
from twinloop.perception.calibration.link import Link
from twinloop.perception.calibration.views import (
    CalibrationRefused,
    View,
    mean_transform,
    transform,
    vectors,
)
from twinloop.perception.camera_model import CameraModel, StereoModel
from twinloop.perception.mount import Mount

Array = NDArray[np.float64]
LEAST_VIEWS = 10  # of a board whose place on a moving link is unknown
LEAST_TURN_DEG = 15.0  # of that link, about two axes
_PARTS = (slice(0, 3), slice(3, 6))  # position and rotation of a covariance


@dataclass(frozen=True)
class MountPromise:
    """How far off a mount may be, with 95% certainty.

    Attributes:
        position_m: m.
        rotation_rad: rad.
        reprojection_px: standard deviation of the corners, pixels.
        joint_rad: standard deviation of the joint positions, rad.
    """

    position_m: float = 0.002
    rotation_rad: float = float(np.radians(0.3))
    reprojection_px: float = 1.0
    joint_rad: float = float(np.radians(2.0))


@dataclass(frozen=True)
class MountCalibration:
    """Where the left camera is, and how well that is known.

    Attributes:
        mount: of the left camera's optical frame.
        position_std_m, rotation_std_rad: of the mount, in the worst direction, m and rad.
        views: those that were used.
        estimate: what the mount is made of.
    """

    mount: Mount
    position_std_m: float
    rotation_std_rad: float
    views: list[View]
    estimate: Estimate


def calibrate_mount(
    board: Charuco,
    views: Sequence[View],
    cameras: StereoModel | CameraModel,
    link: Link,
    known: Array | None,
    child: str,
    promise: MountPromise | None = None,
) -> MountCalibration:
    """Find where the (left) camera is in the frame of the hand's mount.

    Args:
        views: of as many cameras as there are, with positions of the joints that move the link.
        cameras: calibrated before.
        link: that the board is fixed on.
        known: turns points of the board into the link's frame [4, 4], m; None where unknown.
        child: name of the left camera's optical frame.
        promise: what is uncertain beyond it is refused.

    Raises:
        CalibrationRefused: the board is not seen, there are too few views, the link moved too
            little, or the result is too uncertain; says what to do.
    """
    promise = promise or MountPromise()
    rig = Rig.of(cameras)
    used = [view for view in views if any(view.seen)]
    if not used:
        raise CalibrationRefused(
            f"the board {board.text} is seen in none of {len(views)} views: is it the board that "
            "is named, in sight, lit and in focus?"
        )
    _check_sizes(used, rig)
    _check_joints(used, link)
    reasons = [] if known is not None else missing_motion(used, link)
    if reasons:
        raise CalibrationRefused(*reasons)
    problem = Problem(board, rig, link, used, known is None)
    try:
        found = problem.solve(*begin(board, used, link, rig, known))
        problem = replace(problem, views=without_outliers(used, found.residuals))
        found = problem.solve(found.camera, found.on_link)
    except NotSolvable as error:
        raise CalibrationRefused(
            f"the views do not tell where the camera is ({error}): turn {link.name} about two "
            "axes, and take more views"
        ) from error
    position_std_m, rotation_std_rad = _uncertainty(found, problem.views)
    mount = Mount(link.mount, child, np.asarray(np.linalg.inv(found.camera), np.float64))
    result = MountCalibration(mount, position_std_m, rotation_std_rad, problem.views, found)
    _check_promise(result, promise)
    return result


def missing_motion(views: Sequence[View], link: Link) -> list[str]:
    """Return what is missing to find a board of unknown place on a link, and what to do."""
    if not link.joints:
        return [
            f"no joint moves {link.name} in {link.mount}, so the board's place on it must be "
            "given; or fix the board on a link that moves, such as the palm"
        ]
    poses = [link.pose(view.joints) for view in views if view.joints is not None]
    result = []
    if len(poses) < LEAST_VIEWS:
        result.append(
            f"the board is seen in {len(poses)} views, {LEAST_VIEWS} are needed where its place "
            f"on {link.name} is unknown: take {LEAST_VIEWS - len(poses)} more, each at other "
            "joint positions"
        )
    if not poses:
        return result
    middle = mean_transform(poses)[:3, :3]
    turns = np.array([cv2.Rodrigues(middle.T @ pose[:3, :3])[0].ravel() for pose in poses])
    axes = np.linalg.svd(turns - turns.mean(axis=0))[2]
    first, second = np.degrees(np.ptp(turns @ axes.T, axis=0))[:2]
    if second < LEAST_TURN_DEG:
        result.append(
            f"{link.name} turned by {first:.0f} degrees about one axis and {second:.0f} about "
            f"another, expected at least {LEAST_TURN_DEG:.0f} about two: move "
            f"{' and '.join(link.joints)} through more of their range"
        )
    return result


def _check_sizes(views: Sequence[View], rig: Rig) -> None:
    for view in views:
        if len(view.seen) != len(rig.sizes):
            raise CalibrationRefused(
                f"view {view.name} has {len(view.seen)} pictures, expected {len(rig.sizes)}, one a "
                "camera"
            )
        for seen, size in zip(view.seen, rig.sizes, strict=True):
            if seen is not None and seen.size != size:
                raise CalibrationRefused(
                    f"view {view.name} is of {seen.size[0]}x{seen.size[1]} pixels, and the "
                    f"camera's calibration of {size[0]}x{size[1]}: calibrate the cameras at the "
                    "size they run at"
                )


def _check_joints(views: Sequence[View], link: Link) -> None:
    for view in views:
        count = 0 if view.joints is None else len(view.joints)
        if link.joints and count != len(link.joints):
            raise CalibrationRefused(
                f"view {view.name} has {count} joint positions, expected those of "
                f"{', '.join(link.joints)}, which move {link.name}"
            )


def _uncertainty(found: Estimate, views: Sequence[View]) -> tuple[float, float]:
    """Return the standard deviations of the mount's position [m] and rotation [rad]."""
    step, values = 1e-6, vectors(found.camera)
    here = np.linalg.inv(found.camera)
    slopes = np.zeros((6, 6))
    for index, change in enumerate(step * np.eye(6)):
        moved = values + change
        there = np.linalg.inv(transform(moved[:3], moved[3:]))
        # A small turn's matrix is 1 plus the cross matrix of its vector.
        turn = here[:3, :3].T @ there[:3, :3]
        slopes[:3, index] = (there[:3, 3] - here[:3, 3]) / step
        slopes[3:, index] = np.array([turn[2, 1], turn[0, 2], turn[1, 0]]) / step
    covariance = slopes @ found.camera_covariance @ slopes.T
    # Views of a board that stands still repeat the same errors of its corners.
    places = {tuple(np.round(view.joints, 3)) for view in views if view.joints is not None}
    covariance = covariance * len(views) / max(len(places), 1)
    worst = [float(np.sqrt(np.linalg.eigvalsh(covariance[at, at])[-1])) for at in _PARTS]
    return worst[0], worst[1]


def _check_promise(found: MountCalibration, promise: MountPromise) -> None:
    estimate = found.estimate
    if estimate.pixel_std > promise.reprojection_px:
        raise CalibrationRefused(
            f"corners are {estimate.pixel_std:.2f} pixels off, expected at most "
            f"{promise.reprojection_px:g}: are the cameras' calibration, the board and its place "
            "those of these pictures?"
        )
    if estimate.joint_std_rad > promise.joint_rad:
        raise CalibrationRefused(
            f"joint positions are {np.degrees(estimate.joint_std_rad):.1f} degrees off what the "
            f"pictures show, expected at most {np.degrees(promise.joint_rad):g}: did the board "
            "move on its link, and are the joint positions those of the pictures' times?"
        )
    uncertain = []
    if 2.0 * found.position_std_m > promise.position_m:
        uncertain.append(
            f"the camera's place is known to {2e3 * found.position_std_m:.1f} mm only, expected "
            f"{1e3 * promise.position_m:g} mm"
        )
    if 2.0 * found.rotation_std_rad > promise.rotation_rad:
        uncertain.append(
            f"its direction is known to {np.degrees(2 * found.rotation_std_rad):.2f} degrees only, "
            f"expected {np.degrees(promise.rotation_rad):.2g}"
        )
    if uncertain:
        raise CalibrationRefused(
            "; ".join(uncertain) + ": take more views, with the board larger in the picture; where "
            "it is on a moving link, turn that further"
        )
