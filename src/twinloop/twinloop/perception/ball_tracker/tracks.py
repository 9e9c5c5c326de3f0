# SPDX-License-Identifier: Apache-2.0
"""What a tracker tells about the balls, and a picture of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.camera_model import CameraModel

Array = NDArray[np.float64]

_COLORS = ((255, 96, 64), (64, 160, 255))  # RGB of ball 0 and ball 1
_STALE_COLOR = (150, 150, 150)


@dataclass(frozen=True)
class Tracks:
    """Two balls at the time of an exposure, in the palm frame.

    Attributes:
        stamp_s: of the exposure, s.
        position: [2, 3], m; NaN of a ball that was never seen. One that is stale is told where it
            was seen last.
        velocity: in the world, along the palm's axes [2, 3], m/s.
        covariance: of (position, velocity) [2, 6, 6], m and m/s.
        visible_fraction: part of the disc that the eye which sees less of it sees [2], 0 to 1.
        stale: no evidence for this position any more [2].
        in_left: the same balls in the left camera's optical frame [2, 3], m.
        left: the camera of that frame.
        radius_m: of the balls.
    """

    stamp_s: float
    position: Array
    velocity: Array
    covariance: Array
    visible_fraction: Array
    stale: NDArray[np.bool_]
    in_left: Array
    left: CameraModel
    radius_m: float


def annotate(left_rgb: NDArray[np.uint8], tracks: Tracks) -> NDArray[np.uint8]:
    """Return the left image [H, W, 3] with the balls' outlines, numbers and speeds drawn over it.

    Stale balls are grey and dashed where they were seen last; balls never seen are not drawn.
    """
    picture = np.ascontiguousarray(left_rgb).copy()
    for ball in range(2):
        point = tracks.in_left[ball]
        if not np.isfinite(point).all() or point[2] <= tracks.radius_m:
            continue
        stale = bool(tracks.stale[ball])
        outline = np.rint(_outline(tracks.left, point, tracks.radius_m)).astype(np.int32)
        color = _STALE_COLOR if stale else _COLORS[ball]
        for start in range(0, len(outline), 2):
            stop = start + (2 if stale else 3)
            arc = outline.take(range(start, stop), axis=0, mode="wrap")
            cv2.polylines(picture, [arc], False, color, 1, cv2.LINE_AA)
        speed = float(np.linalg.norm(tracks.velocity[ball]))
        text = f"{ball} lost" if stale else f"{ball} {100 * speed:.0f}cm/s"
        corner = outline.min(axis=0) - np.array([0, 3])
        place = (int(corner[0]), int(max(corner[1], 9)))
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.33, color, 1, cv2.LINE_AA)
    return picture


def _outline(camera: CameraModel, centre: Array, radius_m: float, count: int = 32) -> Array:
    """Return raw pixels [count, 2] of a sphere's outline: the circle where rays touch it."""
    distance = float(np.linalg.norm(centre))
    axis = centre / distance
    across = np.cross(axis, [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    angle = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)[:, None]
    around = np.cos(angle) * across + np.sin(angle) * np.cross(axis, across)
    sine = radius_m / distance
    middle = centre * (1.0 - sine**2)
    return camera.project(middle + radius_m * np.sqrt(1.0 - sine**2) * around)
