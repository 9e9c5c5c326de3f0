# SPDX-License-Identifier: Apache-2.0
"""What a grasp meets on the observed surface: contacts between the pads, and collisions."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.gripper import TIP, WIDTH, Array, Gripper, X, Y, axes
from twinloop.grasping.heights import RESOLUTION_M, HeightMap

TOLERANCE_M = 0.003  # that the surface may reach above the tips, for noise
_TOUCH_M = 0.002  # what rises less above the tips is not touched
_LINES = (0.0, -0.2, 0.2, -0.4, 0.4)  # across a pad, shares of its width
_COVER = 0.02  # of a palm's coarse cells


@dataclass(frozen=True)
class Between:
    """What lies between the pads.

    Attributes:
        is_there: [N], whether anything is high enough to be touched.
        touch: where the two pads will touch it, along and across the direction of closing from the
            middle [N, 2, 2], m.
        top: its greatest height [N], m.
    """

    is_there: NDArray[np.bool_]
    touch: Array
    top: Array


def between(scene: HeightMap, grasps: Array, gripper: Gripper) -> Between:
    """Return what lies between the pads of grasps [N, 5].

    Cameras smear a steep side into a ramp and make things larger by about a pixel; so a pad touches
    where the surface reaches three quarters of what it covers of the thing, and a cell (half of it
    for where its middle is, half for that pixel) inwards of it. Where several lines across a pad
    touch within a cell, the one nearest to its middle counts.
    """
    closing, across = axes(grasps)
    steps = np.arange(-gripper.opening_m / 2, gripper.opening_m / 2 + 1e-9, RESOLUTION_M)
    sides = np.array(_LINES) * gripper.finger_width_m
    heights = _sample(scene.heights, scene, grasps, closing, across, steps, sides)
    inside = (np.abs(steps)[None] <= grasps[:, WIDTH, None] / 2)[:, :, None]
    above = np.where(inside, heights - grasps[:, TIP, None, None], -np.inf)
    top = above.max((1, 2))
    level = np.clip(0.75 * top, _TOUCH_M, 0.75 * gripper.pad_height_m)
    touched = above > level[:, None, None]
    is_there = touched.any((1, 2))
    pads = []
    for sign in (-1.0, 1.0):
        reach = np.where(touched, sign * steps[None, :, None], -np.inf).max(1)
        first = reach.max(1, keepdims=True)
        # Lines are in the order of their distance from the middle.
        line = (reach >= first - 1.5 * RESOLUTION_M).argmax(1)
        along = sign * (np.take_along_axis(reach, line[:, None], 1)[:, 0] - RESOLUTION_M)
        pads.append(np.stack([along, sides[line]], 1))
    touch = np.where(is_there[:, None, None], np.stack(pads, 1), 0.0)
    return Between(is_there, touch, top + grasps[:, TIP])


def penetration(scene: HeightMap, grasps: Array, gripper: Gripper) -> Array:
    """Return how far the observed surface reaches into fingers or palm [N], m; negative: free.

    Fingers come straight down, so all that stands higher than the tips under a finger is in the
    way, and all that stands higher than the palm under the palm.
    """
    closing, across = axes(grasps)
    grown = np.asarray(cv2.dilate(scene.heights, np.ones((3, 3))), np.float32)
    beside = np.linspace(0.15, 0.85, 4) * gripper.finger_thickness_m
    sides = np.linspace(-0.4, 0.4, 5) * gripper.finger_width_m
    worst = np.full(len(grasps), -np.inf)
    for sign in (-1.0, 1.0):
        start = sign * grasps[:, WIDTH, None] / 2
        found = _sample(grown, scene, grasps, closing, across, start + sign * beside[None], sides)
        worst = np.maximum(worst, found.max((1, 2)) - grasps[:, TIP])
    coarse = np.asarray(cv2.dilate(scene.heights, np.ones((11, 11))), np.float32)
    steps = np.arange(-gripper.palm_m[0] / 2, gripper.palm_m[0] / 2 + 1e-9, _COVER)
    sides = np.arange(-gripper.palm_m[1] / 2, gripper.palm_m[1] / 2 + 1e-9, _COVER)
    found = _sample(coarse, scene, grasps, closing, across, steps, sides).max((1, 2))
    return np.maximum(worst, found - grasps[:, TIP] - gripper.finger_length_m)


def _sample(
    values: NDArray[np.floating],
    scene: HeightMap,
    grasps: Array,
    closing: Array,
    across: Array,
    steps: Array,
    sides: Array,
) -> Array:
    """Return values at a grid about each grasp [N, S, T]; steps are [S] or [N, S]."""
    steps = np.broadcast_to(steps, (len(grasps), steps.shape[-1]))
    x, y = (
        grasps[:, column, None, None]
        + steps[:, :, None] * closing[:, axis, None, None]
        + sides[None, None] * across[:, axis, None, None]
        for column, axis in ((X, 0), (Y, 1))
    )
    return np.asarray(values[scene.cells(x, y)], dtype=np.float64)
