# SPDX-License-Identifier: Apache-2.0
"""Depth images of boxes on a table, computed without an engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from twinloop.perception.camera_model import CameraModel

DISTANCE_M = 0.7


def camera(focal: float = 525.0, size: tuple[int, int] = (640, 480)) -> CameraModel:
    k = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1.0]])
    p = np.column_stack([k, np.zeros(3)])
    return CameraModel("depth", size, k, np.zeros(5), np.eye(3), p)


def table(
    boxes: list[tuple[float, float, float, float, float]],
    tilt_rad: float = 0.0,
    model: CameraModel | None = None,
) -> NDArray[np.float32]:
    """Return the depth of a table, tilted about the camera's x axis, with boxes on it.

    A box is the place of its middle, its sizes along the image's axes, and its height, m.
    """
    model = model or camera()
    width, height = model.size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = model.rays(np.stack([u, v], -1).astype(float))
    normal = np.array([0.0, -np.sin(tilt_rad), -np.cos(tilt_rad)])
    along = np.array([1.0, 0.0, 0.0])
    aside = np.cross(along, normal)
    foot = np.array([0.0, 0.0, DISTANCE_M])
    depth = (normal @ foot) / (rays @ normal)
    for x, y, size_x, size_y, top in boxes:
        # Each of the box's faces from above: enough where its sides are seen at a grazing angle.
        for level in np.linspace(top, 0.0, 12):
            at = (normal @ foot + level) / (rays @ normal)
            place = rays * at[..., None] - foot
            inside = np.abs(place @ along - x) < size_x / 2
            inside &= np.abs(place @ aside - y) < size_y / 2
            depth = np.where(inside & (at < depth), at, depth)
    return depth.astype(np.float32)
