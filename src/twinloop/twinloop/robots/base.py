# SPDX-License-Identifier: Apache-2.0
"""What every robot file states: joints, limits, poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Robot:
    """Joints of one robot, in the order of its command vector.

    All arrays have shape [J]. Positions in rad, velocities in rad/s, accelerations in rad/s²,
    jerks in rad/s³.
    """

    name: str
    joint_names: tuple[str, ...]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    velocity: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    jerk: NDArray[np.float64]
    poses: dict[str, NDArray[np.float64]]

    def __post_init__(self) -> None:
        joints = len(self.joint_names)
        if len(set(self.joint_names)) != joints:
            raise ValueError(f"robot {self.name}: joint names repeat: {self.joint_names}")
        arrays = {
            "lower": self.lower,
            "upper": self.upper,
            "velocity": self.velocity,
            "acceleration": self.acceleration,
            "jerk": self.jerk,
            **{f"pose {name}": pose for name, pose in self.poses.items()},
        }
        for name, array in arrays.items():
            if array.shape != (joints,):
                raise ValueError(
                    f"robot {self.name}: {name} has shape {array.shape}, expected ({joints},)"
                )
            array.setflags(write=False)
        for name, pose in self.poses.items():
            if np.any(pose < self.lower) or np.any(pose > self.upper):
                outside = [
                    joint
                    for joint, p, lo, hi in zip(
                        self.joint_names, pose, self.lower, self.upper, strict=True
                    )
                    if not lo <= p <= hi
                ]
                raise ValueError(f"robot {self.name}: pose {name} is outside limits at {outside}")
