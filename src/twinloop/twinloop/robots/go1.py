# SPDX-License-Identifier: Apache-2.0
"""Unitree's quadruped Go1: four legs of three joints, in the order of its low-level interface.

Positions are those that the maker's SDK lets through, the hips' those of the published model where
it is narrower; velocities are the model's. 0 is a leg stretched straight down.
"""

from __future__ import annotations

import numpy as np

from twinloop.robots.base import Robot

# name: (lower [rad], upper [rad], velocity [rad/s], standing pose, lying pose [rad])
_LEG: dict[str, tuple[float, float, float, float, float]] = {
    "hip": (-0.863, 0.863, 30.1, 0.0, 0.0),
    "thigh": (-0.663, 2.966, 30.1, 0.8, 1.3),
    "calf": (-2.721, -0.888, 20.06, -1.6, -2.7),
}
_LEGS = ("FR", "FL", "RR", "RL")  # front and rear, right and left


def _column(index: int) -> np.ndarray:
    return np.array([row[index] for row in _LEG.values()] * len(_LEGS), dtype=np.float64)


GO1 = Robot(
    name="go1",
    joint_names=tuple(f"{leg}_{joint}_joint" for leg in _LEGS for joint in _LEG),
    lower=_column(0),
    upper=_column(1),
    velocity=_column(2),
    acceleration=np.full(12, 200.0),
    jerk=np.full(12, 20_000.0),
    poses={"stand": _column(3), "lie": _column(4)},
)
