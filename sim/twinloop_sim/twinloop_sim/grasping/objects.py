# SPDX-License-Identifier: Apache-2.0
"""The objects of the twin and their fixed split: train, val, test, adversarial.

Half are shapes of our own, half are `random_urdfs` of the installed pybullet_data, read from there.
The split is by object, and depends on the object's name alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import coal
import numpy as np
from numpy.typing import NDArray

from twinloop_sim.grasping.parts import ADVERSARIAL, COMMON, Part

SPLITS = ("train", "val", "test", "adversarial")
OWN_OF_FAMILY = 100  # numbered objects of each common family
ADVERSARIAL_OF_FAMILY = 10
_RANDOM_COUNT = 1000
_MOST_PARTS = 12  # of a random shape; those with more collide slowly
_TOYS = {"lego": "train", "duck": "val", "teddy": "test", "mug": "test"}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """An object as convex parts about its centre of mass.

    Attributes:
        name: such as `brick/007` or `random/123`.
        parts: points and triangles of each part's hull [N, 3], m, and [M, 3].
        size_m: largest distance of a point from the centre.
    """

    name: str
    parts: tuple[tuple[Array, NDArray[np.int64]], ...]
    size_m: float


@lru_cache(maxsize=8)
def names(split: str) -> tuple[str, ...]:
    """Return the names of a split's objects, in a fixed order.

    Raises:
        ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if split == "adversarial":
        return tuple(f"{f.name}/{k:03d}" for f in ADVERSARIAL for k in range(ADVERSARIAL_OF_FAMILY))
    own = [f"{f.name}/{k:03d}" for f in COMMON for k in range(OWN_OF_FAMILY)]
    found = [f"random/{k:03d}" for k in range(_RANDOM_COUNT)]
    toys = [f"toy/{name}" for name, place in _TOYS.items() if place == split]
    return (*toys, *(name for name in own + found if _split_of(name) == split))


def _split_of(name: str) -> str:
    """80% train, 10% validation, 10% test, by the last digit."""
    return {"8": "val", "9": "test"}.get(name[-1], "train")


def make(name: str) -> Shape:
    """Return an object; the same for the same name.

    Raises:
        ValueError: there is no such object, it has too many parts to collide quickly, or points
            that are not finite (some of pybullet_data's).
    """
    family, _, number = name.partition("/")
    families = {one.name: one for one in (*COMMON, *ADVERSARIAL)}
    if family == "random":
        parts = _pybullet_parts(f"random_urdfs/{number}/{number}.obj", 0.011)
    elif family == "toy":
        file, scale = {
            "lego": ("lego/lego_vhacd.obj", 0.1),
            "duck": ("duck_vhacd.obj", 0.05),
            "teddy": ("teddy2_VHACD_CHs.obj", 0.06),
            "mug": ("objects/mug_col.obj", 0.7),
        }[number]
        parts = _pybullet_parts(file, scale)
    elif family in families:
        seed = [list(families).index(family), int(number)]
        parts = families[family].draw(np.random.default_rng(seed))
    else:
        raise ValueError(f"there is no object {name!r}")
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError(f"object {name} has points that are not finite")
    if family == "random" and len(parts) > _MOST_PARTS:
        raise ValueError(f"object {name} has {len(parts)} parts, expected at most {_MOST_PARTS}")
    return _shape(name, parts)


def _shape(name: str, parts: Sequence[Part]) -> Shape:
    hulls = [_hull(part) for part in parts]
    volumes, middles = zip(*(_mass(*hull) for hull in hulls), strict=True)
    # Parts that overlap count twice, which moves the centre a little, as in the physics engine.
    centre = np.average(middles, axis=0, weights=volumes)
    moved = tuple((points - centre, faces) for points, faces in hulls)
    size = max(float(np.linalg.norm(points, axis=1).max()) for points, _ in moved)
    return Shape(name, moved, size)


def _hull(points: Part) -> tuple[Array, NDArray[np.int64]]:
    cloud = coal.StdVec_Vec3s()
    for point in points:
        cloud.append(point)
    hull = coal.Convex.convexHull(cloud, True, "Qt")
    corners = np.array(hull.points())
    polygons = [hull.polygons(k) for k in range(hull.num_polygons)]
    faces = np.array([[one[0], one[1], one[2]] for one in polygons], dtype=np.int64)
    # Outward, for normals and for the volume.
    a, b, c = (corners[faces[:, k]] for k in range(3))
    outward = (np.cross(b - a, c - a) * (a - corners.mean(0))).sum(1) > 0
    faces[~outward] = faces[~outward][:, ::-1]
    return corners, faces


def _mass(points: Array, faces: NDArray[np.int64]) -> tuple[float, Array]:
    """Return volume and centre of a closed surface, by tetrahedra to its middle."""
    base = points.mean(0)
    a, b, c = (points[faces[:, k]] - base for k in range(3))
    volumes = np.einsum("ij,ij->i", np.cross(a, b), c) / 6
    total = float(volumes.sum())
    centre = base + (volumes[:, None] * (a + b + c)).sum(0) / 4 / total
    return total, centre


def _pybullet_parts(file: str, scale: float) -> list[Part]:
    """Return the connected pieces of a mesh of pybullet_data, each of which is convex."""
    import pybullet_data

    path = Path(pybullet_data.getDataPath()) / file
    points: list[list[float]] = []
    faces: list[list[int]] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            points.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            faces.append([int(word.partition("/")[0]) - 1 for word in words[1:]])
    corners, place = np.unique(np.round(points, 6), axis=0, return_inverse=True)
    piece = np.arange(len(corners))
    known = [place.ravel()[face] for face in faces]
    changed = True
    while changed:
        before = piece.copy()
        for face in known:
            piece[face] = piece[face].min()
        changed = bool((piece != before).any())
    used = np.unique(np.concatenate(known))
    return [
        corners[used[piece[used] == label]] * scale
        for label in np.unique(piece[used])
        if (piece[used] == label).sum() >= 4
    ]


def write_obj(shape: Shape, path: Path) -> None:
    """Write an object as the OBJ file that PyBullet makes one hull a part of."""
    lines, first = [], 1
    for number, (points, faces) in enumerate(shape.parts):
        lines.append(f"o part{number}")
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points]
        lines += [f"f {a} {b} {c}" for a, b, c in faces + first]
        first += len(points)
    path.write_text("\n".join(lines) + "\n")


class ObjectFiles:
    """OBJ files of objects, written once in a folder that goes with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="twinloop-objects-")
        self._known: dict[str, Shape] = {}

    def get(self, name: str) -> tuple[Shape, Path]:
        """Return an object and its file; raises ValueError as of `make`."""
        path = Path(self._folder.name) / (name.replace("/", "-") + ".obj")
        if name not in self._known:
            self._known[name] = make(name)
            write_obj(self._known[name], path)
        return self._known[name], path

    def close(self) -> None:
        self._folder.cleanup()
