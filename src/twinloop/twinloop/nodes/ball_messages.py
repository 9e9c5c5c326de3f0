# SPDX-License-Identifier: Apache-2.0
"""Balls as messages."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray

from twinloop_interfaces.msg import TrackedBall, TrackedBallArray

Array = NDArray[np.float64]


def tracked_balls(
    frame: str,
    position: Array,
    velocity: Array,
    covariance: Array,
    visible_fraction: Array,
    stale: NDArray[np.bool_],
) -> TrackedBallArray:
    """Tracked balls, still without a stamp.

    Args:
        frame: of the positions.
        position, velocity: [B, 3], m and m/s.
        covariance: of both [B, 6, 6].
        visible_fraction: [B], 0 to 1.
        stale: no evidence any more [B].
    """
    message = TrackedBallArray()
    message.header.frame_id = frame
    for index in range(len(position)):
        ball = ball_message(index, position[index], velocity[index])
        ball.covariance = covariance[index].reshape(36)
        ball.visible_fraction = float(visible_fraction[index])
        ball.stale = bool(stale[index])
        message.balls.append(ball)
    return message


def ball_message(index: int, position: Array, velocity: Array) -> TrackedBall:
    """A ball at a place [3], m, with a velocity [3], m/s."""
    x, y, z = position.tolist()
    vx, vy, vz = velocity.tolist()
    return TrackedBall(id=index, position=Point(x=x, y=y, z=z), velocity=Vector3(x=vx, y=vy, z=vz))
