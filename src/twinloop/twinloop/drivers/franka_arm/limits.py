# SPDX-License-Identifier: Apache-2.0
"""Limits of the FR3, the arm that libfranka's present protocol speaks to.

Positions, velocities and how these shrink towards the ends of a joint's travel are those of the
robot model that the controller hands out (libfranka, `JointVelocityLimitsConfig`), accelerations
and jerks those of libfranka's `rate_limiting.h`. What leaves them is answered by a reflex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.robots.base import Robot

Array = NDArray[np.float64]

# lower, upper [rad], velocity [rad/s], offset [rad/s], deceleration [rad/s^2]
_JOINTS = np.array(
    [
        (-2.7501, 2.7501, 2.62, 0.30, 6.0),
        (-1.7918, 1.7918, 2.62, 0.20, 2.585),
        (-2.9065, 2.9065, 2.62, 0.20, 3.5),
        (-3.0481, -0.1458, 2.62, 0.30, 4.0),
        (-2.8101, 2.8101, 5.26, 0.35, 17.0),
        (0.54092, 4.5205, 4.18, 0.35, 5.5),
        (-3.0196, 3.0196, 5.26, 0.35, 17.0),
    ]
)
_LOWER, _UPPER, _VELOCITY, _OFFSET, _DECELERATION = _JOINTS.T
_ACCELERATION = 10.0  # rad/s^2, each joint
_JERK = 5000.0  # rad/s^3, each joint

_EDGE_RAD = 0.03  # kept from the ends, where no velocity at all is allowed
_VELOCITY_MARGIN = 0.10  # rad/s, of which the arm itself takes 0.031 for lost packets
# Of acceleration and jerk, for motions that are planned, and for what brings the arm back to them.
# The rest is for single precision, in which the arm says where it went by itself.
_GUARD_SHARE = 0.75
_LIMITER_ACCELERATION, _LIMITER_JERK = 0.9, 0.8


@dataclass(frozen=True)
class ArmLimits:
    """What setpoints a millisecond apart must keep to.

    Attributes:
        lower, upper: [7], rad; the arm's own.
        velocity: [7], rad/s.
        acceleration: [7], rad/s^2.
        jerk: [7], rad/s^3.
    """

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array
    jerk: Array

    def velocities(self, position: Array) -> tuple[Array, Array]:
        """Return the lowest and the highest velocity [..., 7], rad/s, at positions [..., 7], rad.

        libfranka's `min(v, -offset + sqrt(2 deceleration (upper - q)))`, with a margin, and with no
        more than the deceleration that is allowed here.
        """
        deceleration = 1.6 * np.minimum(_DECELERATION, 0.9 * self.acceleration)
        offset = _OFFSET + _VELOCITY_MARGIN
        up = np.sqrt(deceleration * np.maximum(self.upper - position, 0.0)) - offset
        down = np.sqrt(deceleration * np.maximum(position - self.lower, 0.0)) - offset
        top = self.velocity
        return -np.minimum(np.maximum(down, 0.0), top), np.minimum(np.maximum(up, 0.0), top)


LIMITS = ArmLimits(
    _LOWER,
    _UPPER,
    _VELOCITY - _VELOCITY_MARGIN,
    np.full(7, _LIMITER_ACCELERATION * _ACCELERATION),
    np.full(7, _LIMITER_JERK * _JERK),
)


def bounded(robot: Robot) -> Robot:
    """Return a robot of seven joints with limits that an FR3 keeps to as well.

    Raises:
        ValueError: it has other than seven joints.
    """
    if len(robot.joint_names) != 7:
        raise ValueError(f"a Franka arm has 7 joints, {robot.name} has {len(robot.joint_names)}")
    lower = np.maximum(robot.lower, _LOWER + _EDGE_RAD)
    upper = np.minimum(robot.upper, _UPPER - _EDGE_RAD)
    return Robot(
        name=robot.name,
        joint_names=robot.joint_names,
        lower=lower,
        upper=upper,
        velocity=np.minimum(robot.velocity, LIMITS.velocity),
        acceleration=np.minimum(robot.acceleration, _GUARD_SHARE * _ACCELERATION),
        jerk=np.minimum(robot.jerk, _GUARD_SHARE * _JERK),
        poses={name: np.clip(pose, lower, upper) for name, pose in robot.poses.items()},
    )
