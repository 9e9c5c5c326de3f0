# SPDX-License-Identifier: Apache-2.0
"""Things without a network: what rises above the plane, parted where its surface steps."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.heights import LEAST_HEIGHT_M
from twinloop.grasping.segmentation.image import HEIGHT, WIDTH, Canvas, Mask

_STEP_M = 0.006
_LEAST_CELLS = 40
_FRAYED = 2  # cells at a thing's edge that are parted from all, and join it


def clusters(found: Canvas, allowed: Mask) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Return labels [240, 320], 0 for no thing, and scores [K]: shares of the largest.

    Neighbours less than a step apart belong together, which is Euclidean clustering on the grid of
    the image; what is left over at their edges joins them.
    """
    above = found.heights
    rises = allowed & found.is_seen & (above > LEAST_HEIGHT_M)
    # A grid with a cell for each link between neighbours: what is connected there belongs together.
    grid = np.zeros((2 * HEIGHT - 1, 2 * WIDTH - 1), np.uint8)
    grid[::2, ::2] = rises
    grid[1::2, ::2] = rises[1:] & rises[:-1] & (np.abs(np.diff(above, axis=0)) < _STEP_M)
    grid[::2, 1::2] = rises[:, 1:] & rises[:, :-1] & (np.abs(np.diff(above, axis=1)) < _STEP_M)
    parts = cv2.connectedComponents(grid, connectivity=4)[1][::2, ::2]
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")
    kept = order[areas[order] >= _LEAST_CELLS]
    number = np.zeros(len(areas), np.uint16)
    number[kept] = np.arange(1, len(kept) + 1)
    labels = number[parts]
    for _ in range(_FRAYED):
        grown = np.asarray(cv2.dilate(labels, np.ones((3, 3), np.uint8)), np.uint16)
        labels = np.where(rises & (labels == 0), grown, labels)
    return labels, areas[kept] / max(int(areas.max()), 1)
