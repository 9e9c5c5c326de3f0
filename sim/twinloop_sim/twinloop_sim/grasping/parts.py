# SPDX-License-Identifier: Apache-2.0
"""Shapes of our own, as unions of convex parts drawn from a seed.

PyBullet collides convex hulls, so that what is seen and what is touched are the same solids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Part = Array  # points whose convex hull is the part [N, 3], m


@dataclass(frozen=True)
class Family:
    """A kind of shape, and how its parts are drawn."""

    name: str
    draw: Callable[[np.random.Generator], list[Part]]


def box(size: Array, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Part:
    """Return the corners of a box."""
    corners = np.array(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5])).reshape(3, -1).T
    return corners * size + np.array(at)


def prism(
    radii: tuple[float, float],
    height: float,
    corners: int = 20,
    at: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Part:
    """Return a prism, cone or frustum about z: radii of its bottom and top."""
    turn = 2 * np.pi * np.arange(corners) / corners
    ring = np.stack([np.cos(turn), np.sin(turn), np.zeros(corners)], 1)
    ends = [radius * ring + [0, 0, z] for radius, z in zip(radii, (-0.5, 0.5), strict=True)]
    ends = [end * [1, 1, height] for end in ends]
    return np.concatenate(ends) + np.array(at)


def ellipsoid(size: Array, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Part:
    """Return points of an ellipsoid with these diameters."""
    i = np.arange(120) + 0.5
    z, turn = 1 - 2 * i / 120, np.pi * (1 + np.sqrt(5.0)) * i
    flat = np.sqrt(1 - z**2)
    sphere = np.stack([flat * np.cos(turn), flat * np.sin(turn), z], 1)
    return sphere * size / 2 + np.array(at)


def _brick(rng: np.random.Generator) -> list[Part]:
    return [box(np.sort(rng.uniform([0.02, 0.025, 0.04], [0.05, 0.06, 0.12])))]


def _can(rng: np.random.Generator) -> list[Part]:
    radius = rng.uniform(0.014, 0.032)
    return [prism((radius, radius), rng.uniform(0.03, 0.12))]


def _rod(rng: np.random.Generator) -> list[Part]:
    radius = rng.uniform(0.006, 0.012)
    return [prism((radius, rng.uniform(0.7, 1.0) * radius), rng.uniform(0.05, 0.13), 12)]


def _bottle(rng: np.random.Generator) -> list[Part]:
    wide, height = rng.uniform(0.018, 0.03), rng.uniform(0.05, 0.09)
    neck = rng.uniform(0.3, 0.6) * wide
    return [
        prism((wide, wide), height),
        prism((wide, neck), 0.015, at=(0, 0, height / 2 + 0.0075)),
        prism((neck, neck), 0.025, at=(0, 0, height / 2 + 0.0275)),
    ]


def _egg(rng: np.random.Generator) -> list[Part]:
    return [ellipsoid(rng.uniform(0.03, [0.06, 0.06, 0.09]))]


def _hammer(rng: np.random.Generator) -> list[Part]:
    long, thick = rng.uniform(0.07, 0.14), rng.uniform(0.012, 0.025)
    head = rng.uniform([0.015, 0.04, 0.015], [0.03, 0.07, 0.035])
    return [box(np.array([long, thick, thick])), box(head, (long / 2, 0.0, 0.0))]


def _angle(rng: np.random.Generator) -> list[Part]:
    a, b = rng.uniform(0.05, 0.1, 2)
    thick, deep = rng.uniform(0.012, 0.025), rng.uniform(0.015, 0.045)
    return [
        box(np.array([a, thick, deep])),
        box(np.array([thick, b, deep]), ((a - thick) / 2, b / 2, 0.0)),
    ]


def _cross(rng: np.random.Generator) -> list[Part]:
    a, b = rng.uniform(0.05, 0.11, 2)
    thick, deep = rng.uniform(0.012, 0.03, 2)
    return [box(np.array([a, thick, deep])), box(np.array([thick, b, deep]))]


def _dumbbell(rng: np.random.Generator) -> list[Part]:
    bar, long = rng.uniform(0.007, 0.014), rng.uniform(0.05, 0.1)
    ball = rng.uniform(0.025, 0.05)
    ends = [ellipsoid(np.full(3, ball), (0, 0, side * long / 2)) for side in (-1, 1)]
    return [prism((bar, bar), long), *ends]


def _ring(rng: np.random.Generator) -> list[Part]:
    radius, thick = rng.uniform(0.022, 0.05), rng.uniform(0.008, 0.014)
    height, count = rng.uniform(0.012, 0.04), 12
    parts = []
    for k in range(count):
        turn = 2 * np.pi * np.array([k, k + 1]) / count
        rim = np.stack([np.cos(turn), np.sin(turn)], 1)
        flat = np.concatenate([rim * radius, rim * (radius - thick)])
        parts.append(
            np.concatenate([np.column_stack([flat, np.full(4, z * height)]) for z in (-0.5, 0.5)])
        )
    return parts


def _plate(rng: np.random.Generator) -> list[Part]:
    return [box(rng.uniform([0.06, 0.05, 0.008], [0.11, 0.075, 0.014]))]


def _pyramid(rng: np.random.Generator) -> list[Part]:
    base = rng.uniform(0.04, 0.075)
    top = rng.uniform(0.1, 0.45) * base
    corners = int(rng.integers(3, 7))
    return [prism((base / 1.6, top / 1.6), rng.uniform(0.03, 0.07), corners)]


def _wedge(rng: np.random.Generator) -> list[Part]:
    part = box(rng.uniform([0.06, 0.04, 0.03], [0.1, 0.07, 0.05]))
    part[part[:, 2] > 0, 1] *= rng.uniform(0.1, 0.5)
    part[part[:, 0] > 0, 1] *= rng.uniform(0.4, 1.0)
    return [part]


def _ball(rng: np.random.Generator) -> list[Part]:
    return [ellipsoid(np.full(3, rng.uniform(0.058, 0.07)))]


def _lens(rng: np.random.Generator) -> list[Part]:
    wide = rng.uniform(0.045, 0.07)
    return [ellipsoid(np.array([wide, wide, rng.uniform(0.02, 0.03)]))]


def _twisted(rng: np.random.Generator) -> list[Part]:
    corners, radius = int(rng.integers(3, 5)), rng.uniform(0.025, 0.038)
    part = prism((radius, radius), rng.uniform(0.04, 0.08), corners)
    turn, top = rng.uniform(0.4, 0.9), part[:, 2] > 0
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    part[top, :2] = part[top, :2] @ rotation.T
    return [part]


COMMON = (
    Family("brick", _brick),
    Family("can", _can),
    Family("rod", _rod),
    Family("bottle", _bottle),
    Family("egg", _egg),
    Family("hammer", _hammer),
    Family("angle", _angle),
    Family("cross", _cross),
    Family("dumbbell", _dumbbell),
    Family("ring", _ring),
)
# Flat, tapered, round or nearly as wide as the gripper opens: few grasps hold.
ADVERSARIAL = (
    Family("plate", _plate),
    Family("pyramid", _pyramid),
    Family("wedge", _wedge),
    Family("ball", _ball),
    Family("lens", _lens),
    Family("twisted", _twisted),
)
