# SPDX-License-Identifier: Apache-2.0
"""Bags of a stereo camera whose images say their number, and a tracker that reads it."""

from __future__ import annotations

import array
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState
from twinloop.bags.types import message_class
from twinloop.bags.write import EpisodeWriter
from twinloop.perception.ball_tracker import Tracks
from twinloop.perception.camera_info import to_camera_info
from twinloop.perception.camera_model import StereoModel, pinhole
from twinloop.perception.images import compress
from twinloop.robots.hand24 import HAND24

from twinloop_interfaces.msg import EpisodeStatus, TrackedBall, TrackedBallArray

SIZE = (280, 180)
PERIOD_NS = 33_333_333
START_NS = 5 * 10**9
CAMERAS = StereoModel(pinhole("left", SIZE, 60.0), pinhole("right", SIZE, 60.0, baseline_m=0.12))


class NumberTracker:
    """Takes an image's number for the balls' place [mm]; every fifth image hides ball 1."""

    def __init__(self, stereo: StereoModel) -> None:
        self.stereo = stereo
        self.resets = 0
        self.stamps_s: list[float] = []

    def update(self, left: np.ndarray, right: np.ndarray, stamp_s: float, q: Any) -> Tracks:
        assert left.shape == right.shape == (*SIZE[::-1], 3)
        assert np.shape(q) == (24,)
        self.stamps_s.append(stamp_s)
        number = int(left[0, 0, 0])
        assert right[0, 0, 0] == number
        return Tracks(
            stamp_s,
            np.full((2, 3), 1e-3 * number),
            np.zeros((2, 3)),
            np.zeros((2, 6, 6)),
            np.ones(2),
            np.array([False, number % 5 == 0]),
            np.zeros((2, 3)),
            self.stereo.left,
            0.015,
        )

    def reset(self) -> None:
        self.resets += 1


class ImageBag:
    """Writes such a bag, message by message."""

    def __init__(self, path: Path, namespace: str = "") -> None:
        self.namespace = namespace
        self.writer = EpisodeWriter(path, None)
        self.now_ns = START_NS

    def write(self, name: str, message: Any, stamp_ns: int) -> None:
        """Write a ROS message, logged at its stamp or when the one before was."""
        if hasattr(message, "header"):
            message.header.stamp = to_time(stamp_ns)
        self.now_ns = max(self.now_ns, stamp_ns)
        stored = as_stored(message)
        self.writer.write(f"{self.namespace}/{name}", stored.__msgtype__, stored, self.now_ns)

    def infos(self, stamp_ns: int = START_NS) -> None:
        for camera in (CAMERAS.left, CAMERAS.right):
            self.write(
                f"stereo/{camera.name}/camera_info", to_camera_info(camera, Time(), ""), stamp_ns
            )

    def joints(self, stamp_ns: int) -> None:
        message = JointState(name=list(HAND24.joint_names), position=[0.1] * 24)
        self.write("joint_states", message, stamp_ns)

    def image(self, eye: str, number: int, stamp_ns: int, size: tuple[int, int] = SIZE) -> None:
        pixels = np.full((*size[::-1], 3), number, np.uint8)
        message = compress(pixels, "rgb8", Time(), f"camera_{eye}_optical", "png")
        self.write(f"stereo/{eye}/image_raw/compressed", message, stamp_ns)

    def balls(self, stamp_ns: int, place_m: float, stale: bool = False) -> None:
        message = TrackedBallArray(balls=[TrackedBall(id=k, stale=stale) for k in range(2)])
        for ball in message.balls:
            ball.position.x = ball.position.y = ball.position.z = place_m
        self.write("balls", message, stamp_ns)

    def resetting(self, stamp_ns: int) -> None:
        self.write("episode_status", EpisodeStatus(phase=EpisodeStatus.RESETTING), stamp_ns)

    def pairs(self, numbers: range, start_ns: int = START_NS) -> None:
        """Joints and both images of each number."""
        for number in numbers:
            stamp_ns = start_ns + number * PERIOD_NS
            self.joints(stamp_ns)
            for eye in ("left", "right"):
                self.image(eye, number, stamp_ns)

    def close(self) -> Path:
        return self.writer.close()


def as_stored(value: Any) -> Any:
    """Return a ROS message as the message that a bag's reader gives.

    The bytes of rclpy's `serialize_message` are longer than those that publishers send.
    """
    if isinstance(value, array.array):
        return np.array(value)
    if isinstance(value, list):
        return [as_stored(item) for item in value]
    if not hasattr(value, "get_fields_and_field_types"):
        return value
    kind = type(value)
    stored = message_class(f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}")
    fields = value.get_fields_and_field_types()
    return stored(**{name: as_stored(getattr(value, name)) for name in fields})


def to_time(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
