# SPDX-License-Identifier: Apache-2.0
"""Fits circles to points of which some belong to something else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TRIALS = 64
_LEAST_INLIERS = 8


def fit_circle(
    points: Array,
    radii: tuple[float, float],
    rng: np.random.Generator,
    tolerance_px: float = 0.8,
) -> tuple[Array, NDArray[np.bool_]] | None:
    """Return (x, y, radius) and which points are on it, by RANSAC and least squares.

    Args:
        points: [N, 2], pixels.
        radii: smallest and largest radius that can be.
        rng: draws the trials.
        tolerance_px: distance from the circle of a point that is on it.

    Returns:
        None where too few points agree.
    """
    if len(points) < _LEAST_INLIERS:
        return None
    triples = points[rng.integers(len(points), size=(_TRIALS, 3))]
    circles = _through(triples)
    with np.errstate(invalid="ignore"):
        off = np.abs(np.linalg.norm(points - circles[:, None, :2], axis=-1) - circles[:, 2:])
        possible = (circles[:, 2] >= radii[0]) & (circles[:, 2] <= radii[1])
        counts = np.where(possible, (off < tolerance_px).sum(axis=1), 0)
    best = int(np.argmax(counts))
    if counts[best] < _LEAST_INLIERS:
        return None
    circle, on = circles[best], off[best] < tolerance_px
    for _ in range(3):
        circle = _least_squares(points[on], circle)
        on = np.abs(np.linalg.norm(points - circle[:2], axis=-1) - circle[2]) < tolerance_px
        if on.sum() < _LEAST_INLIERS:
            return None
    if not radii[0] <= circle[2] <= radii[1]:
        return None
    return circle, on


def _through(triples: Array) -> Array:
    """Return circles (x, y, r) [N, 3] through three points each [N, 3, 2]; NaN where in line."""
    a, b = triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0]
    cross = 2.0 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    aa, bb = (a**2).sum(-1), (b**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (b[:, 1] * aa - a[:, 1] * bb) / cross
        y = (a[:, 0] * bb - b[:, 0] * aa) / cross
    return np.stack([triples[:, 0, 0] + x, triples[:, 0, 1] + y, np.hypot(x, y)], axis=-1)


def _least_squares(points: Array, circle: Array) -> Array:
    """Return a circle after a Gauss-Newton step on the points' distances from it."""
    offset = points - circle[:2]
    distance = np.maximum(np.linalg.norm(offset, axis=-1), 1e-9)
    design = np.concatenate([offset / distance[:, None], np.ones((len(points), 1))], axis=1)
    step = np.linalg.lstsq(design, distance - circle[2], rcond=None)[0]
    return np.asarray(circle + step)
