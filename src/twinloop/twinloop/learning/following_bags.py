# SPDX-License-Identifier: Apache-2.0
"""The learner's side of learning while a robot works: it reads bags and takes gradient steps.

It waits for no robot: it learns from what is there, up to the update-to-data ratio, and gives its
newest policy away as a file that appears whole. Killed at any time, it goes on from its own last
file and from the bags; it keeps nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from twinloop.bags.episodes import episodes as read_bag
from twinloop.bags.errors import BagError
from twinloop.bags.read import complete_bags
from twinloop.learning import checkpoint
from twinloop.learning.acting import POLICY
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.tasks.base import Task

STATE = "learner.pt"
_SLICE_S = 0.2  # of gradient steps between two looks at the bags
_IDLE_S = 0.05


@dataclass(frozen=True)
class FollowingSettings:
    """How a learner follows a robot.

    Attributes:
        publish_s: after which the newest policy is given away.
        save_s: after which the state of training is written.
        transitions: after which, and whose gradient steps, it is done; 0: never.
    """

    publish_s: float = 1.0
    save_s: float = 30.0
    transitions: int = 0


@dataclass(frozen=True)
class Followed:
    """What a learner has done: transitions read, gradient steps taken and still owed."""

    transitions: int
    updates: int
    owed: int
    refused: dict[str, str]


def follow(
    folder: Path,
    task: Task,
    learning: OffPolicySettings,
    settings: FollowingSettings,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Followed:
    """Learn from the bags in `folder/bags` as they come, until `stop` says so or all is learned.

    Raises:
        OSError: the disk refused.
        LibraryMissing: Stable-Baselines3 is not installed.
    """
    torch.set_num_threads(1)
    learner = OffPolicyLearner(task, learning, seed)
    state = folder / STATE
    if state.exists():
        learner.load(state)
    read: set[str] = set()
    refused: dict[str, str] = {}
    published_s = saved_s = time.monotonic()
    given = learner.updates
    while not stop():
        for path in complete_bags(folder / "bags"):
            if path.name not in read:
                read.add(path.name)
                try:
                    learner.add(read_bag(path, task.contract))
                except (BagError, ValueError) as error:
                    refused[path.name] = str(error)
        done = learner.improve(time_limit_s=_SLICE_S)
        now_s = time.monotonic()
        if learner.updates > given and now_s - published_s >= settings.publish_s:
            publish(folder, learner)
            published_s, given = now_s, learner.updates
        if now_s - saved_s >= settings.save_s:
            learner.save(state)
            saved_s = now_s
        if 0 < settings.transitions <= learner.transitions and not learner.owed:
            break
        if not done:
            time.sleep(_IDLE_S)
    learner.save(state)
    if learner.updates:
        publish(folder, learner)
    return Followed(learner.transitions, learner.updates, learner.owed, refused)


def publish(folder: Path, learner: OffPolicyLearner) -> None:
    """Give the newest policy away."""
    row = {"updates": float(learner.updates), "transitions": float(learner.transitions)}
    checkpoint.save_model(folder, POLICY, learner.actor(), row)
