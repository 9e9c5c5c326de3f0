# SPDX-License-Identifier: Apache-2.0
"""Finds balls in one eye: pixels' votes for centres are gathered, and averaged where they agree."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.ball_tracker.eyes import FOCAL_PX

Array = NDArray[np.float64]

_BIN_PX = 4.0
_MARGIN_PX = 24.0  # centres may lie this far outside the window
_GATE_PX = 9.0  # votes further from a peak are of another ball, or of none
_SPREAD_PX = 2.5  # scale of votes that agree
_LEAST_CELL = 0.3  # probability of a cell that may vote
_ROUNDS = 4


@dataclass(frozen=True)
class Blob:
    """A ball that one eye sees.

    Attributes:
        centre: where the sphere's centre projects to [2], pixels (x, y).
        deviation: standard deviations of the centre [2], pixels.
        radius: focal length times the ball's radius by its depth, pixels.
        radius_deviation: pixels.
        area: visible, pixels.
        color: mean over the visible pixels [3].
    """

    centre: Array
    deviation: Array
    radius: float
    radius_deviation: float
    area: float
    color: Array

    @property
    def visible_fraction(self) -> float:
        """Visible part of the disc, 0 to 1."""
        return float(min(self.area / (np.pi * self.radius**2), 1.0))


@dataclass(frozen=True)
class Votes:
    """Votes of the cells of one window that may show a ball.

    Attributes:
        place: middles of outlines that are voted for [n, 2], pixels from the optical axis.
        scale: expected mean absolute error of x, y [n, 2], pixels.
        radius: voted for [n], pixels.
        radius_scale: expected mean absolute error, part of the radius [n].
        weight: probability that the cell shows a ball [n].
        color: of the cell [n, 3].
        cell_area: pixels a cell has.
    """

    place: Array
    scale: Array
    radius: Array
    radius_scale: Array
    weight: Array
    color: Array
    cell_area: float


def gather(
    ball: Array,
    offset: Array,
    radius: Array,
    log_scale: Array,
    color: NDArray[np.uint8],
    stride: int,
    corner: Array,
) -> Votes:
    """Read a network's maps.

    Args:
        ball: probability of a ball [h, w].
        offset: from a cell's middle to that of the outline [2, h, w], pixels.
        radius: [h, w], pixels.
        log_scale: [3, h, w].
        color: of the window [H, W, 3].
        stride: pixels between cells.
        corner: pixel of the window's first pixel [2].
    """
    rows, columns = np.nonzero(ball > _LEAST_CELL)
    middle = 0.5 * (stride - 1)
    cells = np.stack([columns, rows], axis=-1) * float(stride) + middle + corner
    scale = np.exp(log_scale[:, rows, columns])
    half = stride // 2
    return Votes(
        cells + offset[:, rows, columns].T,
        scale[:2].T,
        radius[rows, columns],
        scale[2],
        ball[rows, columns],
        color[rows * stride + half, columns * stride + half].astype(np.float64),
        float(stride**2),
    )


def find_blobs(votes: Votes, least_area: float, most: int = 3) -> list[Blob]:
    """Return the balls that votes agree on, the best supported first.

    Args:
        least_area: of a ball that counts, pixels.
        most: as many at most.
    """
    blobs: list[Blob] = []
    free = np.ones(len(votes.weight), dtype=bool)
    while len(blobs) < most and votes.cell_area * votes.weight[free].sum() >= least_area:
        peak = _peak(votes.place[free], votes.weight[free])
        for _ in range(2):
            near = free & (((votes.place - peak) ** 2).sum(-1) < _GATE_PX**2)
            if not near.any():
                break
            peak = np.average(votes.place[near], axis=0, weights=votes.weight[near])
        if not near.any():
            break
        area = votes.cell_area * float(votes.weight[near].sum())
        if area >= least_area:
            blobs.append(_blob(votes, near, peak, area))
        free &= ~near
    return blobs


def outline_to_centre(middle: Array, radius: float) -> Array:
    """Return where a sphere's centre projects to [2] from the middle of its outline [2].

    With X, Z, R of the sphere, the outline is an ellipse about f X Z / (Z^2 - R^2), the centre is
    at f X / Z.

    Args:
        radius: apparent, f R / Z, pixels.
    """
    return middle * (1.0 - (radius / FOCAL_PX) ** 2)


def _peak(place: Array, weight: Array) -> Array:
    """Return the middle of the bin that most votes fall in and about."""
    low = place.min(axis=0)
    at = np.floor((place - low) / _BIN_PX).astype(np.int64)
    columns, rows = at.max(axis=0) + 1
    counts = np.bincount(at[:, 1] * columns + at[:, 0], weights=weight, minlength=rows * columns)
    smooth = cv2.blur(counts.reshape(rows, columns), (3, 3), borderType=cv2.BORDER_CONSTANT)
    row, column = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    return low + _BIN_PX * (np.array([column, row]) + 0.5)


def _blob(votes: Votes, near: NDArray[np.bool_], start: Array, area: float) -> Blob:
    place, scale, weight = votes.place[near], votes.scale[near], votes.weight[near]
    precision = weight[:, None] / scale**2
    centre = start
    for _ in range(_ROUNDS):
        # Student's weights: votes of pixels that show something else do not pull.
        far = ((place - centre) ** 2).sum(-1, keepdims=True) / _SPREAD_PX**2
        trust = precision / (1.0 + far)
        centre = (trust * place).sum(axis=0) / trust.sum(axis=0)
    share = trust / trust.sum(axis=0)
    radius_trust = weight / votes.radius_scale[near] ** 2
    radius_trust = radius_trust / radius_trust.sum()
    radius = float(radius_trust @ votes.radius[near])
    return Blob(
        outline_to_centre(centre, radius),
        (share * scale).sum(axis=0),
        radius,
        radius * float(radius_trust @ votes.radius_scale[near]),
        area,
        np.average(votes.color[near], axis=0, weights=weight),
    )
