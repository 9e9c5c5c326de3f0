# SPDX-License-Identifier: Apache-2.0
"""Decides when a bag begins and ends, and what goes into it; knows nothing of ROS.

Messages are always taken in. Between episodes they only pass through a short memory, so that a bag
begins with the samples that the first control step was planned from.
"""

from __future__ import annotations

import math
import re
import shutil
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinloop.bags.errors import BagError
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.types import definition
from twinloop.bags.write import CHUNK_BYTES, EpisodeWriter

IDLE, RESETTING, RUNNING, ENDED, FINISHED = range(5)  # phases of EpisodeStatus
# The clock of a paused twin stands still; its last bag is closed all the same.
_TAIL_WALL_S = 10.0


@dataclass(frozen=True)
class RecordedTopic:
    """A topic that is recorded."""

    name: str
    """Absolute."""
    type: str
    is_latched: bool = False
    """Its last message counts until the next one, and is in every bag from the start."""
    is_of_step: bool = False
    """It tells of control steps: what belongs to the episode before is not taken along."""
    is_image: bool = False
    """Large: a bag takes no more of them than the settings allow."""


@dataclass(frozen=True)
class RecordingSettings:
    """How episodes are recorded."""

    record_dir: Path
    chunk_bytes: int = CHUNK_BYTES
    chunk_age_s: float = 1.0
    before_s: float = 1.0
    """What came this long before the start is in the bag [s]."""
    tail_s: float = 0.3
    """How long recording goes on after the end [s]: the last observation needs it."""
    longest_s: float = 3600.0
    """An episode without an end is cut here [s]."""
    min_free_bytes: int = 500_000_000
    max_image_bytes: int = 500_000_000
    """Images in one bag [bytes]; what comes after is left out, and counted."""


@dataclass(frozen=True)
class EpisodeState:
    """What an EpisodeStatus message says."""

    episode_id: str
    phase: int
    step: int
    rotation_deg: float
    dropped: bool
    stop_reason: str
    model_version: str = ""


@dataclass
class RecordingCounts:
    """What the recorder has done since it started."""

    episodes: int = 0
    messages: int = 0
    bytes: int = 0
    failures: int = 0
    images_left_out: int = 0


@dataclass
class _OpenBag:
    writer: EpisodeWriter
    episode_id: str
    start_ns: int
    image_bytes: int = 0
    outcome: dict[str, Any] = field(default_factory=dict)
    close_at_ns: int | None = None
    close_by_s: float | None = None


