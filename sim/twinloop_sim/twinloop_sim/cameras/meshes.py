# SPDX-License-Identifier: Apache-2.0
"""Triangles of a ball, for renderers whose own spheres are too coarse or cannot be painted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """Triangles with texture.

    Attributes:
        points, normals: [V, 3].
        texels: places in the texture [V, 2], 0 to 1, from its left and its upper edge.
        faces: indices of points [F, 3], counter-clockwise from outside.
    """

    points: Array
    normals: Array
    texels: Array
    faces: NDArray[np.int32]

    def save_obj(self, path: Path) -> None:
        """Write a Wavefront file."""
        u, v = self.texels.T
        lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in self.points]
        lines += [f"vt {a:.7g} {b:.7g}" for a, b in zip(u, 1.0 - v, strict=True)]
        lines += [f"vn {x:.7g} {y:.7g} {z:.7g}" for x, y, z in self.normals]
        corners = [[f"{i}/{i}/{i}" for i in face] for face in (self.faces + 1).tolist()]
        lines += [f"f {' '.join(face)}" for face in corners]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def ball(radius: float, columns: int = 24, rows: int = 12) -> Mesh:
    """Return a ball around the origin, its texture laid out by latitude (from +z) and longitude.

    Corners stand as far outside of the sphere as the middles of edges are inside of it, so that
    silhouettes are of the true size on average.
    """
    step = np.pi / columns
    polar = np.linspace(0.0, np.pi, rows + 1)
    around = np.linspace(0.0, 2.0 * np.pi, columns + 1)
    theta, phi = np.meshgrid(polar, around, indexing="ij")
    normals = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
    ).reshape(-1, 3)
    texels = np.stack([phi / (2.0 * np.pi), theta / np.pi], axis=-1).reshape(-1, 2)
    # Mean of cos over half an edge, sin(step) / step, is what flat edges take away.
    points = radius * step / np.sin(step) * normals
    first = np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)
    below = first + columns + 1
    upper = np.stack([first, below, first + 1], axis=-1)[1:]
    lower = np.stack([first + 1, below, below + 1], axis=-1)[:-1]
    faces = np.concatenate([upper.reshape(-1, 3), lower.reshape(-1, 3)]).astype(np.int32)
    return Mesh(points, normals, texels, faces)
