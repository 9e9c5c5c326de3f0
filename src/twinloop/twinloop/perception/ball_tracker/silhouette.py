# SPDX-License-Identifier: Apache-2.0
"""Balls by their outlines: without anything learned, and on top of what the network finds.

A sphere's outline is larger than its radius by its depth says, and its middle is not where the
centre projects to. With radius R, depth Z and the outline's radius s and middle m, both in units of
the focal length and counted from the optical axis: s = R / sqrt(Z^2 - R^2) and m = c Z^2 /
(Z^2 - R^2) for a centre that projects to c. A depth that was triangulated from the middles, Z', is
thus short: Z = (Z' + sqrt(Z'^2 + 4 R^2)) / 2.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.ball_tracker.circles import fit_circle
from twinloop.perception.ball_tracker.detector import Detection, Detector
from twinloop.perception.ball_tracker.eyes import FOCAL_PX
from twinloop.perception.ball_tracker.network import MASK_STRIDE
from twinloop.perception.ball_tracker.votes import Blob, outline_to_centre

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

RADII_PX = (13.5, 23.0)  # of balls in and about the palm
_RAYS = 64
_STEP_PX = 0.5
_REACH = (0.55, 1.4)  # of the radius: where an outline is looked for
_FINE = 2  # images are enlarged for Hough's transform
_MOST = 2
_OUTLINE_PX = 0.25  # standard deviation of a point of an outline


class ClassicalDetector:
    """Hough's transform finds circles, colour edges along rays from their middles refine them."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def detect(self, windows: tuple[Image, Image], corners: Array) -> tuple[Detection, Detection]:
        left, right = (
            Detection(self._blobs(window, corner))
            for window, corner in zip(windows, corners, strict=True)
        )
        return left, right

    def _blobs(self, window: Image, corner: Array) -> list[Blob]:
        smooth = cv2.cvtColor(cv2.GaussianBlur(window, (0, 0), 1.0), cv2.COLOR_RGB2LAB)
        lab: NDArray[np.float32] = np.asarray(smooth, dtype=np.float32)
        found: list[tuple[Array, float]] = []
        for circle in _hough(window):
            places, profile = _rays(lab, circle[:2], circle[2])
            points = _color_edges(places, profile)
            fit = fit_circle(points, RADII_PX, self._rng)
            if fit is None:
                continue
            (x, y, radius), on = fit
            if any(np.hypot(x - one[0], y - one[1]) < radius for one, _ in found):
                continue
            found.append((np.array([x, y, radius]), float(on.sum()) / _RAYS))
        found.sort(key=lambda one: -one[1])
        return [
            blob_of_outline(circle, share, corner, _mean_color(window, circle))
            for circle, share in found[:_MOST]
        ]


class OutlinedDetector:
    """Fits circles to the edges of the masks of a detector that has them.

    Args:
        inner: finds balls and masks.
    """

    def __init__(self, inner: Detector) -> None:
        self._inner = inner
        self._rng = np.random.default_rng(0)

    def detect(self, windows: tuple[Image, Image], corners: Array) -> tuple[Detection, Detection]:
        left, right = (
            replace(one, blobs=[self._refined(blob, one, corner) for blob in one.blobs])
            for one, corner in zip(self._inner.detect(windows, corners), corners, strict=True)
        )
        return left, right

    def _refined(self, blob: Blob, detection: Detection, corner: Array) -> Blob:
        """Return a blob whose centre and radius its outline has made better known."""
        assert detection.masks is not None
        # Cell i of a mask is centred between its pixels.
        shift = corner + 0.5 * (MASK_STRIDE - 1)
        middle = (blob.centre - shift) / MASK_STRIDE
        places, profile = _rays(
            detection.masks.ball[..., None], middle, blob.radius / MASK_STRIDE, _STEP_PX / 2
        )
        points = _mask_edges(places, profile[..., 0]) * MASK_STRIDE + 0.5 * (MASK_STRIDE - 1)
        fit = fit_circle(points, RADII_PX, self._rng, tolerance_px=0.5)
        if fit is None:
            return blob
        outlined = blob_of_outline(fit[0], float(fit[1].sum()) / _RAYS, corner, blob.color)
        if np.linalg.norm(outlined.centre - blob.centre) > 3.0 * (1.0 + blob.deviation.max()):
            return blob
        return _merged(blob, outlined)


