# SPDX-License-Identifier: Apache-2.0
"""Messages of whatever has joints, a robot or a twin, from and to plain arrays."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from twinloop.safety.guard import CommandGuard
from twinloop_interfaces.msg import GuardStatus

Array = NDArray[np.float64]


def time_message(stamp_ns: int) -> Time:
    """ROS time from nanoseconds."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def nanoseconds(stamp: Time) -> int:
    """Nanoseconds from ROS time."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def joint_state(
    names: list[str],
    stamp_ns: int,
    position: Array,
    velocity: Array | None = None,
    effort: Array | None = None,
) -> JointState:
    """Joint positions [J], rad, velocities [J], rad/s, and efforts [J] at a time."""
    message = JointState(name=names, position=array("d", position.tobytes()))
    message.header.stamp = time_message(stamp_ns)
    if velocity is not None:
        message.velocity = array("d", velocity.tobytes())
    if effort is not None:
        message.effort = array("d", effort.tobytes())
    return message


def trajectory(names: list[str], stamp_ns: int, source: str, goal: Array) -> JointTrajectory:
    """A command of one point: targets [J], rad, from `source`."""
    point = JointTrajectoryPoint(positions=array("d", goal.tobytes()))
    message = JointTrajectory(joint_names=names, points=[point])
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = source
    return message


def rest(names: list[str], stamp_ns: int, source: str) -> JointTrajectory:
    """A command without a point: `source` wants the joints to come to rest at once."""
    message = JointTrajectory(joint_names=names)
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = source
    return message


def guard_status(guard: CommandGuard, stamp_ns: int) -> GuardStatus:
    """What a guard says of itself."""
    counters = guard.counters
    return GuardStatus(
        stamp=time_message(stamp_ns),
        state=int(guard.state),
        reason=guard.reason,
        source=guard.source,
        accepted=counters.accepted,
        refused=counters.refused,
        clamped=counters.clamped,
        limited=counters.limited,
        non_finite=counters.non_finite,
        stale=counters.stale,
        foreign=counters.foreign,
        last_refusal=guard.last_refusal,
    )
