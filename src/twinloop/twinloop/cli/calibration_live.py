# SPDX-License-Identifier: Apache-2.0
"""Views of a board taken live, over DDS, with what is missing shown all along."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.context import Context
from rclpy.experimental import EventsExecutor
from rclpy.signals import SignalHandlerOptions
from rich.console import Console, Group
from rich.live import Live as LiveScreen
from rich.text import Text
from sensor_msgs.msg import CompressedImage, Image, JointState

from twinloop.contract import MalformedMessage, stamp_of
from twinloop.nodes import qos
from twinloop.perception.calibration.collecting import Collection, Shot
from twinloop.perception.calibration.sources import pick_joints
from twinloop.perception.calibration.views import CalibrationRefused
from twinloop.perception.image_files import ImageRefused
from twinloop.perception.images import to_array
from twinloop.perception.joint_history import JointHistory
from twinloop.perception.stereo_pairs import EYES, Pair, StereoPairs

if TYPE_CHECKING:
    from twinloop.cli.calibration_runs import Live

_POLL_S = 0.05
_LINE_EVERY_S = 5.0
_JOINTS_LATER_NS = 20_000_000
_JOINTS_WITHIN_S = 0.5


class LiveSession:
    """Subscribes to a stereo camera and offers its pairs to a collection; a context manager.

    Ctrl-C ends it: what was taken by then is calibrated with.

    Args:
        console: where hints are shown.
        joints: names of the joints whose positions matter.
        live: topics and limits.
    """

    def __init__(
        self, console: Console, collection: Collection, joints: Sequence[str], live: Live
    ) -> None:
        self._console, self._collection = console, collection
        self._joints, self._live = tuple(joints), live
        self._pairs = StereoPairs(1.0 / live.rate_hz)
        self._history = JointHistory()
        self._newest: tuple[Pair, float] | None = None
        self._complaint = ""
        self._verdict = "waits for pictures"
        self._images = 0
        self._topics: dict[str, str] = {}
        self._said = ("", -1e9)
        self._stopped = False
        self._screen = LiveScreen(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveSession:
        self._began_s = time.monotonic()
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(
            "calibrate",
            context=self._context,
            namespace=self._live.namespace or None,
            enable_rosout=False,
            start_parameter_services=False,
        )
        kind = CompressedImage if self._live.compressed else Image
        for eye in EYES:
            topic = f"stereo/{eye}/image_raw" + ("/compressed" if self._live.compressed else "")
            call = partial(self._on_image, eye)
            subscription = self._node.create_subscription(kind, topic, call, qos.IMAGE)
            self._topics[eye] = subscription.topic_name
        if self._joints:
            self._node.create_subscription(JointState, "joint_states", self._on_joints, qos.SENSOR)
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._previous = signal.signal(signal.SIGINT, self._stop)
        if self._console.is_terminal:
            self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._screen.stop()
        signal.signal(signal.SIGINT, self._previous)
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, or took its time."""
        return self._stopped or time.monotonic() - self._began_s > self._live.timeout_s

    def take(self, wanted: int) -> None:
        """Take views until there are so many and nothing is missing, or the session is over.

        Raises:
            CalibrationRefused: it is over, and there never was a pair of pictures.
        """
        while not self.is_over:
            missing = self._collection.missing()
            if len(self._collection.views) >= wanted and not missing:
                return
            self._hint(wanted, missing)
            self._executor.spin_once(timeout_sec=_POLL_S)
            shot = self._shot()
            if shot is None:
                continue
            refused = self._collection.offer(shot)
            self._verdict = refused or "taken"
            if not refused:
                self.say(f"view {len(self._collection.views)} taken")

        if self._pairs.counts.paired == 0:
            raise CalibrationRefused(self._silence())

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _shot(self) -> Shot | None:
        """Return the newest pair, once the joints at its time are known."""
        if self._newest is None:
            return None
        pair, came_s = self._newest
        position = None
        if self._joints:
            is_there = self._history.at(pair.stamp_ns + _JOINTS_LATER_NS) is not None
            if not is_there and time.monotonic() - came_s < _JOINTS_WITHIN_S:
                return None
            position = self._history.at(pair.stamp_ns)
            if position is None:
                self._newest, self._complaint = None, "no joint states at the pictures' times"
                return None
        self._newest, self._complaint = None, ""
        name = f"{len(self._collection.views) + 1:02d}"
        return Shot(name, (pair.left, pair.right), position)

    def _on_image(self, eye: str, message: Any) -> None:
        self._images += 1
        try:
            pair = self._pairs.feed(eye, stamp_of(message), to_array(message, "rgb8"))
        except (ImageRefused, MalformedMessage) as error:
            self._complaint = f"{eye} eye: {error}"
            return
        # A pair whose joints are awaited is not replaced by one that has to wait as well.
        if pair is not None and (self._newest is None or not self._joints):
            self._newest = (pair, time.monotonic())

    def _on_joints(self, message: JointState) -> None:
        try:
            self._history.feed(stamp_of(message), pick_joints(message, self._joints))
        except ValueError as error:
            self._complaint = str(error)

    def _hint(self, wanted: int, missing: list[str]) -> None:
        state = self._complaint or self._verdict
        if self._pairs.counts.paired == 0:
            state = self._complaint or self._silence()
        head = f"{len(self._collection.views)}/{wanted} views, {state}"
        if self._console.is_terminal:
            lines = [Text(head, style="bold"), *(Text(f"- {one}") for one in missing)]
            self._screen.update(Group(*lines), refresh=True)
            return
        line = "; ".join([head, *missing[:1]])
        before, said_s = self._said
        if line != before and time.monotonic() - said_s >= _LINE_EVERY_S:
            self._said = (line, time.monotonic())
            self.say(line)

    def _silence(self) -> str:
        """Say why there is no pair of pictures."""
        if self._images:
            return (
                f"{self._images} pictures, but no pairs: do both eyes come, with stamps of one "
                "clock, no more than half a period apart?"
            )
        topics = " and ".join(self._topics.values())
        return f"no pictures on {topics}: is the camera's node running, in this ROS domain?"

    def _stop(self, *_: object) -> None:
        self._stopped = True
