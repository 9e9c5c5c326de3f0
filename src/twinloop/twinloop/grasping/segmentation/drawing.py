# SPDX-License-Identifier: Apache-2.0
"""Segments drawn for people."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.drawing import depth_picture

_PALETTE = np.array(
    [
        (230, 60, 60), (60, 160, 240), (70, 200, 90), (250, 180, 40), (170, 90, 230),
        (40, 210, 210), (240, 110, 190), (160, 200, 40), (255, 130, 60), (120, 130, 255),
    ],
    np.uint8,
)  # fmt: skip
_SHARE = 0.45  # of the colour, in a thing


def coloured(depth: NDArray[np.floating], labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return a depth image with each thing in a colour and outlined [H, W, 3], RGB."""
    picture = depth_picture(depth)
    inside = labels > 0
    colours = _PALETTE[(labels[inside].astype(np.int64) - 1) % len(_PALETTE)]
    mixed = (1 - _SHARE) * picture[inside] + _SHARE * colours
    picture[inside] = np.rint(mixed).astype(np.uint8)
    around = np.ones((3, 3), np.uint8)
    edge = inside & (cv2.erode(labels, around) != cv2.dilate(labels, around))
    picture[edge] = _PALETTE[(labels[edge].astype(np.int64) - 1) % len(_PALETTE)]
    return picture
