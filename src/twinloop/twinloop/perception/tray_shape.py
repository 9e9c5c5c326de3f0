# SPDX-License-Identifier: Apache-2.0
"""Where tray and tray camera stand and what the tray's channel is like, as the URDF has it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from twinloop.robots.description import cell_urdf
from twinloop.robots.kinematics import fixed_transform
from twinloop.robots.rotations import matrix_from_rpy
from twinloop.robots.shapes import Box

Array = NDArray[np.float64]

CAMERA_LINK = "tray_camera_optical"
_ASIDE_M = 0.010  # that a ball's centre may be off the channel's middle


@dataclass(frozen=True)
class TrayShape:
    """A channel with a floor like a flat V.

    Attributes:
        pose: of the tray's frame [4, 4], world: x against the flow, y across, z off the floor.
        end_m: where the end board's face is, along x.
        mouth_m: where the floor begins, along x.
        slope_rad: of each half of the floor, across.
        edges: upper edges of walls and end board [E, 2, 3], m, world.
        camera: pose of the camera's optical frame [4, 4], world.
    """

    pose: Array
    end_m: float
    mouth_m: float
    slope_rad: float
    edges: Array
    camera: Array

    def height_m(self, radius_m: float) -> float:
        """Return how high over the V's bottom a ball's centre lies."""
        return float(radius_m / np.cos(self.slope_rad))

    def first(self, radius_m: float) -> Array:
        """Return where the ball at the end board lies [3], m, world."""
        return self._to_world(np.array([self.end_m + radius_m, 0.0, self.height_m(radius_m)]))

    def places(self, radius_m: float, step_m: float, across_m: Sequence[float]) -> Array:
        """Return centres of balls in the channel [K, 3], m, world, on a grid."""
        along = np.arange(self.end_m + radius_m - 0.006, self.mouth_m, step_m)
        x, y = np.meshgrid(along, np.asarray(across_m), indexing="ij")
        z = np.full(x.size, self.height_m(radius_m))
        return self._to_world(np.stack([x.ravel(), y.ravel(), z], axis=-1))

    def along(self, point: Array) -> float:
        """Return where a world point is along the channel, m."""
        return float(self._to_tray(point)[0])

    def holds(self, point: Array, radius_m: float) -> bool:
        """Whether a ball with its centre at a world point lies in the channel."""
        x, y, _ = self._to_tray(point)
        return bool(self.end_m + 0.7 * radius_m < x < self.mouth_m and abs(y) < _ASIDE_M)

    def on_floor(self, eye: Array, ray: Array, radius_m: float) -> Array:
        """Return where a ray [3] from a world point meets the centres of balls on the floor."""
        normal = self.pose[:3, 2]
        height = self.height_m(radius_m) - normal @ (eye - self.pose[:3, 3])
        result: Array = eye + ray * (height / (normal @ ray))
        return result

    def _to_world(self, points: Array) -> Array:
        return np.asarray(points @ self.pose[:3, :3].T + self.pose[:3, 3])

    def _to_tray(self, points: Array) -> Array:
        return np.asarray((points - self.pose[:3, 3]) @ self.pose[:3, :3])


@lru_cache(maxsize=2)
def tray_shape(side: str = "right") -> TrayShape:
    """Read the cell's URDF.

    Raises:
        ValueError: an unknown side, or a tray that is not two floors, walls and an end board.
    """
    urdf = cell_urdf(side)
    floors, walls = (_boxes(urdf, link) for link in ("tray", "tray_walls"))
    if len(floors) != 2 or not walls:
        raise ValueError(
            f"the URDF's tray has {len(floors)} floors and {len(walls)} walls, expected 2 floors "
            "and at least an end board"
        )
    pose = fixed_transform(urdf, "world", "tray")
    # The end board is the wall that reaches furthest across.
    board = max(walls, key=lambda wall: np.ptp(wall.corners[:, 1]))
    normal = np.linalg.svd(floors[0].corners - floors[0].corners.mean(axis=0))[2][2]
    edges = np.concatenate([_upper_edges(wall) for wall in walls])
    return TrayShape(
        pose,
        float(board.corners[:, 0].max()),
        float(floors[0].corners[:, 0].max()),
        float(np.arctan2(abs(normal[1]), abs(normal[2]))),
        edges @ pose[:3, :3].T + pose[:3, 3],
        fixed_transform(urdf, "world", CAMERA_LINK),
    )


def _boxes(urdf: str, link: str) -> list[Box]:
    found = []
    for collision in ElementTree.fromstring(urdf).findall(f"link[@name='{link}']/collision"):
        origin, box = collision.find("origin"), collision.find("geometry/box")
        if origin is None or box is None:
            raise ValueError(f"link {link} has a shape that is no box with an origin")
        half = np.array([float(edge) / 2 for edge in box.attrib["size"].split()])
        place = np.array([float(part) for part in origin.attrib["xyz"].split()])
        turn = matrix_from_rpy(np.array([float(part) for part in origin.attrib["rpy"].split()]))
        signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3, indexing="ij"), axis=-1)
        found.append(Box(link, place + (signs.reshape(8, 3) * half) @ turn.T))
    return found


def _upper_edges(box: Box) -> Array:
    """Return the four edges [4, 2, 3] of a box's upper face."""
    upper = box.corners[np.argsort(box.corners[:, 2])[4:]]
    middle = upper.mean(axis=0)
    angle = np.arctan2(upper[:, 1] - middle[1], upper[:, 0] - middle[0])
    ring = upper[np.argsort(angle)]
    return np.stack([ring, np.roll(ring, -1, axis=0)], axis=1)
