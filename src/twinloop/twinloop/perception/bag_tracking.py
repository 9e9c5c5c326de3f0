# SPDX-License-Identifier: Apache-2.0
"""Runs a ball tracker on the images of a bag again, and writes what it finds as another bag."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twinloop.bags.errors import BagError
from twinloop.bags.qos import qos_profile
from twinloop.bags.read import BagMessage, metadata, read_messages
from twinloop.bags.types import message_class
from twinloop.bags.write import EpisodeWriter
from twinloop.contract import MalformedMessage, stamp_of
from twinloop.contract.baoding import PALM_FRAME
from twinloop.perception.bag_images import BagTopics, find_topics, image_period_s
from twinloop.perception.ball_tracker import Tracks
from twinloop.perception.camera_info import from_camera_info
from twinloop.perception.camera_model import StereoModel
from twinloop.perception.image_files import ImageRefused
from twinloop.perception.images import to_array
from twinloop.perception.joint_history import JointHistory
from twinloop.perception.stereo_pairs import EYES, Pair, PairCounts, StereoPairs
from twinloop.robots.hand24 import HAND24

BALLS_TYPE = "twinloop_interfaces/msg/TrackedBallArray"
_RESETTING = 1  # EpisodeStatus.RESETTING


class Tracker(Protocol):
    """What a ball tracker does; see `BallTracker`."""

    def update(
        self, left_rgb: NDArray[np.uint8], right_rgb: NDArray[np.uint8], stamp_s: float, q: Any
    ) -> Tracks:
        """Take in a pair of images."""

    def reset(self) -> None:
        """Forget the balls."""


@dataclass
class TrackingFigures:
    """What came of a run.

    Attributes:
        frames: pairs that were tracked.
        stale: how many of them had each ball stale [2].
        without_joints: pairs dropped because the joints were not known at their time.
        uncalibrated: images dropped because they came before the cameras' calibration.
        counts: what became of the images.
        pair_ms: time that each pair took.
        differences_m: of balls that neither run calls stale, to the recorded ones.
        compared: pairs for which there are recorded balls.
        stale_differs: balls of those that one run calls stale and the other does not.
        was_stopped: it ended before the bag did.
    """

    frames: int = 0
    stale: list[int] = field(default_factory=lambda: [0, 0])
    without_joints: int = 0
    uncalibrated: int = 0
    counts: PairCounts = field(default_factory=PairCounts)
    pair_ms: list[float] = field(default_factory=list)
    differences_m: list[float] = field(default_factory=list)
    compared: int = 0
    stale_differs: int = 0
    was_stopped: bool = False


def track_bag(
    bag: Path,
    out: Path,
    make_tracker: Callable[[StereoModel], Tracker],
    cameras: StereoModel | None = None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[int], object] = lambda done: None,
) -> TrackingFigures:
    """Track the balls in a bag's images; writes the tracks, stamped as the images, to a new bag.

    Args:
        bag: complete; it is only read.
        out: folder of the new bag; not there afterwards if nothing came of it.
        make_tracker: opens a tracker for the cameras.
        cameras: their calibration; default: what the bag's camera_info says.
        stop: tells whether to end early; what was tracked until then is kept.
        say: called with the number of images done.

    Raises:
        BagError: the bag lacks something, is damaged, or holds no pair that could be tracked.
        ValueError: the tracker does not fit the cameras.
    """
    topics = find_topics(bag, metadata(bag), needs_infos=cameras is None)
    period_s = image_period_s(bag, topics)
    writer = EpisodeWriter(out, None)
    try:
        run = _Run(bag, topics, period_s, make_tracker, writer)
        if cameras is not None:
            run.open(cameras)
        run.follow(stop, say)
        if not run.figures.frames:
            raise BagError(bag, run.why_nothing())
        writer.close()
    except BaseException:
        writer.abort()
        shutil.rmtree(out, ignore_errors=True)
        raise
    return run.figures


class _Run:
    """One run of a tracker through a bag."""

    def __init__(
        self,
        bag: Path,
        topics: BagTopics,
        period_s: float,
        make_tracker: Callable[[StereoModel], Tracker],
        writer: EpisodeWriter,
    ) -> None:
        self.figures = TrackingFigures()
        self._bag = bag
        self._topics = topics
        self._period_s = period_s
        self._make_tracker = make_tracker
        self._writer = writer
        self._cameras: dict[str, Any] = {}
        self._tracker: Tracker | None = None
        self._pairs: StereoPairs | None = None
        self._joints = JointHistory()
        self._last_ns = -1
        self._refusal = ""
        self._found: dict[int, Tracks] = {}
        self._recorded: dict[int, Any] = {}
        profile = qos_profile(reliability="best_effort", depth=5)
        writer.add_topic(topics.balls, BALLS_TYPE, qos=(profile,))

    def open(self, stereo: StereoModel) -> None:
        """Track with these cameras."""
        self._tracker = self._make_tracker(stereo)
        sizes = {"left": stereo.left.size, "right": stereo.right.size}
        self._pairs = StereoPairs(self._period_s, sizes)
        self.figures.counts = self._pairs.counts

    def follow(self, stop: Callable[[], bool], say: Callable[[int], object]) -> None:
        """Go through the bag's messages in their order."""
        topics, eye_of = self._topics, self._topics.eye_of
        wanted = {*eye_of, topics.joints, topics.balls, topics.status}
        done = 0
        for message in read_messages(self._bag, wanted):
            if stop():
                self.figures.was_stopped = True
                break
            decoded = self._decoded(message)
            if message.topic == topics.joints:
                self._take_joints(decoded)
            elif message.topic == topics.balls:
                self._take_balls(decoded)
            elif message.topic == topics.status:
                if decoded.phase == _RESETTING and self._tracker is not None:
                    self._tracker.reset()
            elif message.topic in topics.infos.values():
                self._take_info(eye_of[message.topic], decoded)
            else:
                self._take_image(eye_of[message.topic], decoded, message.log_time_ns)
                done += 1
                say(done)
        self._compare()

    def why_nothing(self) -> str:
        """Say why nothing was tracked."""
        counts, figures = self.figures.counts, self.figures
        if figures.was_stopped:
            return "was left before a pair of images was tracked"
        return (
            "holds no pair of images that could be tracked: "
            f"{counts.skewed} images without a partner, {counts.refused} refused"
            + (f" ({self._refusal})" if self._refusal else "")
            + f", {figures.uncalibrated} before their camera_info, "
            f"{figures.without_joints} pairs without joint_states"
        )

    def _decoded(self, message: BagMessage) -> Any:
        try:
            return message.decode()
        except ValueError as error:
            raise BagError(self._bag, f"{message.topic}: {error}") from error

    def _take_joints(self, message: Any) -> None:
        places = {name: index for index, name in enumerate(message.name)}
        missing = [name for name in HAND24.joint_names if name not in places]
        if missing or len(message.position) != len(message.name):
            raise BagError(
                self._bag,
                f"{self._topics.joints}: no position of {', '.join(missing) or 'every joint'}",
            )
        position = np.asarray(message.position)[[places[name] for name in HAND24.joint_names]]
        try:
            self._joints.feed(stamp_of(message), position)
        except ValueError as error:
            raise BagError(self._bag, f"{self._topics.joints}: {error}") from error

    def _take_balls(self, message: Any) -> None:
        try:
            self._recorded[stamp_of(message)] = message
        except MalformedMessage as error:
            raise BagError(self._bag, f"{self._topics.balls}: {error}") from error

    def _take_info(self, eye: str, message: Any) -> None:
        if eye in self._cameras:
            return
        try:
            self._cameras[eye] = from_camera_info(message, eye)
            stereo = StereoModel(**self._cameras) if len(self._cameras) == len(EYES) else None
        except ValueError as error:
            raise BagError(self._bag, f"{self._topics.infos[eye]}: {error}") from error
        if stereo is not None:
            self.open(stereo)

    def _take_image(self, eye: str, message: Any, log_time_ns: int) -> None:
        if self._pairs is None:
            self.figures.uncalibrated += 1
            return
        try:
            pixels = to_array(message, "rgb8")
        except ImageRefused as error:
            self._pairs.refuse()
            self._refusal = f"{eye}: {error}"
            return
        try:
            pair = self._pairs.feed(eye, stamp_of(message), pixels)
        except (ImageRefused, MalformedMessage) as error:
            self._refusal = f"{eye}: {error}"
            return
        if pair is not None:
            self._track(pair, log_time_ns)

    def _track(self, pair: Pair, log_time_ns: int) -> None:
        joints = self._joints.at(pair.stamp_ns)
        if joints is None:
            self.figures.without_joints += 1
            return
        assert self._tracker is not None
        if pair.stamp_ns <= self._last_ns:
            self._tracker.reset()  # the clock was set back
        self._last_ns = pair.stamp_ns
        began_s = time.perf_counter()
        tracks = self._tracker.update(pair.left, pair.right, pair.stamp_ns * 1e-9, joints)
        self.figures.pair_ms.append(1e3 * (time.perf_counter() - began_s))
        self.figures.frames += 1
        for ball, is_stale in enumerate(tracks.stale):
            self.figures.stale[ball] += bool(is_stale)
        self._found[pair.stamp_ns] = tracks
        self._writer.write(
            self._topics.balls, BALLS_TYPE, balls_message(pair.stamp_ns, tracks), log_time_ns
        )

    def _compare(self) -> None:
        """Set the tracks beside those that the bag holds."""
        figures = self.figures
        for stamp_ns in sorted(self._found.keys() & self._recorded.keys()):
            tracks, recorded = self._found[stamp_ns], self._recorded[stamp_ns]
            figures.compared += 1
            for ball in recorded.balls[: len(tracks.stale)]:
                if bool(ball.stale) != bool(tracks.stale[ball.id]):
                    figures.stale_differs += 1
                elif not ball.stale:
                    place = np.array([ball.position.x, ball.position.y, ball.position.z])
                    difference = float(np.linalg.norm(place - tracks.position[ball.id]))
                    figures.differences_m.append(difference)


def balls_message(stamp_ns: int, tracks: Tracks) -> Any:
    """Return tracks as a bag's TrackedBallArray, in the palm's frame."""
    time_class = message_class("builtin_interfaces/msg/Time")
    point, vector = (message_class(f"geometry_msgs/msg/{name}") for name in ("Point", "Vector3"))
    ball = message_class("twinloop_interfaces/msg/TrackedBall")
    header = message_class("std_msgs/msg/Header")(
        stamp=time_class(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id=PALM_FRAME
    )
    return message_class(BALLS_TYPE)(
        header=header,
        balls=[
            ball(
                id=index,
                position=point(*map(float, tracks.position[index])),
                velocity=vector(*map(float, tracks.velocity[index])),
                covariance=tracks.covariance[index].reshape(36).astype(np.float64),
                visible_fraction=float(tracks.visible_fraction[index]),
                stale=bool(tracks.stale[index]),
            )
            for index in range(len(tracks.stale))
        ],
    )