def blob_of_outline(circle: Array, share: float, corner: Array, color: Array) -> Blob:
    """Return what an outline (x, y, radius) in a window tells of a ball.

    Args:
        share: part of the outline that was seen.
    """
    radius = float(circle[2]) / FOCAL_PX
    # R / Z from s = R / sqrt(Z^2 - R^2)
    ratio = radius / np.sqrt(1.0 + radius**2)
    centre = outline_to_centre(circle[:2] + corner, FOCAL_PX * ratio)
    points = max(share * _RAYS, 4.0) / 4.0  # neighbours err together
    deviation = _OUTLINE_PX / np.sqrt(points) / max(share, 0.1)
    apparent = FOCAL_PX * ratio
    return Blob(
        centre,
        np.full(2, deviation),
        apparent,
        2.0 * deviation,
        share * np.pi * apparent**2,
        color,
    )


def _merged(one: Blob, other: Blob) -> Blob:
    """Return the mean of two sights of a ball, each weighted by its precision."""
    a, b = one.deviation**-2.0, other.deviation**-2.0
    c, d = one.radius_deviation**-2.0, other.radius_deviation**-2.0
    return replace(
        one,
        centre=(a * one.centre + b * other.centre) / (a + b),
        deviation=np.maximum(one.deviation, other.deviation) / np.sqrt(2.0),
        radius=(c * one.radius + d * other.radius) / (c + d),
        radius_deviation=max(one.radius_deviation, other.radius_deviation) / np.sqrt(2.0),
    )


def _hough(window: Image) -> Array:
    """Return circles (x, y, radius) [N, 3], pixels of the window, the clearest first."""
    grey = cv2.cvtColor(window, cv2.COLOR_RGB2HSV)[..., 1]
    large = cv2.resize(cv2.GaussianBlur(grey, (0, 0), 1.0), None, fx=_FINE, fy=_FINE)
    circles = cv2.HoughCircles(
        large,
        cv2.HOUGH_GRADIENT,
        dp=2,
        minDist=_FINE * 16,
        param1=80,
        param2=14,
        minRadius=int(_FINE * RADII_PX[0]),
        maxRadius=int(_FINE * RADII_PX[1]),
    )
    if circles is None:
        return np.zeros((0, 3))
    found = circles.reshape(-1, 3)[:4].astype(np.float64) / _FINE
    found[:, :2] -= 0.5 * (_FINE - 1) / _FINE
    return found


def _rays(
    field: NDArray[np.float32], middle: Array, radius: float, step: float = _STEP_PX
) -> tuple[Array, NDArray[np.float32]]:
    """Sample a field [h, w, C] along rays: places [R, S, 2] and values [R, S, C]."""
    angle = np.linspace(0.0, 2.0 * np.pi, _RAYS, endpoint=False)
    away = np.arange(_REACH[0] * radius, _REACH[1] * radius, step)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    places = middle + away[:, None] * direction[:, None]
    at = places.astype(np.float32)
    values = cv2.remap(
        field, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return places, np.asarray(values.reshape(*places.shape[:2], -1), dtype=np.float32)


def _color_edges(places: Array, profile: NDArray[np.float32]) -> Array:
    """Return the place of the strongest change of colour on each ray [N, 2]."""
    change = np.linalg.norm(profile[:, 4:] - profile[:, :-4], axis=-1)
    strongest = change.argmax(axis=1)
    rows = np.arange(len(places))
    clear = (change[rows, strongest] > 12.0) & (strongest > 0)
    clear &= strongest < change.shape[1] - 1
    return np.asarray(places[rows, strongest + 2][clear])


def _mask_edges(places: Array, profile: NDArray[np.float32]) -> Array:
    """Return where a mask falls through a half on each ray [N, 2], finer than its samples."""
    falls = (profile[:, :-1] >= 0.5) & (profile[:, 1:] < 0.5)
    first = falls.argmax(axis=1)
    rows = np.flatnonzero(falls.any(axis=1))
    first = first[rows]
    before, after = profile[rows, first], profile[rows, first + 1]
    share = ((before - 0.5) / (before - after))[:, None]
    return np.asarray((1.0 - share) * places[rows, first] + share * places[rows, first + 1])


def _mean_color(window: Image, circle: Array) -> Array:
    mask = np.zeros(window.shape[:2], dtype=np.uint8)
    x, y, radius = (int(v) for v in np.rint(circle))
    cv2.circle(mask, (x, y), max(int(0.7 * radius), 1), 255, -1)
    return np.array(cv2.mean(window, mask)[:3])
