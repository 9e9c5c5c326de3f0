# SPDX-License-Identifier: Apache-2.0
"""What the planner is compared with: a top-down heuristic, and the sampler without a network."""

from __future__ import annotations

import cv2
import numpy as np

from twinloop.grasping import surface
from twinloop.grasping.candidates import LOWEST_TIP_M
from twinloop.grasping.gripper import Array, Gripper
from twinloop.grasping.heights import RESOLUTION_M, HeightMap
from twinloop.grasping.planner import GraspPlanner
from twinloop.grasping.refusals import GraspRefused, Reason

_STEP_M = 0.008  # neighbouring cells of one thing differ by less
_DEEP_M = 0.025
_CLEARANCE_M = 0.008


def top_down(scene: HeightMap, gripper: Gripper, avoid: list[Array], avoid_m: float) -> Array:
    """Return one grasp [5]: at the highest point, across the principal axis of what is there.

    What is there is flooded from the highest point, in steps of less than 8 mm.

    Raises:
        GraspRefused: everything is to be avoided.
    """
    height = np.where(scene.is_target, scene.heights, 0.0).astype(np.float32)
    rows, columns = np.mgrid[: height.shape[0], : height.shape[1]]
    x, y = (rows_or_columns * RESOLUTION_M + start for rows_or_columns, start in (
        (columns, scene.origin[0]), (rows, scene.origin[1])))  # fmt: skip
    tips = scene.into_camera(np.stack([x, y, height.astype(np.float64)], -1))
    for place in avoid:
        height[np.linalg.norm(tips - place, axis=-1) < avoid_m] = 0.0
    if height.max() <= LOWEST_TIP_M:
        raise GraspRefused(Reason.NO_GRASP, "everything that rises is to be avoided")
    row, column = np.unravel_index(int(height.argmax()), height.shape)
    flood = np.zeros((height.shape[0] + 2, height.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | (255 << 8)
    cv2.floodFill(height.copy(), flood, (int(column), int(row)), 0, _STEP_M, _STEP_M, flags)
    is_thing = (flood[1:-1, 1:-1] > 0) & (height > LOWEST_TIP_M)
    is_thing[row, column] = True
    points = np.stack([x[is_thing], y[is_thing]], 1)
    middle = points.mean(0)
    _, _, principal = np.linalg.svd(points - middle, full_matrices=False)
    closing = principal[-1] if len(points) > 2 else np.array([1.0, 0.0])
    along = (points - middle) @ closing
    low, high = np.percentile(along, [1, 99])
    middle = middle + (low + high) / 2 * closing
    width = min(high - low + 2 * _CLEARANCE_M, gripper.opening_m)
    angle = np.mod(np.arctan2(closing[1], closing[0]), np.pi)
    tip = max(float(height[row, column]) - _DEEP_M, LOWEST_TIP_M)
    return np.array([*middle, angle, tip, max(width, 0.01)])


def first_antipodal(
    scene: HeightMap,
    gripper: Gripper,
    rng: np.random.Generator,
    avoid: list[Array],
    avoid_m: float,
) -> Array:
    """Return the first antipodal grasp [5] that does not collide; raises as the planner does."""
    grasps, _ = GraspPlanner(None, gripper=gripper).search(scene, rng, avoid, avoid_m)
    return grasps[0]


def collides(scene: HeightMap, grasp: Array, gripper: Gripper) -> bool:
    """Return whether a grasp [5] collides with the observed surface."""
    found = surface.penetration(scene, grasp[None], gripper)[0]
    return bool(found > surface.TOLERANCE_M)
