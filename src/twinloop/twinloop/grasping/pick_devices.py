# SPDX-License-Identifier: Apache-2.0
"""What the pick loop needs of its cell, beside arm and gripper: eyes, scales, and a finder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.gripper import Grasp
from twinloop.motion.planner import Pose
from twinloop.perception.camera_model import CameraModel
from twinloop.resets.devices import Arm, Clock, Gripper, Safety

Array = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A depth image and where it was taken from.

    Attributes:
        stamp_s: of the exposure, on the clock of the loop.
        depth: [H, W], m; 0 is a hole.
        camera: whose image it is.
        rotation, position: from its optical frame into the arm's world [3, 3], [3].
    """

    stamp_s: float
    depth: NDArray[np.float32]
    camera: CameraModel
    rotation: Array
    position: Array

    def into_camera(self, points: Array) -> Array:
        """Return points [..., 3] of the world in the optical frame."""
        return (points - self.position) @ self.rotation


def merged(views: Sequence[View]) -> View:
    """Return one view of several by a camera that stands still: the newest, and for each pixel the
    median of the depths that were seen, or a hole where fewer than half of the images have one."""
    given = np.stack([view.depth for view in views])
    seen = np.where(given > 0.0, given, np.inf)
    # Of an even number of values the farther of the two in the middle: what is not there is near.
    count = np.isfinite(seen).sum(0)
    middle = np.minimum(count // 2, len(views) - 1)
    found = np.take_along_axis(np.sort(seen, axis=0), middle[None], axis=0)[0]
    depth = np.where(2 * count >= len(views), found, 0.0).astype(np.float32)
    return replace(views[-1], depth=depth)


@dataclass(frozen=True)
class WorldGrasp:
    """A planned grasp in the arm's world.

    Attributes:
        tips: where the middle between the finger tips shall be; z is the approach, y the way the
            fingers close.
        width_m: opening before they close.
        quality: as planned; NaN where none is told.
    """

    tips: Pose
    width_m: float
    quality: float


def into_world(grasp: Grasp, view: View) -> WorldGrasp:
    """Return a planned grasp in the arm's world."""
    position = view.rotation @ grasp.position + view.position
    # Rotations that were multiplied are made orthogonal again.
    left, _, right = np.linalg.svd(view.rotation @ grasp.rotation)
    return WorldGrasp(Pose(position, left @ right), grasp.width_m, grasp.quality)


class Eyes(Protocol):
    """The camera over the bin."""

    @property
    def complaint(self) -> str:
        """Why its newest image cannot be used; empty where it can."""

    def look(self, after_s: float) -> View | None:
        """Return the newest exposure later than that, None if there is none yet."""


class Scales(Protocol):
    """What the arm's own torques tell."""

    def force(self) -> Array:
        """Return the force of the outside on the tool [3], N, world; a weight points down."""


class Finder(Protocol):
    """What plans grasps."""

    def __call__(self, view: View, avoid: list[Array]) -> list[WorldGrasp]:
        """Return grasps, the best first, away from places [3] in the world.

        Raises:
            GraspRefused: by name.
        """


@dataclass(frozen=True)
class PickDevices:
    """All of them."""

    clock: Clock
    arm: Arm
    gripper: Gripper
    eyes: Eyes
    scales: Scales
    safety: Safety
