# SPDX-License-Identifier: Apache-2.0
"""Things without a network: what rises above the plane, parted where its surface steps."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.heights import LEAST_HEIGHT_M
from twinloop.grasping.segmentation.image import Canvas, Mask

_STEP_M = 0.006
_LEAST_CELLS = 40


def clusters(found: Canvas, allowed: Mask) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Return labels [240, 320], 0 for no thing, and scores [K]: shares of the largest.

    Neighbours less than a step apart belong together, which is Euclidean clustering on the grid of
    the image; cells at steps then join the nearest cluster.
    """
    above = np.where(found.is_seen, found.heights, 0.0).astype(np.float32)
    rises = allowed & found.is_seen & (above > LEAST_HEIGHT_M)
    around = np.ones((3, 3), np.uint8)
    is_even = (cv2.dilate(above, around) - cv2.erode(above, around)) < _STEP_M
    core = (rises & is_even).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(core, connectivity=4, ltype=cv2.CV_32S)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")
    kept = order[areas[order] >= _LEAST_CELLS]
    labels = np.zeros(above.shape, np.uint16)
    if not len(kept):
        return labels, np.zeros(0)
    number = np.zeros(len(areas), np.uint16)
    number[kept] = np.arange(1, len(kept) + 1)
    cores = number[parts]
    _, nearest = cv2.distanceTransformWithLabels(
        (cores == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Labels of the transform number the pixels of clusters; what each of them belongs to:
    belongs = np.zeros(int(nearest.max()) + 1, np.uint16)
    inside = cores > 0
    belongs[nearest[inside]] = cores[inside]
    labels[rises] = belongs[nearest[rises]]
    return labels, areas[kept] / areas[kept[0]]
