# SPDX-License-Identifier: Apache-2.0
"""Paths for a pencil: random strokes to learn from, and digits, each one stroke of our own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SPEED_M_S = 0.015  # largest, of random strokes
_REACH_M = 0.012  # random strokes stay about so near to where they began


def random_stroke(rng: np.random.Generator, steps: int, period_s: float) -> Array:
    """Return a smooth path [steps, 2], m, that begins at rest at the origin."""
    velocity = np.zeros(2)
    place = np.zeros(2)
    path = np.empty((steps, 2))
    for step in range(steps):
        pull = -place / _REACH_M * np.maximum(np.linalg.norm(place) / _REACH_M - 0.5, 0.0)
        velocity = 0.85 * velocity + _SPEED_M_S * (0.35 * rng.standard_normal(2) + 0.3 * pull)
        speed = np.linalg.norm(velocity)
        velocity = velocity * min(1.0, _SPEED_M_S / max(float(speed), 1e-9))
        place = place + period_s * velocity
        path[step] = place
    return path


def digit_stroke(digit: int, steps: int, height_m: float) -> Array:
    """Return a digit as a path [steps, 2], m, at constant speed from its first point, which is the
    origin.

    Raises:
        ValueError: not one of 0 to 9.
    """
    if digit not in range(10):
        raise ValueError(f"digit is {digit}, expected 0 to 9")
    points = height_m * _DIGITS[digit]()
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], lengths.cumsum()])
    wanted = np.linspace(0.0, along[-1], steps)
    path = np.stack([np.interp(wanted, along, points[:, axis]) for axis in (0, 1)], axis=1)
    return path - path[0]


def _arc(x: float, y: float, rx: float, ry: float, start_deg: float, end_deg: float) -> Array:
    angle = np.radians(np.linspace(start_deg, end_deg, 40))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _line(*points: tuple[float, float]) -> Array:
    return np.array(points, dtype=np.float64)


# In units of the digit's height; y grows upwards.
_DIGITS = {
    0: lambda: _arc(0.3, 0.5, 0.3, 0.5, 90, 450),
    1: lambda: _line((0.1, 0.75), (0.35, 1.0), (0.35, 0.0)),
    2: lambda: np.concatenate(
        [_arc(0.3, 0.72, 0.28, 0.28, 170, -40), _line((0.0, 0.0), (0.6, 0.0))]
    ),
    3: lambda: np.concatenate(
        [_arc(0.27, 0.75, 0.26, 0.25, 150, -90), _arc(0.27, 0.25, 0.3, 0.25, 90, -150)]
    ),
    4: lambda: _line((0.45, 0.0), (0.45, 1.0), (0.0, 0.3), (0.62, 0.3)),
    5: lambda: np.concatenate(
        [_line((0.55, 1.0), (0.08, 1.0), (0.05, 0.55)), _arc(0.27, 0.32, 0.3, 0.32, 125, -150)]
    ),
    6: lambda: np.concatenate(
        [_arc(0.55, 0.45, 0.53, 0.55, 95, 180), _arc(0.3, 0.28, 0.28, 0.28, 180, 540)]
    ),
    7: lambda: _line((0.0, 1.0), (0.6, 1.0), (0.2, 0.0)),
    8: lambda: np.concatenate(
        [
            _arc(0.3, 0.76, 0.24, 0.24, 90, 270),
            _arc(0.3, 0.26, 0.3, 0.26, 90, -270),
            _arc(0.3, 0.76, 0.24, 0.24, -90, 90),
        ]
    ),
    9: lambda: np.concatenate(
        [_arc(0.3, 0.72, 0.28, 0.28, 0, 360), _line((0.58, 0.72), (0.5, 0.0))]
    ),
}
