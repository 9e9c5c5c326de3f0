# SPDX-License-Identifier: Apache-2.0
"""What the quality network sees of a grasp: heights about it, turned into its direction.

The crop is aligned with the grasp and relative to the height of the finger tips, as depths are to
the gripper's in GQ-CNN (Mahler et al. 2017, section IV).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinloop.grasping.gripper import TIP, WIDTH, Array, Gripper, X, Y, axes
from twinloop.grasping.heights import HeightMap

ROWS, COLUMNS = 32, 48  # across and along the direction of closing
CELL_M = 0.0025
UNSEEN = 255
_STEP_M = 0.0006  # of a stored height
_LOWEST_M = -0.06
_SCALE_M = 0.04

Stored = NDArray[np.uint8]


def cut(scene: HeightMap, grasps: Array) -> Stored:
    """Return crops [N, 32, 48]: steps of 0.6 mm from 60 mm below the tips, 255 where unseen."""
    closing, across = axes(grasps)
    along = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * CELL_M
    aside = (np.arange(ROWS) - (ROWS - 1) / 2) * CELL_M
    x, y = (
        (grasps[:, column, None] + along * closing[:, axis, None])[:, None, :]
        + (aside * across[:, axis, None])[:, :, None]
        for column, axis in ((X, 0), (Y, 1))
    )
    cells = scene.cells(x, y)
    relative = scene.heights[cells] - grasps[:, TIP, None, None].astype(np.float32)
    stored = np.clip((relative - _LOWEST_M) / _STEP_M + 0.5, 0, UNSEEN - 1).astype(np.uint8)
    stored[~scene.is_seen[cells]] = UNSEEN
    return stored


def network_input(stored: Tensor, numbers: Tensor, gripper: Gripper) -> Tensor:
    """Return the network's input [N, 3, 32, 48]: heights, where they are seen, and the fingers.

    Args:
        stored: crops as of `cut` [N, 32, 48], uint8.
        numbers: tips' height and opening of the grasps [N, 2], m.
    """
    seen = (stored != UNSEEN).float()
    heights = (stored.float() * _STEP_M + _LOWEST_M) / _SCALE_M
    # Unseen cells are shown at the plane: the height of the tips above it is known.
    floor = (-numbers[:, 0] / _SCALE_M)[:, None, None].clamp(min=_LOWEST_M / _SCALE_M)
    heights = torch.where(seen > 0, heights, floor)
    along = (torch.arange(COLUMNS) - (COLUMNS - 1) / 2).abs() * CELL_M
    aside = (torch.arange(ROWS) - (ROWS - 1) / 2).abs() * CELL_M
    beyond = along[None] - numbers[:, 1, None] / 2
    # Edges of the fingers are soft over a cell, so that a width between two cells shows.
    inner = (beyond / CELL_M + 0.5).clamp(0.0, 1.0)
    outer = ((gripper.finger_thickness_m - beyond) / CELL_M + 0.5).clamp(0.0, 1.0)
    lateral = ((gripper.finger_width_m / 2 - aside) / CELL_M + 0.5).clamp(0.0, 1.0)
    fingers = (inner * outer)[:, None, :] * lateral[None, :, None]
    return torch.stack([heights, seen, fingers], 1)


def numbers(grasps: Array) -> NDArray[np.float32]:
    """Return what the network is told beside the crop: tips' height and opening [N, 2], m."""
    return grasps[:, [TIP, WIDTH]].astype(np.float32)
