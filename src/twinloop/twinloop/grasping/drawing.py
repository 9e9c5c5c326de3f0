# SPDX-License-Identifier: Apache-2.0
"""Grasps drawn for people: over the depth image, and as line segments in space."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.gripper import Array, Grasp, Gripper
from twinloop.perception.camera_model import CameraModel

_HOLE = (40, 40, 40)


def colour(quality: float) -> tuple[int, int, int]:
    """Return red for 0 through yellow to green for 1, as RGB."""
    share = float(np.clip(quality, 0.0, 1.0))
    return int(255 * min(1.0, 2 - 2 * share)), int(220 * min(1.0, 2 * share)), 40


def depth_picture(depth: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return a depth image as grey pixels [H, W, 3], near ones bright; holes are dark."""
    is_seen = np.isfinite(depth) & (depth > 0)
    low, high = np.percentile(depth[is_seen], [1, 99]) if is_seen.any() else (0.0, 1.0)
    share = (high - np.where(is_seen, depth, high)) / max(float(high - low), 1e-3)
    grey = (60 + 180 * np.clip(share, 0, 1)).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[~is_seen] = _HOLE
    return picture


def annotate(
    depth: NDArray[np.floating], camera: CameraModel, grasps: Sequence[Grasp], most: int = 10
) -> NDArray[np.uint8]:
    """Return the depth image with the best grasps drawn into it, the very best thick [H, W, 3]."""
    picture = depth_picture(depth)
    for rank in range(min(most, len(grasps)) - 1, -1, -1):
        grasp = grasps[rank]
        thickness = 3 if rank == 0 else 1
        across, closing = grasp.rotation[:, 0], grasp.rotation[:, 1]
        ends = [grasp.position + side * grasp.width_m / 2 * closing for side in (-1, 1)]
        for end in ends:
            finger = np.stack([end - 0.01 * across, end + 0.01 * across])
            _line(picture, camera, finger, colour(grasp.quality), thickness)
        _line(picture, camera, np.stack(ends), colour(grasp.quality), 1)
        for x, y in np.nan_to_num(camera.project(grasp.contacts), nan=-1e4):
            cv2.circle(picture, (round(x), round(y)), 2, (60, 160, 255), -1)
    return picture


def _line(
    picture: NDArray[np.uint8],
    camera: CameraModel,
    points: Array,
    shade: tuple[int, int, int],
    thickness: int,
) -> None:
    pixels = camera.project(points)
    if np.isfinite(pixels).all() and (np.abs(pixels) < 1e5).all():
        (x0, y0), (x1, y1) = np.rint(pixels).astype(int).tolist()
        cv2.line(picture, (x0, y0), (x1, y1), shade, thickness, cv2.LINE_AA)


def outline(grasp: Grasp, gripper: Gripper) -> Array:
    """Return the gripper about a grasp as line segments [4, 2, 3], m: fingers, palm, stem."""
    closing, approach = grasp.rotation[:, 1], grasp.rotation[:, 2]
    left, right = (grasp.position + side * grasp.width_m / 2 * closing for side in (-1.0, 1.0))
    up = -gripper.finger_length_m * approach
    middle = grasp.position + up
    return np.array(
        [[left, left + up], [right, right + up], [left + up, right + up], [middle, middle + up]]
    )
