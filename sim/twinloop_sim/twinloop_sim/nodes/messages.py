# SPDX-License-Identifier: Apache-2.0
"""ROS messages of the twin node, from and to plain arrays."""

from __future__ import annotations

from array import array

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion
from rosgraph_msgs.msg import Clock
from twinloop.nodes import ball_messages
from twinloop.nodes.ball_messages import ball_message
from twinloop.nodes.joint_messages import Array, time_message

from twinloop_interfaces.msg import SceneState, TrackedBallArray
from twinloop_sim.nodes.guarded_cell import Balls
from twinloop_sim.twin import State


def clock_message(stamp_ns: int) -> Clock:
    return Clock(clock=time_message(stamp_ns))


def tracked_balls(frame: str, balls: Balls) -> TrackedBallArray:
    """Balls as the tracker delivered them, stamped with their exposure."""
    message = ball_messages.tracked_balls(
        frame,
        balls.position,
        balls.velocity,
        balls.covariance,
        balls.visible_fraction,
        balls.is_stale,
    )
    message.header.stamp = time_message(balls.stamp_ns)
    return message


def true_balls(frame: str, stamp_ns: int, position: Array, velocity: Array) -> TrackedBallArray:
    """Known balls: positions [B, 3], m, velocities [B, 3], m/s, without any covariance."""
    message = TrackedBallArray()
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = frame
    for index in range(len(position)):
        ball = ball_message(index, position[index], velocity[index])
        ball.visible_fraction = 1.0
        message.balls.append(ball)
    return message


def scene_state(stamp_ns: int, state: State, exposures_left: int) -> SceneState:
    """The true state of one scene, for its cameras: arm and fingers come after the hand."""
    message = SceneState(
        joint_position=array("d", state.joints.tobytes()), exposures_left=exposures_left
    )
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = "world"
    poses = np.concatenate([state.ball_position, state.ball_quaternion], axis=-1)
    for x, y, z, qw, qx, qy, qz in poses.tolist():
        place, turn = Point(x=x, y=y, z=z), Quaternion(x=qx, y=qy, z=qz, w=qw)
        message.objects.append(Pose(position=place, orientation=turn))
    return message


def true_poses(message: SceneState) -> tuple[Array, Array, Array]:
    """Joints [J], rad, positions [B, 3], m, and quaternions [B, 4], w first, of a scene."""
    place = [(p.position.x, p.position.y, p.position.z) for p in message.objects]
    turns = [pose.orientation for pose in message.objects]
    turn = [(q.w, q.x, q.y, q.z) for q in turns]
    return np.array(message.joint_position), np.array(place), np.array(turn)
