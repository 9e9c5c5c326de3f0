# SPDX-License-Identifier: Apache-2.0
"""Publishes a bag's messages again over DDS, in their order and pace, as `ros2 bag play` does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from twinloop.bags.errors import BagError
from twinloop.bags.metadata import TopicInformation
from twinloop.bags.read import metadata, read_messages
from twinloop.nodes import qos
from twinloop.nodes.messages import message_class

_DEPTH = 100


def replay(
    path: Path | str,
    *,
    rate: float = 1.0,
    topics: Collection[str] | None = None,
    clock: bool = False,
    wait_s: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Publish a complete bag; returns how many messages were published.

    Ctrl-C ends it early.

    Args:
        path: the bag's folder.
        rate: 2.0 is twice as fast as recorded.
        topics: absolute names of the topics to publish; None for all.
        clock: publish `/clock` with the log times too, for nodes with `use_sim_time`.
        wait_s: time for subscribers to find the publishers before the first message [s].
        progress: called with the messages published and their total.

    Raises:
        BagError: the bag is damaged, or a topic is not in it or of a type that is not installed.
        ValueError: the rate is not above 0.
    """
    if not rate > 0.0:
        raise ValueError(f"rate is {rate:g}, expected more than 0")
    wanted = _wanted(path, topics)
    total = sum(topic.message_count for topic in wanted)
    stop = threading.Event()
    rclpy.init()
    previous = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        node = rclpy.create_node("bag_replay")
        publishers = {
            topic.name: node.create_publisher(
                _message_class(path, topic.type), topic.name, _qos(topic)
            )
            for topic in wanted
        }
        clock_publisher = node.create_publisher(Clock, "/clock", qos.CLOCK) if clock else None
        stop.wait(wait_s)
        return _publish(path, publishers, clock_publisher, rate, stop, total, progress)
    finally:
        signal.signal(signal.SIGINT, previous)
        rclpy.try_shutdown()


def _publish(
    path: Path | str,
    publishers: dict[str, Any],
    clock_publisher: Any,
    rate: float,
    stop: threading.Event,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    started_s, first_ns, count = time.monotonic(), None, 0
    for message in read_messages(path, publishers):
        if first_ns is None:
            first_ns = message.log_time_ns
        due_s = started_s + (message.log_time_ns - first_ns) / 1e9 / rate
        ahead_s = due_s - time.monotonic()
        if stop.wait(ahead_s) if ahead_s > 0 else stop.is_set():
            break
        if clock_publisher is not None:
            now = Clock()
            now.clock.sec, now.clock.nanosec = divmod(message.log_time_ns, 10**9)
            clock_publisher.publish(now)
        publishers[message.topic].publish(message.cdr)
        count += 1
        if progress is not None:
            progress(count, total)
    return count


def _wanted(path: Path | str, topics: Collection[str] | None) -> list[TopicInformation]:
    available = metadata(path).topics
    if topics is None:
        return list(available)
    missing = sorted(set(topics) - {topic.name for topic in available})
    if missing:
        names = ", ".join(topic.name for topic in available)
        raise BagError(path, f"has no topic {', '.join(missing)}; it has {names}")
    return [topic for topic in available if topic.name in topics]


def _message_class(path: Path | str, type_name: str) -> Any:
    try:
        return message_class(type_name)
    except ValueError as error:
        raise BagError(path, str(error)) from error


def _qos(topic: TopicInformation) -> QoSProfile:
    """Offer what the recorded publishers offered; reliable where they differed or are unknown."""
    reliabilities = {profile.get("reliability") for profile in topic.qos}
    durabilities = {profile.get("durability") for profile in topic.qos}
    best_effort = reliabilities == {"best_effort"}
    latched = durabilities == {"transient_local"}
    return QoSProfile(
        depth=_DEPTH,
        reliability=(ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE),
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
