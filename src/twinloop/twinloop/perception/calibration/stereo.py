# SPDX-License-Identifier: Apache-2.0
"""Calibration of a stereo pair: both lenses, the rig between them, rectification.

OpenCV calibrates each eye (Zhang, "A flexible new technique for camera calibration", PAMI 2000);
then both are fitted at once (`bundle`), which gives the uncertainty of the result as well. What is
less certain than was promised is refused, as is what cannot be told from the views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration import bundle
from twinloop.perception.calibration.boards import Board, Chessboard
from twinloop.perception.calibration.bundle import EYES, Fit, Lens
from twinloop.perception.calibration.checks import (
    Promise,
    check_eyes,
    check_pairs,
    check_promise,
    contradicting,
    rms_px,
    without_outliers,
)
from twinloop.perception.calibration.diversity import missing
from twinloop.perception.calibration.least_squares import NotSolvable
from twinloop.perception.calibration.views import (
    CalibrationRefused,
    View,
    mean_transform,
    transform,
)
from twinloop.perception.camera_model import DISTORTIONS, CameraModel, StereoModel

Array = NDArray[np.float64]
_SIGNIFICANT = 3.0  # standard deviations, for a term of the distortion to be kept


@dataclass(frozen=True)
class StereoCalibration:
    """A calibrated pair and how well it is known.

    Attributes:
        model: the pair, as it is written.
        views: those that were used.
        left_out: names of views that contradict the others.
        fit: of the views that were used.
        focal_std: standard deviation of each eye's focal length, as a share of it.
        baseline_std_m: of the baseline, m.
    """

    model: StereoModel
    views: list[View]
    left_out: list[str]
    fit: Fit
    focal_std: tuple[float, float]
    baseline_std_m: float

    def view_errors_px(self) -> list[tuple[float | None, ...]]:
        """Return the root mean square error of the corners, by view and eye, pixels."""
        return [
            tuple(None if one is None else rms_px(one) for one in view)
            for view in self.fit.residuals
        ]


def calibrate_stereo(
    board: Board,
    views: Sequence[View],
    distortion: str = "plumb_bob",
    promise: Promise | None = None,
) -> StereoCalibration:
    """Calibrate a stereo pair.

    Args:
        board: as it was printed; its sides set the scale of everything.
        views: of two eyes each, left first.
        distortion: a key of `DISTORTIONS`.
        promise: what is uncertain beyond it is refused.

    Raises:
        CalibrationRefused: there are too few views, they differ too little, their sizes do, they
            contradict each other, or the result is too uncertain; says what to do.
    """
    promise = promise or Promise()
    if distortion not in DISTORTIONS:
        raise CalibrationRefused(
            f"distortion model is {distortion!r}, expected one of {', '.join(DISTORTIONS)}"
        )
    used = [_aligned(board, view) for view in views]
    used = [view for view in used if any(view.seen)]
    size = _common_size(used)
    _refuse(missing(board, used, EYES))
    mono = [_mono(board, used, eye, size, distortion) for eye in (0, 1)]
    found = _fit(board, used, mono)
    left_out = contradicting(used, found, _alone_px(mono))
    if left_out:
        used = [view for view in used if view.name not in left_out]
        mono = [_mono(board, used, eye, size, distortion) for eye in (0, 1)]
        found = _fit(board, used, mono)
    used = without_outliers(used, found.residuals)
    found = bundle.fit(board, used, found.lenses, found.rig, found.poses)
    check_eyes(found, _alone_px(mono))
    lenses = [(one.k, one.d) for one in found.lenses]
    _refuse(missing(board, used, EYES, lenses))
    focal_std = tuple(
        float((found.lens_std(eye)[:2] / found.lenses[eye].numbers()[:2]).max()) for eye in (0, 1)
    )
    check_promise(found, focal_std, promise)
    model = rectified(found.lenses, found.rig, size, distortion)
    return StereoCalibration(
        model, used, left_out, found, (focal_std[0], focal_std[1]), found.baseline_std_m()
    )


def rectified(
    lenses: tuple[Lens, Lens], rig: Array, size: tuple[int, int], distortion: str = "plumb_bob"
) -> StereoModel:
    """Return a pair with rectification in ROS form.

    Args:
        rig: turns points of the left eye's frame into the right eye's [4, 4], m.

    Raises:
        CalibrationRefused: the eyes are swapped, or one is above the other.
    """
    x, y, _ = rig[:3, 3]
    if abs(y) > abs(x):
        raise CalibrationRefused(
            f"the right camera is {1e3 * abs(y):.0f} mm above or below the left one, and "
            f"{1e3 * abs(x):.0f} mm beside it: only pairs side by side can be rectified"
        )
    if x > 0.0:
        raise CalibrationRefused(
            f"the right camera stands {1e3 * x:.0f} mm to the left of the left one: left and right "
            "are swapped"
        )
    (left, right) = lenses
    r_left, r_right, p_left, p_right, *_ = cv2.stereoRectify(
        left.k, left.d, right.k, right.d, size, rig[:3, :3], rig[:3, 3], alpha=0.0
    )
    return StereoModel(
        CameraModel("left", size, left.k, left.d, np.array(r_left), np.array(p_left), distortion),
        CameraModel(
            "right", size, right.k, right.d, np.array(r_right), np.array(p_right), distortion
        ),
    )


@dataclass(frozen=True)
class _Eye:
    """One eye, calibrated by itself."""

    lens: Lens
    poses: dict[str, Array]  # of the board, by the view's name
    rms_px: float


def _aligned(board: Board, view: View) -> View:
    """Let both eyes count a chessboard's corners from the same end: it looks alike upside down."""
    left, right = view.seen
    if not isinstance(board, Chessboard) or left is None or right is None:
        return view
    if (left.pixels[-1] - left.pixels[0]) @ (right.pixels[-1] - right.pixels[0]) < 0.0:
        right = replace(right, pixels=right.pixels[::-1])
    return replace(view, seen=(left, right))


