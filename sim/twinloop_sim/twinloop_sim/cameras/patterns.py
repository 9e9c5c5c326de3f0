# SPDX-License-Identifier: Apache-2.0
"""Patterns on surfaces: functions of a place, so that every renderer draws the same ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TEXELS = 64  # edge of a texture


def _plain(p: Array, _rng: np.random.Generator) -> Array:
    return np.zeros(p.shape[:-1])


def _halves(p: Array, _rng: np.random.Generator) -> Array:
    return (p[..., 2] > 0.0).astype(float)


def _bands(p: Array, rng: np.random.Generator) -> Array:
    return (np.sin(rng.uniform(4.0, 9.0) * p[..., 2]) > 0.0).astype(float)


def _rings(p: Array, rng: np.random.Generator) -> Array:
    return 0.5 + 0.5 * np.sin(rng.uniform(6.0, 12.0) * np.hypot(p[..., 0], p[..., 1]))


def _checks(p: Array, rng: np.random.Generator) -> Array:
    cells = np.floor(rng.uniform(1.5, 3.0) * p + 0.5).astype(int)
    return (cells.sum(axis=-1) % 2).astype(float)


def _speckles(p: Array, rng: np.random.Generator) -> Array:
    spots = rng.normal(size=(40, 3))
    spots /= np.linalg.norm(spots, axis=-1, keepdims=True)
    distance = np.linalg.norm(p[..., None, :] - spots, axis=-1)
    return (distance.min(axis=-1) < rng.uniform(0.10, 0.25)).astype(float)


def _swirl(p: Array, rng: np.random.Generator) -> Array:
    turn = np.arctan2(p[..., 1], p[..., 0]) * rng.integers(2, 5) + 4.0 * p[..., 2]
    return 0.5 + 0.5 * np.sin(turn)


def _cloud(p: Array, rng: np.random.Generator) -> Array:
    total = np.zeros(p.shape[:-1])
    for octave in (2.0, 4.0, 8.0, 16.0):
        for _ in range(3):
            total += np.sin(octave * p @ rng.normal(size=3) + rng.uniform(0, 6.3)) / octave
    return np.clip(0.5 + 0.5 * total, 0.0, 1.0)


def _planks(p: Array, rng: np.random.Generator) -> Array:
    across = rng.uniform(3.0, 6.0) * p[..., 0]
    grain = 0.3 * np.sin(30.0 * p[..., 0] + 6.0 * np.sin(3.0 * p[..., 1]))
    return np.clip(0.4 + grain + 0.5 * (across % 1.0 < 0.06), 0.0, 1.0)


PATTERNS: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "plain": _plain,
    "halves": _halves,
    "bands": _bands,
    "rings": _rings,
    "checks": _checks,
    "speckles": _speckles,
    "swirl": _swirl,
    "cloud": _cloud,
    "planks": _planks,
}


def sphere_directions(rows: int = TEXELS, columns: int = 2 * TEXELS) -> Array:
    """Directions [rows, columns, 3] of a map by latitude (from +z down) and longitude."""
    polar = (np.arange(rows) + 0.5) / rows * np.pi
    around = (np.arange(columns) + 0.5) / columns * 2.0 * np.pi
    ring = np.sin(polar)[:, None]
    height = np.broadcast_to(np.cos(polar)[:, None], (rows, columns))
    return np.stack([ring * np.cos(around), ring * np.sin(around), height], axis=-1)


def plane_points(edge: int = 4 * TEXELS) -> Array:
    """Points [edge, edge, 3] of a floor from -1 to 1; rows go along y, columns along x."""
    along = 2.0 * (np.arange(edge) + 0.5) / edge - 1.0
    y, x = np.meshgrid(along, along, indexing="ij")
    return np.stack([x, y, np.zeros_like(x)], axis=-1)
