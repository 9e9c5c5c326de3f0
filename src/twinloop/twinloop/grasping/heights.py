# SPDX-License-Identifier: Apache-2.0
"""Depth images as heights above the plane that things lie on.

A height map has the same scale whatever camera saw it, so that what is learned on it holds for
other intrinsics, distances and moderate tilts.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.perception.camera_model import CameraModel

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

RESOLUTION_M = 0.002
NEAR_M, FAR_M = 0.15, 3.0
LEAST_HEIGHT_M = 0.006  # what rises less above the plane may be noise
_MARGIN_M = 0.08  # around what rises: room for the hand
_MOST_CELLS = 500
_MOST_HEIGHT_M = 0.4
_LEAST_VALID = 0.02  # share of pixels with a depth
_LEAST_CELLS = 12  # that rise, for there to be an object
_PLANE_TRIES, _PLANE_POINTS = 300, 3000
_PLANE_BAND_M = 0.005
_LEAST_PLANE = 0.08  # share of points on the plane
_MOST_TILT = np.cos(np.radians(60.0))


@dataclass(frozen=True)
class HeightMap:
    """Heights over a plane.

    Attributes:
        heights: [H, W], m; row and column are y and x, unseen cells are filled.
        is_seen: [H, W].
        is_target: [H, W], cells whose things may be grasped.
        origin: x, y of the middle of cell (0, 0), m.
        rotation, translation: from the map's frame into the camera's optical frame [3, 3], [3].
            The map's z axis is the plane's normal, its x axis lies along the camera's.
    """

    heights: Floats
    is_seen: Mask
    is_target: Mask
    origin: tuple[float, float]
    rotation: Array
    translation: Array

    def cells(self, x: Array, y: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and columns of the cells that places lie in, at the border where outside."""
        column = np.rint((x - self.origin[0]) / RESOLUTION_M).astype(np.int64)
        row = np.rint((y - self.origin[1]) / RESOLUTION_M).astype(np.int64)
        height, width = self.heights.shape
        return np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)

    def at(self, x: Array, y: Array) -> Array:
        """Return heights at places, m."""
        return np.asarray(self.heights[self.cells(x, y)], dtype=np.float64)

    def into_camera(self, points: Array) -> Array:
        """Return points [..., 3] of the map's frame in the camera's optical frame."""
        return points @ self.rotation.T + self.translation


