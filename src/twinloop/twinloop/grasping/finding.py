# SPDX-License-Identifier: Apache-2.0
"""Finds grasps in a view of the bin: what lies inside, piece by piece, and the planner's grasps."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping import heights
from twinloop.grasping.bins import inside
from twinloop.grasping.gripper import Array, Grasp
from twinloop.grasping.pick_devices import View, WorldGrasp, into_world
from twinloop.grasping.pick_settings import PickSettings
from twinloop.grasping.planner import GraspPlanner
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.grasping.segmentation import segment, shipped
from twinloop.perception.camera_model import CameraModel

# Returns labels [H, W] of things, 0 for the background, from depths [H, W], m, the camera, and
# where things are looked for [H, W].
Segment = Callable[[NDArray[np.float32], CameraModel, NDArray[np.bool_]], NDArray[np.uint16]]


class BinFinder:
    """A `Finder` with the grasp planner.

    Of grasps that touch one and the same thing with both fingers and of those that do not, the
    former come first: two things that are lifted at once are easily lost.

    Args:
        planner: of grasps.
        settings: of the bin that is cleared, and when it is empty.
        segment: tells things apart; None where all that lies in the bin counts alike.
    """

    def __init__(
        self,
        planner: GraspPlanner,
        settings: PickSettings,
        segment: Segment | None = None,
    ) -> None:
        self._planner = planner
        self._settings = settings
        self._segment = segment
        self._seed = 0

    def __call__(self, view: View, avoid: list[Array]) -> list[WorldGrasp]:
        """See `Finder`; no two calls draw alike, so that the same view may be looked at again."""
        mask = bin_mask(view, self._settings)
        self._seed += 1
        grasps = self._planner.plan(
            view.depth,
            view.camera,
            mask,
            self._seed,
            [view.into_camera(place) for place in avoid],
            self._settings.grasp.avoid_m,
        )
        if self._segment is not None:
            labels = self._segment(view.depth, view.camera, mask)
            grasps.sort(key=lambda grasp: not _is_of_one(grasp, view, labels))
        return [into_world(grasp, view) for grasp in grasps]


def shipped_segment() -> Segment | None:
    """Return what tells things apart by the shipped network; None where none is shipped."""
    return segment if shipped().network is not None else None


def bin_mask(view: View, settings: PickSettings) -> NDArray[np.bool_]:
    """Return the pixels [H, W] of the bin that is cleared.

    Raises:
        GraspRefused: `EMPTY_SCENE`, where nothing in it is as large as things are; and as
            `heights.build` does.
    """
    look = settings.look
    mask = inside(settings.source, view.camera, view.rotation, view.position, look.inset_m)
    seen = heights.build(view.depth, view.camera, mask)
    _, _, about, _ = cv2.connectedComponentsWithStats(seen.is_target.astype(np.uint8))
    largest_m2 = max(about[1:, cv2.CC_STAT_AREA], default=0) * heights.RESOLUTION_M**2
    if largest_m2 < look.least_m2:
        raise GraspRefused(
            Reason.EMPTY_SCENE,
            f"the largest thing that rises in the bin covers {largest_m2 * 1e4:.1f} cm², expected "
            f"at least {look.least_m2 * 1e4:.1f}",
        )
    return mask


def _is_of_one(grasp: Grasp, view: View, labels: NDArray[np.uint16]) -> bool:
    """Return whether both contacts are seen on the same thing; within a pixel of one counts."""
    pixels = np.rint(view.camera.project(grasp.contacts)).astype(int)
    seen = [
        set(np.unique(labels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]).tolist())
        for column, row in np.maximum(pixels, 0).tolist()
    ]
    return bool((seen[0] & seen[1]) - {0})
