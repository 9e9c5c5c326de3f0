# SPDX-License-Identifier: Apache-2.0
"""Bags of hands that do not move and balls that turn as told, for the tests of reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from twinloop.bags import EpisodeMetadata, EpisodeWriter, metadata, read_messages
from twinloop.bags.rollouts import write_rollout
from twinloop.bags.types import serialize
from twinloop.learning.episode import Episode
from twinloop.robots.hand24 import HAND24

from twinloop import contract

CONTRACT = contract.load("baoding")


def turning(turn_deg: float, steps: int = 20, drop_at: int | None = None) -> Episode:
    """Return a rollout in which the balls turn evenly, counter-clockwise for positive angles.

    From observation `drop_at` on, a ball lies far below the palm.
    """
    angles = np.radians(turn_deg) * np.arange(steps + 1) / steps
    line = 0.03 * np.stack([np.cos(angles), np.zeros(steps + 1), np.sin(angles)], axis=-1)
    middle = np.array([0.005, -0.04, 0.068])
    balls = np.concatenate([middle + line, middle - line], axis=-1)
    if drop_at is not None:
        balls[drop_at:, 1] = -0.3
    rest = np.tile(HAND24.poses["cup"], (steps + 1, 1))
    observations = CONTRACT.pack(
        {
            "joint_position": rest,
            "joint_velocity": np.zeros_like(rest),
            "command": rest,
            "ball_position": balls,
            "ball_velocity": np.zeros_like(balls),
        }
    )
    return Episode(observations, rest[:-1].astype(np.float32))


def turning_bag(
    folder: Path,
    name: str,
    rollout: Episode,
    *,
    index: int = 0,
    goal: str = "ccw",
    stop_reason: str = "complete",
    plan_ms: float = 0.0,
    **fields: Any,
) -> Path:
    """Write a rollout as the bag of an episode."""
    about = EpisodeMetadata(
        episode_id=name,
        index=index,
        task="baoding",
        goal=goal,
        robot="hand24",
        seed=100 + index,
        model_version=fields.pop("model_version", "v0001"),
        stop_reason=stop_reason,
        dropped=stop_reason == "dropped",
        **fields,
    )
    times = [plan_ms] * len(rollout) if plan_ms else []
    return write_rollout(
        folder / f"episode_{index:06d}_{name}", rollout, CONTRACT, about, plan_ms=times
    )


def edited(bag: Path, path: Path, edit: Callable[[str, Any], bool], **about: Any) -> Path:
    """Write a copy of a bag.

    Args:
        bag: what is copied.
        path: of the copy.
        edit: may change a message, and says whether it is kept; called with topic and message.
        about: fields of the metadata that are different.
    """
    episode = metadata(bag).episode
    assert episode is not None
    with EpisodeWriter(path, episode.model_copy(update=about)) as writer:
        for message in read_messages(bag):
            decoded = message.decode()
            if edit(message.topic, decoded):
                cdr = serialize(decoded, message.type)
                writer.write_raw(message.topic, message.type, cdr, message.log_time_ns)
    return path
