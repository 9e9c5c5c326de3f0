# SPDX-License-Identifier: Apache-2.0
"""Bins, and which pixels of a camera show their inside."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from twinloop.perception.camera_model import CameraModel

Array = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0.0)]


class Bin(BaseModel):
    """A bin that stands on the plane z = 0 of the world.

    Attributes:
        middle: x, y, m.
        size: inside, along x and y, m.
        height: of its walls, m.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    middle: tuple[float, float]
    size: tuple[Positive, Positive]
    height: Positive

    def holds(self, position: Array) -> bool:
        """Return whether a place [3], m, lies over the bin's floor."""
        off = np.abs(position[:2] - np.array(self.middle))
        return bool((off < np.array(self.size) / 2).all() and position[2] > -0.01)


def inside(
    box: Bin, camera: CameraModel, rotation: Array, position: Array, inset_m: float
) -> NDArray[np.bool_]:
    """Return the pixels [H, W] that show a bin's inside from its floor to the top of its walls.

    Args:
        camera: that sees it.
        rotation, position: from its optical frame into the world [3, 3], [3].
        inset_m: so far off the walls.
    """
    half = np.array(box.size) / 2 - inset_m
    corners = np.array(
        [[sx * half[0], sy * half[1], z] for z in (0.0, box.height) for sx in (-1, 1)
         for sy in (-1, 1)]
    )  # fmt: skip
    corners[:, :2] += box.middle
    pixels = camera.project((corners - position) @ rotation).astype(np.float32)
    width, height = camera.size
    shown = np.ones((height, width), np.uint8)
    for some in (pixels[:4], pixels[4:]):
        level = np.zeros_like(shown)
        cv2.fillConvexPoly(level, np.rint(cv2.convexHull(some)).astype(np.int32), 1)
        shown &= level
    return shown > 0
