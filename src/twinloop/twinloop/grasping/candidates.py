# SPDX-License-Identifier: Apache-2.0
"""Antipodal grasps from edges of a height map.

Two edge points are antipodal where the line between them lies in the friction cones at both
(Nguyen 1988, "Constructing force-closure grasps"); depth edges as contacts after Dex-Net 2.0
(Mahler et al. 2017, section V-B), here on heights instead of depths.
"""

from __future__ import annotations

import cv2
import numpy as np

from twinloop.grasping.gripper import Array, Gripper
from twinloop.grasping.heights import RESOLUTION_M, HeightMap

FRICTION = 0.6  # of the candidates' cones; the network judges what comes of it
LOWEST_TIP_M = 0.003  # above the plane
_SLOPE = 0.8  # that makes an edge
_MOST_EDGES = 900
_LEAST_WIDTH_M = 0.004
_CLEARANCE_M = (0.004, 0.012)  # on each side, drawn
_DEPTH_M = (0.008, 0.035)  # of the tips below the lower contact's top, drawn


def edges(scene: HeightMap) -> tuple[Array, Array]:
    """Return places of edge cells [N, 2], m, and unit directions uphill [N, 2]."""
    scale = 1.0 / (8.0 * RESOLUTION_M)
    slope_x = cv2.Sobel(scene.heights, cv2.CV_32F, 1, 0, scale=scale)
    slope_y = cv2.Sobel(scene.heights, cv2.CV_32F, 0, 1, scale=scale)
    slope = np.hypot(slope_x, slope_y)
    row, column = np.nonzero((slope > _SLOPE) & scene.is_target)
    place = np.stack([column, row], 1) * RESOLUTION_M + np.array(scene.origin)
    direction = np.stack([slope_x[row, column], slope_y[row, column]], 1).astype(np.float64)
    return place, direction / slope[row, column][:, None]


def sample(scene: HeightMap, gripper: Gripper, count: int, rng: np.random.Generator) -> Array:
    """Return up to `count` antipodal grasps [N, 5]; none where no two edges oppose each other."""
    place, uphill = edges(scene)
    if len(place) > _MOST_EDGES:
        chosen = rng.choice(len(place), _MOST_EDGES, replace=False)
        place, uphill = place[chosen], uphill[chosen]
    # Along i's uphill from i to j; for j likewise, it is the transposed.
    middle = place.mean(0)
    points, slopes = (place - middle).astype(np.float32), uphill.astype(np.float32)
    square = (points**2).sum(1)
    distance = np.sqrt(np.maximum(square[:, None] + square - 2 * points @ points.T, 0.0))
    along = slopes @ points.T - (slopes * points).sum(1)[:, None]
    # Opposed within both friction cones, and within what the gripper spans.
    is_inside = along >= np.float32(np.cos(np.arctan(FRICTION))) * distance
    fits = (distance > _LEAST_WIDTH_M) & (distance < gripper.opening_m - 2 * _CLEARANCE_M[0])
    first, second = np.nonzero(np.triu(fits & is_inside & is_inside.T))
    if not len(first):
        return np.zeros((0, 5))
    chosen = rng.choice(len(first), count, replace=len(first) < count)
    a, b = place[first[chosen]], place[second[chosen]]
    span = b - a
    width = np.hypot(span[:, 0], span[:, 1])
    unit = span / width[:, None]
    inward = np.minimum(0.003, width / 2)[:, None] * unit
    top_a = scene.at(*(a + inward).T)
    top_b = scene.at(*(b - inward).T)
    tip = np.minimum(top_a, top_b) - rng.uniform(*_DEPTH_M, size=count)
    opening = np.minimum(gripper.opening_m, width + 2 * rng.uniform(*_CLEARANCE_M, size=count))
    angle = np.mod(np.arctan2(span[:, 1], span[:, 0]), np.pi)
    return np.column_stack([(a + b) / 2, angle, np.maximum(tip, LOWEST_TIP_M), opening])
