# SPDX-License-Identifier: Apache-2.0
"""Rollouts and bags for the tests of bags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.rollouts import write_rollout
from twinloop.bags.types import message_class, serialize
from twinloop.learning.episode import Episode

from twinloop import contract

CONTRACT = contract.load("baoding")
STRING = "std_msgs/msg/String"


def about(episode_id: str = "one", **fields: object) -> EpisodeMetadata:
    return EpisodeMetadata.model_validate(
        {"episode_id": episode_id, "task": "baoding", "robot": "hand24", "seed": 3} | fields
    )


def random_rollout(steps: int = 30, seed: int = 0) -> Episode:
    """Return a rollout of noise that is consistent in its `command` channel."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(steps + 1, CONTRACT.observation_size)).astype(np.float32)
    actions = rng.normal(size=(steps, CONTRACT.action_size)).astype(np.float32)
    observations[1:, CONTRACT.slices["command"]] = actions
    return Episode(observations, actions)


def rollout_bag(path: Path, steps: int = 30, seed: int = 0) -> Path:
    return write_rollout(path, random_rollout(steps, seed), CONTRACT, about())


def text_message(text: str) -> bytes:
    return serialize(message_class(STRING)(data=text), STRING)
