# SPDX-License-Identifier: Apache-2.0
"""Ball tracker node: stereo images and joint states in, tracked balls in the palm's frame out."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from twinloop.contract import MalformedMessage, stamp_of
from twinloop.contract.baoding import PALM_FRAME
from twinloop.nodes import qos
from twinloop.nodes.ball_messages import tracked_balls
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.perception.ball_tracker import BallTracker, Tracks, annotate
from twinloop.perception.camera_info import from_camera_info
from twinloop.perception.camera_model import CameraModel, StereoModel
from twinloop.perception.image_files import ImageRefused
from twinloop.perception.images import to_array, to_message
from twinloop.perception.joint_history import JointHistory
from twinloop.perception.mount import Mount, load_mount, mount_from_urdf
from twinloop.perception.stereo_pairs import EYES, Pair, PairCounts, StereoPairs
from twinloop.robots.description import hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop_interfaces.msg import EpisodeStatus, TrackedBallArray

RAW, COMPRESSED = TRANSPORTS = ("raw", "compressed")
SILENCE_S = 0.5  # without images, on the steady clock, before the node says so
_MOUNT = ("rh_forearm", "camera_left_optical")
_KEEP = 0.9  # of the average time a pair takes


class BallTrackerNode(Node):
    """Wires a BallTracker to its topics: one array of balls for each pair of images."""

    parameters = (
        ParameterSpec(
            "mount", "", "File that says where the left camera sits; empty: as the URDF has it"
        ),
        ParameterSpec(
            "transport", RAW, "How images come: as they are, or as JPEG or PNG", choices=TRANSPORTS
        ),
        ParameterSpec("weights", "", "Folder of the tracker's network; empty: the shipped one"),
        ParameterSpec(
            "period_s", 1.0 / 30.0, "Frame period; a pair more apart is dropped", 0.001, 1.0
        ),
        ParameterSpec("threads", 1, "Threads of the matrix products", 1, 64),
        ParameterSpec("nice", -5, "Niceness asked for; needs the privilege below 0", -20, 19),
    )

    def __init__(self) -> None:
        super().__init__("tracker")
        self._tracker: BallTracker | None = None
        self._pairs: StereoPairs | None = None
        self._cameras: dict[str, CameraModel] = {}
        self._told: dict[str, tuple[Any, ...]] = {}  # what a camera's model was read from
        self._pair_ms = 0.0
        self._last_ns = 0
        self._blind = 0
        self._unplaced = 0
        self._complaint = ""
        self._last_image_s = time.monotonic()

    def configure(self) -> None:
        torch.set_num_threads(self.param("threads"))
        with contextlib.suppress(PermissionError):
            # Without the privilege the tracker runs at the usual priority.
            os.nice(self.param("nice") - os.nice(0))
        self._mount = self._read_mount()
        self._pairs, self._tracker = None, None
        self._joints = JointHistory()
        self._cameras.clear()
        self._told.clear()
        self._balls = self.create_publisher(TrackedBallArray, "balls", qos.SENSOR)
        self._picture = self.create_publisher(Image, "tracker/image_raw", qos.IMAGE)
        subscriptions = [
            self.create_subscription(
                JointState, "joint_states", self.guarded(self._on_joints), qos.SENSOR
            ),
            self.create_subscription(
                EpisodeStatus, "episode_status", self.guarded(self._on_episode), qos.latched()
            ),
        ]
        pictures: tuple[Any, str] = (Image, "image_raw")
        if self.param("transport") == COMPRESSED:
            pictures = (CompressedImage, "image_raw/compressed")
        for eye in EYES:
            for kind, name, callback in (
                (CameraInfo, "camera_info", self._on_info),
                (*pictures, self._on_image),
            ):
                topic = f"stereo/{eye}/{name}"
                call = self.guarded(partial(callback, eye))
                subscriptions.append(self.create_subscription(kind, topic, call, qos.IMAGE))
        self._subscriptions_made = subscriptions

    def activate(self) -> None:
        self._last_image_s = time.monotonic()
        # What is alive now stays out of later collections, which would delay a pair.
        gc.collect()
        gc.freeze()

    def cleanup(self) -> None:
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self.destroy_publisher(self._balls)
        self.destroy_publisher(self._picture)
        self._tracker = None

    def health(self) -> Health:
        counts = PairCounts() if self._pairs is None else self._pairs.counts
        values = {
            "pairs": str(counts.paired),
            "pair_ms": f"{self._pair_ms:.1f}",
            "blind_frames": str(self._blind),
            "without_joints": str(self._unplaced),
            "skewed": str(counts.skewed),
            "refused": str(counts.refused),
        }
        if not self.is_active:
            return Health(WARN, "not active", values)
        silent_s = time.monotonic() - self._last_image_s
        if silent_s > SILENCE_S:
            return Health(ERROR, f"no images for {silent_s:.1f} s", values)
        if self._complaint:
            return Health(ERROR, self._complaint, values)
        return Health(OK, "tracking" if self._tracker else "waits for camera_info", values)

    def _read_mount(self) -> Mount:
        path = self.param("mount")
        return load_mount(Path(path)) if path else mount_from_urdf(hand_urdf(), *_MOUNT)

    def _on_joints(self, message: JointState) -> None:
        places = {name: index for index, name in enumerate(message.name)}
        if len(message.position) != len(message.name) or not all(
            name in places for name in HAND24.joint_names
        ):
            self._complain("joint_states: positions of the hand's joints are missing")
            return
        position = np.asarray(message.position)[[places[name] for name in HAND24.joint_names]]
        try:
            self._joints.feed(stamp_of(message), position)
        except ValueError as error:
            self._complain(f"joint_states: {error}")

    def _on_episode(self, message: EpisodeStatus) -> None:
        # Somebody puts the balls back: where they were says nothing about where they will be.
        if message.phase == EpisodeStatus.RESETTING and self._tracker is not None:
            self._tracker.reset()

    def _on_info(self, eye: str, message: CameraInfo) -> None:
        told = (message.width, message.height, *message.k, *message.d, *message.r, *message.p)
        if self._told.get(eye) == told:
            return
        try:
            self._cameras[eye] = from_camera_info(message, eye)
            self._told[eye] = told
            if len(self._cameras) == len(EYES):
                self._open(StereoModel(*(self._cameras[eye] for eye in EYES)))
        except ValueError as error:
            self._complain(f"stereo/{eye}/camera_info: {error}")

    def _open(self, stereo: StereoModel) -> None:
        """Track with these cameras from now on."""
        weights = self.param("weights")
        self._tracker = BallTracker(stereo, self._mount, weights=Path(weights) if weights else None)
        self._pairs = StereoPairs(
            self.param("period_s"), {eye: camera.size for eye, camera in self._cameras.items()}
        )
        self._complaint = ""

    def _on_image(self, eye: str, message: Image | CompressedImage) -> None:
        pairs = self._pairs
        if not self.is_active or pairs is None:
            return
        self._last_image_s = time.monotonic()
        try:
            pair = pairs.feed(eye, stamp_of(message), self._pixels(message))
        except (ImageRefused, MalformedMessage) as error:
            self._complain(f"stereo/{eye}/image_raw: {error}")
            return
        if pair is not None:
            self._complaint = ""
            self._track(pair)

    def _pixels(self, message: Image | CompressedImage) -> NDArray[np.uint8]:
        try:
            return to_array(message, "rgb8")
        except ImageRefused:
            assert self._pairs is not None
            self._pairs.refuse()
            raise

    def _track(self, pair: Pair) -> None:
        assert self._tracker is not None
        joints = self._joints.at(pair.stamp_ns)
        if joints is None:
            self._unplaced += 1
            return
        if pair.stamp_ns <= self._last_ns:
            self._tracker.reset()  # the clock was set back
        self._last_ns = pair.stamp_ns
        began_s = time.perf_counter()
        tracks = self._tracker.update(pair.left, pair.right, pair.stamp_ns * 1e-9, joints)
        took_ms = 1e3 * (time.perf_counter() - began_s)
        self._pair_ms = _KEEP * self._pair_ms + (1 - _KEEP) * took_ms if self._pair_ms else took_ms
        self._blind += bool(tracks.stale.any())
        # Nothing is known of a ball that was never seen; bags and viewers want numbers even so,
        # and it is stale.
        message = tracked_balls(
            PALM_FRAME,
            np.nan_to_num(tracks.position),
            np.nan_to_num(tracks.velocity),
            np.nan_to_num(tracks.covariance),
            tracks.visible_fraction,
            tracks.stale,
        )
        message.header.stamp = Time(nanoseconds=pair.stamp_ns).to_msg()
        self._balls.publish(message)
        if self._picture.get_subscription_count():
            self._draw(pair, tracks)

    def _draw(self, pair: Pair, tracks: Tracks) -> None:
        stamp = Time(nanoseconds=pair.stamp_ns).to_msg()
        picture = annotate(pair.left, tracks)
        self._picture.publish(to_message(picture, "rgb8", stamp, "camera_left_optical"))

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            self.get_logger().warning(text)


def main() -> None:
    run(BallTrackerNode)
