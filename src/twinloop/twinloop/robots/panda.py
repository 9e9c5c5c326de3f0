# SPDX-License-Identifier: Apache-2.0
"""Franka's seven-joint arm (Panda), limits as published for its control interface.

"Robot and interface specifications" of Franka's FCI documentation, limits in joint space. The
gripper is a device of its own: its fingers are no part of the command vector.
"""

from __future__ import annotations

import numpy as np

from twinloop.robots.base import Robot

# name: lower, upper [rad], velocity [rad/s], acceleration [rad/s^2], jerk [rad/s^3]
_JOINTS: dict[str, tuple[float, float, float, float, float]] = {
    "panda_joint1": (-2.8973, 2.8973, 2.175, 15.0, 7500.0),
    "panda_joint2": (-1.7628, 1.7628, 2.175, 7.5, 3750.0),
    "panda_joint3": (-2.8973, 2.8973, 2.175, 10.0, 5000.0),
    "panda_joint4": (-3.0718, -0.0698, 2.175, 12.5, 6250.0),
    "panda_joint5": (-2.8973, 2.8973, 2.61, 15.0, 7500.0),
    "panda_joint6": (-0.0175, 3.7525, 2.61, 20.0, 10_000.0),
    "panda_joint7": (-2.8973, 2.8973, 2.61, 20.0, 10_000.0),
}
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
FINGER_TRAVEL_M = 0.04  # of each finger; the gripper opens twice as wide


def _column(index: int) -> np.ndarray:
    return np.array([row[index] for row in _JOINTS.values()], dtype=np.float64)


PANDA = Robot(
    name="panda",
    joint_names=tuple(_JOINTS),
    lower=_column(0),
    upper=_column(1),
    velocity=_column(2),
    acceleration=_column(3),
    jerk=_column(4),
    poses={"ready": np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])},
)