def _common_size(views: Sequence[View]) -> tuple[int, int]:
    if not views:
        raise CalibrationRefused("the board is seen in no view")
    sizes = {one.size for view in views for one in view.seen if one is not None}
    if len(sizes) > 1:
        raise CalibrationRefused(
            f"pictures are of different sizes, {', '.join(f'{w}x{h}' for w, h in sorted(sizes))} "
            "pixels: take all with the same settings of both cameras"
        )
    return sizes.pop()


def _mono(
    board: Board, views: Sequence[View], eye: int, size: tuple[int, int], distortion: str
) -> _Eye:
    """Calibrate one eye; terms of the distortion that the views do not show are left at 0."""
    chosen = [(view.name, seen) for view in views if (seen := view.seen[eye]) is not None]
    points = [board.points[seen.ids].astype(np.float32) for _, seen in chosen]
    pixels = [seen.pixels.astype(np.float32) for _, seen in chosen]
    rational = cv2.CALIB_RATIONAL_MODEL if distortion == "rational_polynomial" else 0
    start = (np.eye(3), np.zeros(DISTORTIONS[distortion]))
    try:
        found = cv2.calibrateCameraExtended(points, pixels, size, *start, flags=rational)
        d, std = found[2].ravel(), found[5].ravel()
        # The sixth-order term takes from the focal length what few views at the rim show.
        if not rational and abs(d[4]) < _SIGNIFICANT * std[8]:
            flags = cv2.CALIB_FIX_K3
            found = cv2.calibrateCameraExtended(points, pixels, size, *start, flags=flags)
    except cv2.error as error:
        raise CalibrationRefused(
            f"the {EYES[eye]} eye cannot be calibrated from these views: {error.err}"
        ) from error
    rms, k, d, turns, places = found[:5]
    poses = {
        name: transform(turn, place)
        for (name, _), turn, place in zip(chosen, turns, places, strict=True)
    }
    d = d.ravel()[: DISTORTIONS[distortion]]
    return _Eye(Lens(np.array(k, np.float64), np.array(d, np.float64)), poses, float(rms))


def _alone_px(mono: Sequence[_Eye]) -> float:
    """Return the larger error of the eyes, a coordinate."""
    # OpenCV counts the error of both coordinates together, the fit of both eyes each by itself.
    return max(one.rms_px for one in mono) / float(np.sqrt(2.0))


def _fit(board: Board, views: Sequence[View], mono: Sequence[_Eye]) -> Fit:
    left, right = (one.poses for one in mono)
    both = [view.name for view in views if view.name in left and view.name in right]
    rigs = [right[name] @ np.linalg.inv(left[name]) for name in both]
    check_pairs(rigs)
    rig = mean_transform(rigs)
    back = np.linalg.inv(rig)
    poses = [left[view.name] if view.name in left else back @ right[view.name] for view in views]
    try:
        return bundle.fit(board, views, (mono[0].lens, mono[1].lens), rig, poses)
    except NotSolvable as error:
        raise CalibrationRefused(
            f"these views do not tell the cameras apart from the board's poses ({error}): tilt the "
            "board about both of its axes, at several distances"
        ) from error


def _refuse(reasons: Sequence[str]) -> None:
    if reasons:
        raise CalibrationRefused(*reasons)
