# SPDX-License-Identifier: Apache-2.0
"""Parallel-jaw grasps from above, as rows of numbers and as poses, and the gripper's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Columns of a grasp [N, 5] in a height map's frame: middle between the pads [m], the direction in
# which they close, of a half turn [rad], height of the tips [m], opening between the pads [m].
X, Y, ANGLE, TIP, WIDTH = range(5)


@dataclass(frozen=True)
class Gripper:
    """Sizes of a parallel gripper, m; by default those of Franka's hand.

    Attributes:
        opening_m: largest distance of the pads.
        finger_width_m: of a finger, across the direction of closing.
        finger_thickness_m: of a finger, along it.
        finger_length_m: from the tips to the palm.
        pad_height_m: of the part of a finger that grips, from its tip.
        palm_m: of the palm, along and across the direction of closing.
    """

    opening_m: float = 0.08
    finger_width_m: float = 0.02
    finger_thickness_m: float = 0.012
    finger_length_m: float = 0.05
    pad_height_m: float = 0.018
    palm_m: tuple[float, float] = (0.2, 0.06)


FRANKA_HAND = Gripper()


def axes(grasps: Array) -> tuple[Array, Array]:
    """Return the unit directions of closing and across it [N, 2] each, in the map's plane."""
    cosine, sine = np.cos(grasps[:, ANGLE]), np.sin(grasps[:, ANGLE])
    return np.stack([cosine, sine], 1), np.stack([-sine, cosine], 1)


@dataclass(frozen=True)
class Grasp:
    """One planned grasp, in the camera's optical frame.

    Attributes:
        rotation: [3, 3]; its columns are x, across the fingers, y, the direction in which they
            close, and z, the approach, as of Franka's hand.
        position: of the middle between the finger tips when they have closed [3], m.
        width_m: opening between the pads before they close.
        depth_m: how far the tips are below the highest point between the pads.
        quality: probability that the grasp holds, 0 to 1.
        contacts: where the pads will touch [2, 3], m.
    """

    rotation: Array
    position: Array
    width_m: float
    depth_m: float
    quality: float
    contacts: Array