def check_depth(depth: NDArray[np.floating], camera: CameraModel) -> None:
    """Refuse images and intrinsics that cannot belong together.

    Raises:
        GraspRefused: another size than the camera's, hardly any depth, or focal lengths or a
            principal point that no camera of this size has.
    """
    if depth.ndim != 2 or depth.shape[::-1] != tuple(camera.size):
        raise GraspRefused(
            Reason.WRONG_INTRINSICS,
            f"the image is {depth.shape[::-1]} pixels, and camera_info is of {camera.size}",
        )
    width, height = camera.size
    fx, fy, cx, cy = (float(camera.k[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    if not (0.3 * width < fx < 5.0 * width and 0.8 < fx / fy < 1.25):
        raise GraspRefused(
            Reason.WRONG_INTRINSICS,
            f"focal lengths are {fx:.1f} and {fy:.1f} px, expected alike and {0.3 * width:.0f} to "
            f"{5 * width:.0f} px for {width} pixels",
        )
    if not (0.25 * width < cx < 0.75 * width and 0.25 * height < cy < 0.75 * height):
        raise GraspRefused(
            Reason.WRONG_INTRINSICS,
            f"principal point is ({cx:.1f}, {cy:.1f}) px, expected near the middle of "
            f"{width} x {height}",
        )
    with np.errstate(invalid="ignore"):
        share = float(np.mean((depth > NEAR_M) & (depth < FAR_M)))
    if share < _LEAST_VALID:
        raise GraspRefused(
            Reason.ALL_HOLES,
            f"{100 * share:.1f}% of the pixels have a depth of {NEAR_M} to {FAR_M} m, expected at "
            f"least {100 * _LEAST_VALID:.0f}%; is the image in metres?",
        )


def build(
    depth: NDArray[np.floating],
    camera: CameraModel,
    mask: Mask | None = None,
    rng: np.random.Generator | None = None,
) -> HeightMap:
    """Make a height map of a depth image.

    Args:
        depth: [H, W], m; what is not finite, or outside 0.15 to 3 m, is a hole.
        camera: whose image it is; its lens' distortion is taken out.
        mask: [H, W], pixels of things that may be grasped; all without.
        rng: for the search of the plane.

    Raises:
        GraspRefused: see `check_depth`; or no plane, or nothing that rises above it.
    """
    check_depth(depth, camera)
    if mask is not None and mask.shape != depth.shape:
        raise GraspRefused(
            Reason.BAD_MASK,
            f"the mask is {mask.shape[::-1]} pixels, and the image {depth.shape[::-1]}",
        )
    rng = rng or np.random.default_rng(0)
    with np.errstate(invalid="ignore"):
        is_valid = (depth > NEAR_M) & (depth < FAR_M)
    points = (pixel_rays(camera)[is_valid] * depth[is_valid][:, None]).astype(np.float32)
    allowed = np.ones(len(points), bool) if mask is None else mask[is_valid]
    normal, offset = support_plane(points, rng)
    rotation = _frame(normal)
    translation = -offset * normal  # the camera's foot on the plane
    local = (points - translation.astype(np.float32)) @ rotation.astype(np.float32)
    return _rasterise(local, allowed, rotation, translation)


_KNOWN_RAYS: dict[bytes, Floats] = {}


def pixel_rays(camera: CameraModel) -> Floats:
    """Return (x/z, y/z, 1) of every pixel [H, W, 3]; those of the last camera are kept."""
    key = camera.k.tobytes() + camera.d.tobytes() + np.array(camera.size).tobytes()
    if key not in _KNOWN_RAYS:
        _KNOWN_RAYS.clear()
        width, height = camera.size
        u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height))
        if camera.has_distortion:
            found = camera.rays(np.stack([u, v], -1))
        else:
            k = camera.k
            found = np.stack(
                [(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1
            )
        _KNOWN_RAYS[key] = found.astype(np.float32)
    return _KNOWN_RAYS[key]


def support_plane(points: Floats, rng: np.random.Generator) -> tuple[Array, float]:
    """Return normal and offset of the plane most points lie on: normal · p + offset is a height.

    RANSAC over triples (Fischler & Bolles 1981), then least squares over what is near. The normal
    points to the camera.

    Raises:
        GraspRefused: no plane that the camera looks down on has enough points.
    """
    some = points[rng.integers(len(points), size=_PLANE_POINTS)].astype(np.float64)
    a, b, c = (some[rng.integers(len(some), size=_PLANE_TRIES)] for _ in range(3))
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    keep = lengths > 1e-6
    normals, a = normals[keep] / lengths[keep][:, None], a[keep]
    normals *= -np.sign((normals * a).sum(1))[:, None]
    keep = -normals[:, 2] > _MOST_TILT
    normals, a = normals[keep], a[keep]
    if not len(normals):
        raise GraspRefused(Reason.NO_SUPPORT, "no plane faces the camera")
    offsets = -(normals * a).sum(1)
    near = np.abs(some @ normals.T + offsets) < _PLANE_BAND_M
    best = int(near.mean(0).argmax())
    normal, offset = normals[best], float(offsets[best])
    for _ in range(3):
        is_near = np.abs(some @ normal + offset) < _PLANE_BAND_M
        if is_near.mean() < _LEAST_PLANE:
            raise GraspRefused(
                Reason.NO_SUPPORT,
                f"the largest plane holds {100 * is_near.mean():.0f}% of the points, expected at "
                f"least {100 * _LEAST_PLANE:.0f}%",
            )
        middle = some[is_near].mean(0)
        normal = np.linalg.svd(some[is_near] - middle, full_matrices=False)[2][2]
        normal = -np.sign(normal @ middle) * normal
        offset = float(-normal @ middle)
    return normal, offset


def _frame(normal: Array) -> Array:
    x = np.array([1.0, 0.0, 0.0]) - normal[0] * normal
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(normal, x), normal], axis=1)


def _rasterise(local: Floats, allowed: Mask, rotation: Array, translation: Array) -> HeightMap:
    height = local[:, 2]
    rises = allowed & (height > LEAST_HEIGHT_M) & (height < _MOST_HEIGHT_M)
    if rises.sum() < _LEAST_CELLS:
        raise GraspRefused(
            Reason.EMPTY_SCENE,
            f"{int(rises.sum())} pixels rise {1e3 * LEAST_HEIGHT_M:.0f} mm or more above the "
            f"plane, expected at least {_LEAST_CELLS}",
        )
    low, high = np.percentile(local[rises, :2], [0.2, 99.8], axis=0)
    middle = (low + high) / 2
    half = np.minimum((high - low) / 2 + _MARGIN_M, _MOST_CELLS * RESOLUTION_M / 2)
    low = middle - half
    columns, rows = (int(n) for n in np.ceil(2 * half / RESOLUTION_M).astype(int) + 1)
    column = np.rint((local[:, 0] - low[0]) / RESOLUTION_M).astype(np.int32)
    row = np.rint((local[:, 1] - low[1]) / RESOLUTION_M).astype(np.int32)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    inside &= (height > -0.05) & (height < _MOST_HEIGHT_M)
    column, row, height, rises = column[inside], row[inside], height[inside], rises[inside]
    cell = row * columns + column
    order = np.argsort(height)  # of the points in one cell, the highest is written last
    highest = np.full(rows * columns, np.nan, np.float32)
    highest[cell[order]] = height[order]
    is_target = np.zeros(rows * columns, np.uint8)
    is_target[cell[rises]] = 1
    heights = highest.reshape(rows, columns)
    target = cv2.morphologyEx(is_target.reshape(rows, columns), cv2.MORPH_CLOSE, np.ones((3, 3)))
    is_seen = np.isfinite(heights)
    filled, is_seen = _fill(heights, is_seen)
    target_mask = (target > 0) & (filled > LEAST_HEIGHT_M)
    if target_mask.sum() < _LEAST_CELLS:
        raise GraspRefused(Reason.EMPTY_SCENE, "nothing larger than noise rises above the plane")
    origin = (float(low[0]), float(low[1]))
    return HeightMap(filled, is_seen, target_mask, origin, rotation, translation)


def _fill(heights: Floats, is_seen: Mask) -> tuple[Floats, Mask]:
    """Fill gaps between pixels, which count as seen, and take shadows and holes for the plane."""
    filled, seen = np.where(is_seen, heights, 0.0).astype(np.float32), is_seen.astype(np.float32)
    for _ in range(2):
        count = cv2.boxFilter(seen, -1, (3, 3), normalize=False)
        total = cv2.boxFilter(filled * seen, -1, (3, 3), normalize=False)
        gap = (seen == 0.0) & (count >= 4.0)
        filled[gap] = total[gap] / count[gap]
        seen[gap] = 1.0
    return np.asarray(cv2.medianBlur(filled, 3), np.float32), seen > 0.0
