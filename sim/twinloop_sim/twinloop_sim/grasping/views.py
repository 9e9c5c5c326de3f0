# SPDX-License-Identifier: Apache-2.0
"""Scenes and what a depth camera sees of them: the same for data, benchmarks and the twin."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from twinloop.grasping.gripper import ANGLE, TIP, WIDTH, X, Y
from twinloop.grasping.heights import HeightMap

from twinloop_sim.grasping import objects
from twinloop_sim.grasping.depth_camera import DepthCamera, render
from twinloop_sim.grasping.depth_noise import NOISES
from twinloop_sim.grasping.labels import WorldGrasps
from twinloop_sim.grasping.scene import BIN_M, Scene, heap_count

Array = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A depth image, with what it is known by.

    Attributes:
        depth: as the camera gives it [H, W], m; 0 is a hole.
        mask: pixels inside the bin [H, W]; None on a table.
        camera: that saw it.
        bodies: what each pixel truly shows [H, W].
    """

    depth: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    camera: DepthCamera
    bodies: NDArray[np.int32]


def fill(scene: Scene, split: str, count: int, has_bin: bool, rng: np.random.Generator) -> None:
    """Drop `count` objects of a split onto a table or into a bin; at least one stays there."""
    known = objects.names(split)
    while not scene.items:
        scene.clear(has_bin)
        names: list[str] = []
        while len(names) < count:
            name = _kind(known, rng)
            try:
                scene.files.get(name)
            except ValueError:
                continue  # a random shape that is not fit
            names.append(name)
        scene.drop(names, rng, 0.5 if count > 1 else 0.3)


def _kind(known: tuple[str, ...], rng: np.random.Generator) -> str:
    """Draw an object: half of the time one of pybullet_data, where there are any."""
    foreign = [name for name in known if name.startswith(("random", "toy"))]
    own = [name for name in known if not name.startswith(("random", "toy"))]
    some = foreign if foreign and rng.random() < 0.5 else own
    return some[int(rng.integers(len(some)))]


def draw_heap(scene: Scene, split: str, rng: np.random.Generator) -> None:
    """Begin anew with a heap in a bin, or with one object or a heap on a table."""
    scene.items.clear()
    has_bin = bool(rng.random() < 0.6)
    count = 1 if rng.random() < 0.2 else heap_count(rng)
    fill(scene, split, count, has_bin, rng)


def look(scene: Scene, camera: DepthCamera, noise: str, rng: np.random.Generator) -> View:
    """Take a depth image of a scene.

    Args:
        noise: a key of `depth_noise.NOISES`.
    """
    depth, bodies = render(scene, camera)
    objects_only = np.where(np.isin(bodies, list(scene.items)), bodies, -1)
    seen = NOISES[noise](depth, objects_only, float(camera.camera.k[0, 0]), rng)
    return View(seen, _inside_bin(camera) if scene.has_bin else None, camera, bodies)


def _inside_bin(camera: DepthCamera) -> NDArray[np.bool_]:
    """Return pixels inside the bin's floor and above it: where a region would be configured."""
    x, y = BIN_M[0] / 2 - 0.004, BIN_M[1] / 2 - 0.004
    corners = np.array([[sx * x, sy * y, z] for z in (0.0, 0.05) for sx in (-1, 1)
                        for sy in (-1, 1)])  # fmt: skip
    floor, top = (
        cv2.convexHull(camera.camera.project(camera.into_camera(some)).astype(np.float32))
        for some in (corners[:4], corners[4:])
    )
    width, height = camera.camera.size
    region = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(region, np.rint(floor).astype(np.int32), 1)
    inner = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(inner, np.rint(top).astype(np.int32), 1)
    return (region > 0) & (inner > 0)


def into_world(grasps: Array, seen: HeightMap, camera: DepthCamera) -> WorldGrasps:
    """Return grasps [N, 5] of a height map in the world."""
    count = len(grasps)
    tips = np.column_stack([grasps[:, X], grasps[:, Y], grasps[:, TIP]])
    closing = np.column_stack([np.cos(grasps[:, ANGLE]), np.sin(grasps[:, ANGLE]), np.zeros(count)])
    approach = np.tile([0.0, 0.0, -1.0], (count, 1))
    frames = np.stack([np.cross(closing, approach), closing, approach], axis=2)
    rotation = camera.rotation @ seen.rotation @ frames
    return WorldGrasps(camera.into_world(seen.into_camera(tips)), rotation, grasps[:, WIDTH])
