# SPDX-License-Identifier: Apache-2.0
"""What a fit of a stereo pair must hold to, before anybody relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration.bundle import EYES, Fit
from twinloop.perception.calibration.detection import Detection
from twinloop.perception.calibration.views import CalibrationRefused, View, mean_transform

Array = NDArray[np.float64]
_OUTLIER = 5.0  # robust standard deviations, for a corner to be left out
_BAD_VIEW = 3.0  # medians of the views' errors, for a view to be left out
_MOST_BAD_VIEWS = 0.25
_SCATTER_DEG = 4.0  # between the eyes, over pairs; small boards far away scatter by one or two
_NOT_PAIRED = (
    "Pairs are not of the same time, or not in the same order: hold the board still for each, and "
    "check that names or stamps of left and right match"
)
_DISAGREE = 2.0  # errors of both eyes together by those of each alone


@dataclass(frozen=True)
class Promise:
    """How far off a calibration may be, with 95% certainty.

    Attributes:
        focal: as a share of the focal length.
        baseline_m: m.
        reprojection_px: standard deviation of the corners, pixels.
    """

    focal: float = 0.005
    baseline_m: float = 0.0005
    reprojection_px: float = 1.0


def contradicting(views: Sequence[View], found: Fit, alone_px: float) -> list[str]:
    """Return the views whose error is far above that of most."""
    seen = [[one for one in view if one is not None] for view in found.residuals]
    errors = np.array([rms_px(np.concatenate(one)) for one in seen])
    bad = errors > max(_BAD_VIEW * float(np.median(errors)), 0.2)
    names = [view.name for view, is_bad in zip(views, bad, strict=True) if is_bad]
    if len(names) > _MOST_BAD_VIEWS * len(views):
        check_eyes(found, alone_px)
        raise CalibrationRefused(
            f"{len(names)} of {len(views)} views contradict the others, such as {names[0]} with "
            f"{errors[bad][0]:.2f} pixels against {np.median(errors):.2f}: is the board flat, and "
            "held still when pictures are taken?"
        )
    return names


def check_pairs(rigs: Sequence[Array]) -> None:
    """Refuse pairs of pictures that place the right eye all over the room.

    Args:
        rigs: turn points of the left eye's frame into the right eye's, a pair each [4, 4], m.
    """
    middle = mean_transform(rigs)
    turns = [np.linalg.norm(cv2.Rodrigues(middle[:3, :3].T @ rig[:3, :3])[0]) for rig in rigs]
    spread_deg = float(np.degrees(np.median(turns)))
    if spread_deg > _SCATTER_DEG:
        raise CalibrationRefused(
            f"the eyes contradict each other: pairs place the right one {spread_deg:.0f} degrees "
            f"from its mean. {_NOT_PAIRED}"
        )


def check_eyes(found: Fit, alone_px: float) -> None:
    """Refuse eyes that see the board well each, but not in the same place."""
    if found.solution.sigma > max(_DISAGREE * alone_px, 0.15):
        raise CalibrationRefused(
            f"the eyes contradict each other: {found.solution.sigma:.2f} pixels together, "
            f"{alone_px:.2f} alone. {_NOT_PAIRED}"
        )


def without_outliers(
    views: Sequence[View], residuals: Sequence[tuple[Array | None, ...]]
) -> list[View]:
    """Return the views without corners that are far from where all others place them.

    Args:
        residuals: seen minus expected pixels, [V][eye] of [N, 2], or None where not seen.
    """
    every = [one.ravel() for view in residuals for one in view if one is not None]
    limit = _OUTLIER * 1.4826 * float(np.median(np.abs(np.concatenate(every))))
    return [
        replace(
            view,
            seen=tuple(
                None if one is None or errors is None else _kept(one, errors, limit)
                for one, errors in zip(view.seen, of_view, strict=True)
            ),
        )
        for view, of_view in zip(views, residuals, strict=True)
    ]


def _kept(one: Detection, errors: Array, limit: float) -> Detection:
    good = np.abs(errors).max(axis=1) <= limit
    return replace(one, ids=one.ids[good], pixels=one.pixels[good])


def check_promise(found: Fit, focal_std: Sequence[float], promise: Promise) -> None:
    if found.solution.sigma > promise.reprojection_px:
        raise CalibrationRefused(
            f"corners are {found.solution.sigma:.2f} pixels off, expected at most "
            f"{promise.reprojection_px:g}: is the board flat, of the named sides and in focus?"
        )
    uncertain = []
    for name, std in zip(EYES, focal_std, strict=True):
        if 2.0 * std > promise.focal:
            uncertain.append(
                f"the {name} focal length is known to {200 * std:.2f}% only, expected "
                f"{100 * promise.focal:g}%"
            )
    if 2.0 * found.baseline_std_m() > promise.baseline_m:
        uncertain.append(
            f"the baseline is known to {2e3 * found.baseline_std_m():.2f} mm only, expected "
            f"{1e3 * promise.baseline_m:g} mm"
        )
    if uncertain:
        raise CalibrationRefused(
            "; ".join(uncertain)
            + ": take more views, with the board larger in the picture, tilted more and sharper"
        )


def rms_px(errors: Array) -> float:
    """Return the root mean square length of errors [N, 2]."""
    return float(np.sqrt((errors**2).sum(axis=-1).mean()))