class EpisodeRecording:
    """Writes one bag per episode.

    No method raises for a disk that is full or a bag that cannot be made: `problem` tells, until
    the next bag is good.

    Args:
        settings: where and how.
        topics: what is recorded.
        describe: makes the metadata of an episode from its id; called when one starts, and may
            raise ValueError to refuse it.
        offered_qos: gives the QoS profiles that a topic's publishers offer, by absolute name.

    Raises:
        UnknownType: a topic's type is defined nowhere.
    """

    def __init__(
        self,
        settings: RecordingSettings,
        topics: list[RecordedTopic],
        describe: Callable[[str], EpisodeMetadata],
        offered_qos: Callable[[str], tuple[dict[str, Any], ...]],
    ) -> None:
        self.settings = settings
        self.counts = RecordingCounts()
        self.problem: str | None = None
        self.last_bag: Path | None = None
        self._topics = {topic.name: topic for topic in topics}
        # Now, because a type's first definition takes long enough to delay the samples of a start.
        self._definitions = {topic.type: definition(topic.type) for topic in topics}
        self._describe = describe
        self._offered_qos = offered_qos
        self._recent: deque[tuple[int, str, bytes]] = deque()
        self._latched: dict[str, tuple[int, bytes]] = {}
        self._bag: _OpenBag | None = None
        self._refused_id: str | None = None
        # The last sync of a bag may take as long as the disk likes; messages do not wait for it.
        self._closer = ThreadPoolExecutor(1, "bag-closer")
        self._closing: deque[tuple[EpisodeWriter, Future[Path]]] = deque()

    @property
    def current_bag(self) -> Path | None:
        return self._bag.writer.path if self._bag else None

    def receive(self, topic: str, cdr: bytes, now_ns: int) -> None:
        """Take a serialised message that was received at `now_ns`."""
        bag = self._bag
        if self._topics[topic].is_latched:
            self._latched[topic] = (now_ns, cdr)
        self._remember(topic, cdr, now_ns)
        if bag is None:
            return
        self._write(bag, topic, cdr, now_ns)
        if bag.close_at_ns is not None and now_ns >= bag.close_at_ns:
            self._finish()

    def update(self, state: EpisodeState, now_ns: int) -> None:
        """Take in what the episode status says; call it after `receive` of that message."""
        bag = self._bag
        if state.phase == RUNNING:
            if bag is not None and bag.episode_id != state.episode_id:
                bag.outcome.setdefault("stop_reason", "its end was not announced")
                self._finish()
                bag = None
            if bag is None and state.episode_id and state.episode_id != self._refused_id:
                self._start(state.episode_id, now_ns)
            return
        self._refused_id = None
        if bag is None:
            return
        if state.phase == ENDED and state.episode_id == bag.episode_id:
            bag.outcome = {
                "rotation_deg": state.rotation_deg if math.isfinite(state.rotation_deg) else None,
                "dropped": state.dropped,
                "stop_reason": state.stop_reason,
                "steps": state.step,
            }
            if state.model_version:
                bag.outcome["model_version"] = state.model_version
        if state.phase == RESETTING:
            self._finish()
        elif bag.close_at_ns is None:
            bag.close_at_ns = now_ns + int(self.settings.tail_s * 1e9)
            bag.close_by_s = time.monotonic() + _TAIL_WALL_S

    def tick(self, now_ns: int) -> None:
        """Close what is due, also while no messages come; call it a few times a second."""
        bag = self._bag
        if bag is not None:
            longest_ns = int(self.settings.longest_s * 1e9)
            if now_ns - bag.start_ns > longest_ns:
                reason = f"cut after {self.settings.longest_s:g} s without an end"
                bag.outcome.setdefault("stop_reason", reason)
                self._finish()
            elif bag.close_at_ns is not None and (
                now_ns >= bag.close_at_ns or time.monotonic() >= (bag.close_by_s or 0.0)
            ):
                self._finish()
        while self._closing and self._closing[0][1].done():
            self._closed(*self._closing.popleft())

    def stop(self) -> None:
        """Close the open bag as interrupted and wait until all bags are safe on the disk."""
        if self._bag is not None:
            self._bag.outcome.setdefault("stop_reason", "the recorder was stopped")
            self._finish()
        while self._closing:
            writer, future = self._closing.popleft()
            wait([future])
            self._closed(writer, future)

    def _remember(self, topic: str, cdr: bytes, now_ns: int) -> None:
        recent = self._recent
        if recent and now_ns < recent[-1][0]:
            recent.clear()  # the clock was set back
        recent.append((now_ns, topic, cdr))
        oldest = now_ns - int(self.settings.before_s * 1e9)
        while recent[0][0] < oldest:
            recent.popleft()

    def _start(self, episode_id: str, now_ns: int) -> None:
        settings = self.settings
        try:
            metadata = self._describe(episode_id)
            free = shutil.disk_usage(settings.record_dir).free
            if free < settings.min_free_bytes:
                raise BagError(
                    settings.record_dir,
                    f"{free / 1e6:.0f} MB are free, at least "
                    f"{settings.min_free_bytes / 1e6:.0f} MB are needed to record",
                )
            path = _new_path(settings.record_dir, metadata)
            writer = EpisodeWriter(
                path, metadata, chunk_bytes=settings.chunk_bytes, chunk_age_s=settings.chunk_age_s
            )
        except (BagError, OSError, ValueError) as error:
            self._refused_id = episode_id
            self._failed(f"episode {episode_id} is not recorded: {error}")
            return
        self.problem = None
        bag = self._bag = _OpenBag(writer, episode_id, now_ns)
        oldest_ns = self._recent[0][0] if self._recent else now_ns
        try:
            for topic in self._topics.values():
                writer.add_topic(
                    topic.name,
                    topic.type,
                    qos=self._offered_qos(topic.name),
                    type_definition=self._definitions[topic.type],
                )
        except (BagError, ValueError) as error:
            self._give_up(bag, error)
            return
        for topic_name, (received_ns, cdr) in self._latched.items():
            if received_ns < oldest_ns:
                self._write(bag, topic_name, cdr, oldest_ns)
        for received_ns, topic_name, cdr in self._recent:
            self._write(bag, topic_name, cdr, received_ns)

    def _write(self, bag: _OpenBag, topic: str, cdr: bytes, now_ns: int) -> None:
        if self._bag is not bag:
            return
        if self._topics[topic].is_image:
            if bag.image_bytes + len(cdr) > self.settings.max_image_bytes:
                self.counts.images_left_out += 1
                return
            bag.image_bytes += len(cdr)
        try:
            bag.writer.write_raw(topic, self._topics[topic].type, cdr, now_ns)
        except BagError as error:
            self._give_up(bag, error)

    def _give_up(self, bag: _OpenBag, error: Exception) -> None:
        """Leave a bag as it is: a later repair brings back what is in it."""
        self._bag = None
        self._refused_id = bag.episode_id
        bag.writer.abort()
        self._failed(f"recording of episode {bag.episode_id} broke off: {error}")

    def _finish(self) -> None:
        bag, self._bag = self._bag, None
        if bag is not None:
            kept = (item for item in self._recent if not self._topics[item[1]].is_of_step)
            self._recent = deque(kept)
            writer = bag.writer
            self._closing.append((writer, self._closer.submit(writer.close, **bag.outcome)))

    def _closed(self, writer: EpisodeWriter, future: Future[Path]) -> None:
        error = future.exception()
        if error is not None:
            self._failed(f"{writer.path} could not be finished: {error}")
            return
        self.last_bag = writer.path
        self.counts.episodes += 1
        self.counts.messages += writer.message_count
        self.counts.bytes += writer.bytes_written

    def _failed(self, problem: str) -> None:
        self.counts.failures += 1
        self.problem = problem


def _new_path(record_dir: Path, metadata: EpisodeMetadata) -> Path:
    """Return a free folder name such as `episode_000012_<id>`."""
    safe_id = re.sub(r"[^A-Za-z0-9_-]+", "-", metadata.episode_id)[:80]
    path = record_dir / f"episode_{metadata.index:06d}_{safe_id}"
    number = 1
    # A recorder that was restarted within an episode leaves its second part beside the first.
    while path.exists():
        number += 1
        path = path.with_name(f"episode_{metadata.index:06d}_{safe_id}_part{number}")
    return path
