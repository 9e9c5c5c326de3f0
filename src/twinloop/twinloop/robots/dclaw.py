# SPDX-License-Identifier: Apache-2.0
"""A claw of three fingers over a table, after ROBEL's D'Claw (arXiv 1909.11639).

Nine Dynamixel XM430-W350 servos: 46 rpm without load at 12 V, 4.1 N m at stall. The order below is
the order of the command vector everywhere.
"""

from __future__ import annotations

import numpy as np

from twinloop.robots.base import Robot

_FINGERS = ("F1", "F2", "F3")
# of every finger: (lower [rad], upper [rad], raised pose [rad], pose about the valve [rad])
_JOINTS: dict[str, tuple[float, float, float, float]] = {
    "J1": (-0.8, 0.8, 0.0, 0.0),  # sideways
    "J2": (-1.5, 0.7, -1.0, -0.4),  # positive: towards the axis
    "J3": (-0.7, 1.7, 0.9, 0.8),
}


def _column(index: int) -> np.ndarray:
    return np.array([_JOINTS[j][index] for _ in _FINGERS for j in _JOINTS], dtype=np.float64)


DCLAW = Robot(
    name="dclaw",
    joint_names=tuple(f"{finger}{joint}" for finger in _FINGERS for joint in _JOINTS),
    lower=_column(0),
    upper=_column(1),
    velocity=np.full(9, 4.5),
    acceleration=np.full(9, 100.0),
    jerk=np.full(9, 10_000.0),
    poses={"raised": _column(2), "grasp": _column(3)},
)
