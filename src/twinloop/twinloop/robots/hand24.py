# SPDX-License-Identifier: Apache-2.0
"""A 24-joint anthropomorphic hand: two wrist joints, four fingers, a five-joint thumb.

Ranges follow the dimensions of the Shadow and Adroit hands. The order below is the order of the
command vector everywhere: contracts, twins, bags and drivers.
"""

from __future__ import annotations

import numpy as np

from twinloop.robots.base import Robot

# name: (lower [rad], upper [rad], cup pose [rad])
_JOINTS: dict[str, tuple[float, float, float]] = {
    "rh_WRJ2": (-0.524, 0.175, 0.013),
    "rh_WRJ1": (-0.698, 0.489, -0.398),
    "rh_FFJ4": (-0.349, 0.349, 0.345),
    "rh_FFJ3": (-0.262, 1.571, 0.056),
    "rh_FFJ2": (0.0, 1.571, 1.167),
    "rh_FFJ1": (0.0, 1.571, 0.041),
    "rh_MFJ4": (-0.349, 0.349, 0.265),
    "rh_MFJ3": (-0.262, 1.571, -0.136),
    "rh_MFJ2": (0.0, 1.571, 1.144),
    "rh_MFJ1": (0.0, 1.571, 0.045),
    "rh_RFJ4": (-0.349, 0.349, 0.074),
    "rh_RFJ3": (-0.262, 1.571, 0.139),
    "rh_RFJ2": (0.0, 1.571, 1.112),
    "rh_RFJ1": (0.0, 1.571, 0.234),
    "rh_LFJ5": (0.0, 0.785, 0.0),
    "rh_LFJ4": (-0.349, 0.349, -0.345),
    "rh_LFJ3": (-0.262, 1.571, 0.0),
    "rh_LFJ2": (0.0, 1.571, 1.25),
    "rh_LFJ1": (0.0, 1.571, 0.152),
    "rh_THJ5": (-1.047, 1.047, -0.021),
    "rh_THJ4": (0.0, 1.222, 0.374),
    "rh_THJ3": (-0.209, 0.209, 0.094),
    "rh_THJ2": (-0.524, 0.524, 0.126),
    "rh_THJ1": (0.0, 1.571, 0.536),
}


# Tips of thumb, index and middle finger about a pencil, found by inverse kinematics, in rad.
_TRIPOD = (
    *(0.0, 0.0),
    *(-0.137, 0.533, 0.828, 1.021),
    *(0.107, 0.668, 0.835, 1.105),
    *(0.0, 0.655, 0.785, 0.785),
    *(0.393, 0.0, 0.655, 0.785, 0.785),
    *(0.364, 0.947, 0.156, 0.178, 0.714),
)


def _column(index: int) -> np.ndarray:
    return np.array([row[index] for row in _JOINTS.values()], dtype=np.float64)


HAND24 = Robot(
    name="hand24",
    joint_names=tuple(_JOINTS),
    lower=_column(0),
    upper=_column(1),
    velocity=np.full(len(_JOINTS), 3.3),
    acceleration=np.full(len(_JOINTS), 100.0),
    jerk=np.full(len(_JOINTS), 10_000.0),
    poses={"cup": _column(2), "tripod": np.array(_TRIPOD)},
)
JOINT_NAMES = HAND24.joint_names
