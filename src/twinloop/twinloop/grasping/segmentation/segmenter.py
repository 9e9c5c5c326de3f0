# SPDX-License-Identifier: Apache-2.0
"""Segments depth images of heaps: each pixel's thing, by the network or without one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.grasping.segmentation import weights
from twinloop.grasping.segmentation.clusters import clusters
from twinloop.grasping.segmentation.grouping import GroupingSettings, group
from twinloop.grasping.segmentation.image import Canvas, Mask, canvas, features
from twinloop.grasping.segmentation.network import SegmentNetwork
from twinloop.paths import share
from twinloop.perception.camera_model import CameraModel


@dataclass(frozen=True)
class Segments:
    """The things of an image.

    Attributes:
        labels: [H, W], 1 to K in the order of their scores; 0 for everything else, and for holes.
        scores: how sure each is a thing of its own [K], 0 to 1, falling.
    """

    labels: NDArray[np.uint16]
    scores: NDArray[np.float64]

    def mask(self, label: int) -> Mask:
        """Return the pixels of one thing [H, W], as the grasp planner takes them."""
        return np.asarray(self.labels == label)


class Segmenter:
    """Segments depth images.

    Args:
        network: says what belongs together; None for clusters parted by steps of the surface.
    """

    def __init__(
        self, network: SegmentNetwork | None, settings: GroupingSettings | None = None
    ) -> None:
        self.network = network
        self.settings = settings or GroupingSettings()

    def segment(
        self, depth: NDArray[np.floating], camera: CameraModel, region: Mask | None = None
    ) -> Segments:
        """Return the things of an image; none of an empty scene.

        Args:
            depth: [H, W], m; what is not finite, or outside 0.15 to 3 m, is a hole.
            camera: whose image it is.
            region: [H, W], where things are looked for; everywhere without.

        Raises:
            GraspRefused: no camera has this image, hardly any depth, no plane that things lie on,
                or a region of another size.
        """
        found = canvas(depth, camera)
        if region is not None and region.shape != depth.shape:
            raise GraspRefused(
                Reason.BAD_MASK,
                f"the region is {region.shape[::-1]} pixels, and the image {depth.shape[::-1]}",
            )
        allowed = np.ones(found.heights.shape, bool)
        if region is not None:
            allowed = found.reduced(region.astype(bool)).astype(bool)
        labels, scores = self.cells(found, allowed)
        shown = found.enlarged(labels)
        with np.errstate(invalid="ignore"):
            shown[~(np.isfinite(depth) & (depth > 0.0))] = 0
        if region is not None:
            shown[~region.astype(bool)] = 0
        return Segments(shown, scores)

    def cells(self, found: Canvas, allowed: Mask) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
        """Return labels [240, 320] and scores [K] of a canvas."""
        if self.network is None:
            return clusters(found, allowed)
        with torch.inference_mode():
            seen = torch.from_numpy(features(found.heights, found.is_seen))
            return group(self.network(seen[None]), allowed, self.settings)


def segment(
    depth_m: NDArray[np.floating],
    intrinsics: CameraModel | NDArray[np.floating],
    region: Mask | None = None,
) -> NDArray[np.uint16]:
    """Return labels [H, W] of a depth image [H, W], m, by what is shipped; see `Segmenter`.

    Args:
        intrinsics: the camera, or its matrix [3, 3] where there is no distortion.
    """
    if not isinstance(intrinsics, CameraModel):
        intrinsics = _camera(depth_m, intrinsics)
    return shipped().segment(depth_m, intrinsics, region).labels


def _camera(depth: NDArray[np.floating], k: NDArray[np.floating]) -> CameraModel:
    matrix = np.asarray(k, dtype=np.float64)
    if depth.ndim != 2 or matrix.shape != (3, 3):
        raise GraspRefused(
            Reason.WRONG_INTRINSICS,
            f"the image is {list(depth.shape)} and K {list(matrix.shape)}, expected [H, W] and "
            "[3, 3]",
        )
    p = np.column_stack([matrix, np.zeros(3)])
    size = (depth.shape[1], depth.shape[0])
    try:
        return CameraModel("depth", size, matrix, np.zeros(5), np.eye(3), p)
    except ValueError as error:
        raise GraspRefused(Reason.WRONG_INTRINSICS, str(error)) from error


@lru_cache(maxsize=1)
def shipped() -> Segmenter:
    """Return the segmenter with the shipped network, or without one where none is shipped."""
    try:
        folder = share("models", "segmentation")
    except FileNotFoundError:
        return Segmenter(None)
    return Segmenter(weights.load(folder)[0])
