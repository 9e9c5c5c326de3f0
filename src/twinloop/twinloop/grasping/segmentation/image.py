# SPDX-License-Identifier: Apache-2.0
"""Depth images made small, as heights above the plane that things lie on: what is segmented.

Heights take distance and tilt of the camera out, so that what is learned holds for others.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping import heights
from twinloop.perception.camera_model import CameraModel

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

WIDTH, HEIGHT = 320, 240
CHANNELS = 3
UNSEEN = np.iinfo(np.int16).min
STEP_M = 1e-4  # of stored heights
_LOW_M, _HIGH_M = -0.05, 0.4
_HEIGHT_SCALE_M, _CONTRAST_SCALE_M, _MOST_CONTRAST = 0.1, 0.01, 3.0
_AROUND_PX = 15


@dataclass(frozen=True)
class Canvas:
    """A depth image of 320 x 240 cells; what is smaller or less wide leaves the rest unseen.

    Attributes:
        heights: [240, 320], m; 0 where nothing was seen.
        is_seen: [240, 320].
        points: in the camera's optical frame [240, 320, 3], m; 0 where nothing was seen.
        rows, columns: the cell that each of the image's rows [H] and columns [W] lies in.
    """

    heights: Floats
    is_seen: Mask
    points: Floats
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    def reduced(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return an image [H, W] of the same camera in cells [240, 320]; 0 beyond it."""
        found = np.zeros((HEIGHT, WIDTH), pixels.dtype)
        some = pixels[_middles(self.rows)][:, _middles(self.columns)]
        found[: some.shape[0], : some.shape[1]] = some
        return found

    def enlarged(self, cells: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Return the cells' values [240, 320] for each of the image's pixels [H, W]."""
        return cells[self.rows][:, self.columns]


def canvas(
    depth: NDArray[np.floating], camera: CameraModel, rng: np.random.Generator | None = None
) -> Canvas:
    """Make a canvas of a depth image.

    Args:
        depth: [H, W], m; what is not finite, or outside 0.15 to 3 m, is a hole.
        camera: whose image it is; its lens' distortion is taken out of the heights.
        rng: for the search of the plane.

    Raises:
        GraspRefused: see `heights.check_depth`; or no plane.
    """
    heights.check_depth(depth, camera)
    rng = rng or np.random.default_rng(0)
    width, height = camera.size
    scale = max(width / WIDTH, height / HEIGHT)
    rows, columns = _cells(height, scale, HEIGHT), _cells(width, scale, WIDTH)
    down, across = _middles(rows), _middles(columns)
    pixels = np.ix_(down, across)
    small = depth[pixels]
    with np.errstate(invalid="ignore"):
        is_valid = (small > heights.NEAR_M) & (small < heights.FAR_M)
    points = heights.pixel_rays(camera)[pixels][is_valid] * small[is_valid][:, None]
    points = points.astype(np.float32)
    normal, offset = heights.support_plane(points, rng)
    is_seen = np.zeros((HEIGHT, WIDTH), bool)
    is_seen[: len(down), : len(across)] = is_valid
    above, places = np.zeros(is_seen.shape, np.float32), np.zeros((HEIGHT, WIDTH, 3), np.float32)
    above[is_seen] = np.clip(points @ normal.astype(np.float32) + offset, _LOW_M, _HIGH_M)
    places[is_seen] = points
    return Canvas(above, is_seen, places, rows, columns)


def _cells(count: int, scale: float, most: int) -> NDArray[np.intp]:
    cells = ((np.arange(count) + 0.5) / scale).astype(np.intp)
    return np.minimum(cells, min(most, max(round(count / scale), 1)) - 1)


def _middles(cells: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the pixel in the middle of each cell, nearest to it where cells are finer."""
    numbers = np.arange(cells[-1] + 1)
    first = np.searchsorted(cells, numbers, "left")
    last = np.searchsorted(cells, numbers, "right") - 1
    return np.clip((first + last) // 2, 0, len(cells) - 1)


def stored(found: Canvas) -> NDArray[np.int16]:
    """Return heights as they are kept on disk [240, 320], in 0.1 mm; unseen ones are `UNSEEN`."""
    steps = np.rint(found.heights / STEP_M).astype(np.int16)
    return np.where(found.is_seen, steps, np.int16(UNSEEN))


def features(above: Floats, is_seen: Mask) -> Floats:
    """Return what the network sees [3, 240, 320]: height, contrast with what is around, holes."""
    seen = is_seen.astype(np.float32)
    known = above * seen
    size = (_AROUND_PX, _AROUND_PX)
    total = cv2.boxFilter(known, -1, size, normalize=False)
    count = cv2.boxFilter(seen, -1, size, normalize=False)
    contrast = (known - total / np.maximum(count, 1.0)) * seen / _CONTRAST_SCALE_M
    return np.stack(
        [
            known / _HEIGHT_SCALE_M,
            np.clip(contrast, -_MOST_CONTRAST, _MOST_CONTRAST),
            1.0 - seen,
        ]
    ).astype(np.float32)
