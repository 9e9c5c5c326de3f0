# SPDX-License-Identifier: Apache-2.0
"""The LEAP hand (Shaw, Agarwal and Pathak, RSS 2023): three fingers and a thumb, four joints each.

Sixteen Dynamixel XC330-M288 servos: 81 rpm without load at 5 V. The order below, that of the motor
ids 0 to 15, is the order of the command vector everywhere. Ranges are those of the hand's own
software, the thumb's where those of its published model are narrower; 0 is stretched out.
"""

from __future__ import annotations

import numpy as np

from twinloop.robots.base import Robot

# name: (lower [rad], upper [rad], half-closed pose [rad])
_FINGER: dict[str, tuple[float, float, float]] = {
    "rot": (-1.047, 1.047, 0.0),  # sideways
    "mcp": (-0.314, 2.23, 0.8),
    "pip": (-0.506, 1.885, 0.6),
    "dip": (-0.366, 2.042, 0.6),
}
_THUMB: dict[str, tuple[float, float, float]] = {
    "th_cmc": (-0.349, 2.094, 1.0),
    "th_axl": (-0.349, 2.094, 0.3),
    "th_mcp": (-0.47, 1.90, 0.3),
    "th_ipl": (-1.34, 1.88, 0.4),
}
_JOINTS = {
    f"{finger}_{joint}": row for finger in ("if", "mf", "rf") for joint, row in _FINGER.items()
} | _THUMB


def _column(index: int) -> np.ndarray:
    return np.array([row[index] for row in _JOINTS.values()], dtype=np.float64)


LEAP = Robot(
    name="leap",
    joint_names=tuple(_JOINTS),
    lower=_column(0),
    upper=_column(1),
    velocity=np.full(16, 6.0),
    acceleration=np.full(16, 100.0),
    jerk=np.full(16, 10_000.0),
    poses={"open": np.zeros(16), "half": _column(2)},
)
