# SPDX-License-Identifier: Apache-2.0
"""Reads the values of a contract channel out of a message.

Works on anything with the message's fields: what rclpy delivers and what a bag reader decodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.contract import poses
from twinloop.contract.spec import Channel

Values = NDArray[np.float64]

_SECOND_NS = 1_000_000_000
_LARGEST = float(np.finfo(np.float32).max)


class MalformedMessage(ValueError):
    """A message does not hold what its channel needs."""


def stamp_of(message: Any) -> int:
    """Return a message's header stamp [ns].

    Raises:
        MalformedMessage: it is before 1970, or its nanoseconds make a second or more.
    """
    stamp = message.header.stamp
    seconds, nanoseconds = int(stamp.sec), int(stamp.nanosec)
    if seconds < 0 or not 0 <= nanoseconds < _SECOND_NS:
        raise MalformedMessage(
            f"header.stamp is {seconds} s and {nanoseconds} ns, expected no less than 0 s and "
            "less than a second of ns"
        )
    return seconds * _SECOND_NS + nanoseconds


def extract(channel: Channel, message: Any) -> Values:
    """Return the channel's values [n], in the contract's order.

    Raises:
        MalformedMessage: an element is missing, the frame is another one, or a value is not finite
            or too large for a vector's float32.
    """
    values = _READERS[channel.type](channel, message)
    fits = np.abs(values) <= _LARGEST
    if not fits.all():
        bad = [name for name, is_good in zip(channel.elements, fits, strict=True) if not is_good]
        raise MalformedMessage(f"{channel.topic}: {channel.field} of {bad} is not finite")
    return values


def _by_name(channel: Channel, names: list[str], values: Any) -> Values:
    if len(names) != len(values):
        raise MalformedMessage(
            f"{channel.topic}: {len(names)} names but {len(values)} values in {channel.field}"
        )
    if tuple(names) == channel.elements:
        return np.asarray(values, dtype=np.float64)
    index = {name: i for i, name in enumerate(names)}
    missing = [name for name in channel.elements if name not in index]
    if missing:
        raise MalformedMessage(f"{channel.topic}: no {channel.field} for {missing}")
    return np.array([values[index[name]] for name in channel.elements], dtype=np.float64)


def _joint_state(channel: Channel, message: Any) -> Values:
    if channel.field == "sin_cos":
        return _sines_and_cosines(channel, message)
    return _by_name(channel, message.name, getattr(message, channel.field))


def _sines_and_cosines(channel: Channel, message: Any) -> Values:
    """Read elements such as `valve.sin` and `valve.cos` of joints that turn without end."""
    if len(message.name) != len(message.position):
        raise MalformedMessage(
            f"{channel.topic}: {len(message.name)} names but {len(message.position)} values in "
            "position"
        )
    angles = dict(zip(message.name, message.position, strict=True))
    values = []
    for element in channel.elements:
        name, _, part = element.rpartition(".")
        if name not in angles:
            raise MalformedMessage(f"{channel.topic}: no position for {name}")
        with np.errstate(invalid="ignore"):  # of an infinite angle
            values.append(_SIN_COS[part](angles[name]))
    return np.array(values, dtype=np.float64)


def _trajectory(channel: Channel, message: Any) -> Values:
    if len(message.points) != 1:
        raise MalformedMessage(f"{channel.topic}: {len(message.points)} points, expected 1")
    return _by_name(channel, message.joint_names, getattr(message.points[0], channel.field))


def _balls(channel: Channel, message: Any) -> Values:
    if message.header.frame_id != channel.frame:
        raise MalformedMessage(
            f"{channel.topic}: frame {message.header.frame_id!r}, expected {channel.frame!r}"
        )
    balls = {f"ball{ball.id}": ball for ball in message.balls}
    values = []
    for element in channel.elements:
        name, _, axis = element.partition(".")
        if name not in balls:
            raise MalformedMessage(f"{channel.topic}: {name} is missing, {sorted(balls)} present")
        values.append(getattr(getattr(balls[name], channel.field), axis))
    return np.array(values, dtype=np.float64)


def _in_frame(read: Callable[[Channel, Any], Values]) -> Callable[[Channel, Any], Values]:
    """Refuse messages of another frame or with another number of values than the channel's."""

    def reader(channel: Channel, message: Any) -> Values:
        found = message.header.frame_id
        if found != channel.frame:
            raise MalformedMessage(f"{channel.topic}: frame {found!r}, expected {channel.frame!r}")
        values = read(channel, message)
        if len(values) != len(channel.elements):
            raise MalformedMessage(
                f"{channel.topic}: {len(values)} values of {channel.field}, "
                f"expected {len(channel.elements)}"
            )
        return values

    return reader


_SIN_COS: dict[str, Callable[[float], float]] = {"sin": np.sin, "cos": np.cos}
_READERS: dict[str, Callable[[Channel, Any], Values]] = {
    "sensor_msgs/msg/JointState": _joint_state,
    "trajectory_msgs/msg/JointTrajectory": _trajectory,
    "twinloop_interfaces/msg/TrackedBallArray": _balls,
    "nav_msgs/msg/Odometry": _in_frame(lambda c, m: poses.read_odometry(c.field, m)),
    "geometry_msgs/msg/PoseStamped": _in_frame(lambda c, m: poses.read_pose(c.field, m)),
    "nav_msgs/msg/Path": _in_frame(lambda _, m: poses.read_path(m)),
}


def is_usable(channel: Channel, message: Any) -> bool:
    """Tell whether a sample counts as evidence: a stale ball makes its whole sample unusable."""
    if channel.type == "twinloop_interfaces/msg/TrackedBallArray":
        return not any(ball.stale for ball in message.balls)
    return True
