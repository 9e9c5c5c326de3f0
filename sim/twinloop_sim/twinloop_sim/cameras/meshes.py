# SPDX-License-Identifier: Apache-2.0
"""Triangles of round shapes, the same for every renderer."""

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


def capsule(radius: float, half: float, columns: int, rows: int) -> Mesh:
    """Return a capsule along z around the origin, or a ball, painted by directions.

    Corners stand as far outside of the true shape as the middles of edges are inside of it, so
    that silhouettes are of the true size on average.

    Args:
        radius: m.
        half: half the distance between the centres of its ends, m.
        columns: corners around the axis.
        rows: of triangles from end to end; even.

    Returns:
        A mesh with a texture by latitude, from +z down, and longitude.
    """
    step = np.pi / columns
    upper = np.linspace(0.0, np.pi / 2, rows // 2 + 1)
    # A ball has its equator once, a capsule at either end.
    polar = np.concatenate([upper, np.pi - upper[::-1][0 if half else 1 :]])
    along = np.where(np.arange(len(polar)) <= rows // 2, half, -half)
    around = np.linspace(0.0, 2.0 * np.pi, columns + 1)
    theta, phi = np.meshgrid(polar, around, indexing="ij")
    normals = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
    )
    texels = np.stack([phi / (2.0 * np.pi), theta / np.pi], axis=-1).reshape(-1, 2)
    # The mean of a flat edge's distance from the axis, over half of it, is sin(step) / step.
    points = radius * step / np.sin(step) * normals
    points[..., 2] += along[:, None]
    first = np.arange(len(polar) - 1)[:, None] * (columns + 1) + np.arange(columns)
    below = first + columns + 1
    # At the poles one triangle of each two would have no area.
    right = np.stack([first, below, first + 1], axis=-1)[1:]
    left = np.stack([first + 1, below, below + 1], axis=-1)[:-1]
    faces = np.concatenate([right.reshape(-1, 3), left.reshape(-1, 3)]).astype(np.int32)
    return Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), texels, faces)


def ball(radius: float, fineness: int = 1) -> Mesh:
    """Return a ball that is fine enough to be measured in small images, or finer."""
    return capsule(radius, 0.0, 24 * fineness, 12 * fineness)
