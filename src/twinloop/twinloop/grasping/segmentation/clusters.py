# SPDX-License-Identifier: Apache-2.0
"""Things without a network: what rises above the plane, parted where its surface steps."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.heights import LEAST_HEIGHT_M
from twinloop.grasping.segmentation.image import HEIGHT, WIDTH, Canvas, Mask

_STEP_M = 0.006
LEAST_CELLS = 40  # of a thing
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
    parts = np.asarray(cv2.connectedComponents(grid, connectivity=4)[1], np.int64)
    labels, areas = largest_first(parts[::2, ::2])
    for _ in range(_FRAYED):
        grown = np.asarray(cv2.dilate(labels, np.ones((3, 3), np.uint8)), np.uint16)
        labels = np.where(rises & (labels == 0), grown, labels)
    return labels, areas / areas.max(initial=1.0)


def largest_first(
    parts: NDArray[np.integer], least_cells: int = LEAST_CELLS
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Return labels by size, [H, W] -> [H, W], 0 for none and for small parts, and sizes [K]."""
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")
    kept = order[areas[order] >= least_cells]
    number = np.zeros(len(areas), np.uint16)
    number[kept] = np.arange(1, len(kept) + 1)
    return number[parts], areas[kept].astype(np.float64)
