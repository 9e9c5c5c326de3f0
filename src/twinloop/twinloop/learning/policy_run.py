# SPDX-License-Identifier: Apache-2.0
"""A policy learned in one process, episode by episode: act, write the bag, learn from it.

The same seed gives the same policy. Called again on its folder, a run that was interrupted goes on
after the last bag that is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from twinloop.learning.action_units import units_of
from twinloop.learning.episode import Episode
from twinloop.learning.episode_bags import EpisodeBags
from twinloop.learning.network_actor import NetworkActor
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.rollout import EpisodeRecord, Hands, random_motion, roll_out
from twinloop.models.actor import Actor
from twinloop.tasks.base import Task

_SEEDS_PER_RUN = 1_000_000
_EVALUATION_SEEDS = 900_000  # above those of training
_SOURCE = "explore"


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class PolicyRunSettings:
    """A run, apart from its seed.

    Attributes:
        transitions: to collect.
        steps: control steps of an episode.
        save_every: episodes after which the state of training is written.
    """

    transitions: int
    steps: int
    save_every: int = 10


def learn_policy(
    folder: Path,
    task: Task,
    cell: Hands,
    run: PolicyRunSettings,
    learning: OffPolicySettings,
    seed: int,
    progress: Callable[[OffPolicyLearner, Episode], None] = _nothing,
) -> OffPolicyLearner:
    """Learn a policy of a task in a cell; bags go to `folder/bags`.

    Args:
        cell: robots side by side; they act by one policy until all their episodes have ended.
        progress: is told of each episode once it has been learned from.

    Raises:
        LibraryMissing: Stable-Baselines3 is not installed.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    learner = OffPolicyLearner(task, learning, seed)
    bags = EpisodeBags(folder / "bags", task.contract)
    first = random_motion(task, cell.hands) if learning.about_pose else None
    actor = NetworkActor(units_of(task), cell.hands, smoothing=learning.smoothing, first=first)
    saved = _Saved(folder)
    index = 0
    while learner.transitions < run.transitions:
        numbers = range(seed * _SEEDS_PER_RUN + index, seed * _SEEDS_PER_RUN + index + cell.hands)
        found = {number: bags.find(_SOURCE, number) for number in numbers}
        missing = [number for number, episode in found.items() if episode is None]
        if missing:
            if learner.updates:
                actor.actor = learner.actor()
            meta = {"source": _SOURCE, "model": f"after {learner.updates} updates"}
            records = roll_out(cell, actor, task, missing, run.steps, meta)
            found |= {n: bags.add(record) for n, record in zip(missing, records, strict=True)}
        for episode in found.values():
            assert episode is not None
            learner.add([episode])
            index += 1
            if index < saved.episodes:
                continue
            if index == saved.episodes:
                saved.load(learner)
            learner.improve()
            progress(learner, episode)
            if index % run.save_every == 0:
                saved.save(learner, index)
    return learner


def try_policy(
    task: Task, cell: Hands, actor: Actor, steps: int, seed: int, episodes: int
) -> list[EpisodeRecord]:
    """Run fresh episodes of a policy without noise, one a seed."""
    first = seed * _SEEDS_PER_RUN + _EVALUATION_SEEDS
    acting = NetworkActor(units_of(task), cell.hands, actor, explores=False)
    meta = {"source": "evaluation"}
    return roll_out(cell, acting, task, range(first, first + episodes), steps, meta)


class _Saved:
    """The state of training after a number of episodes, as one file whose name tells it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = sorted(folder.glob("learner_*.pt"))
        self._path = found[-1] if found else None
        self.episodes = int(found[-1].stem.split("_")[1]) if found else 0

    def load(self, learner: OffPolicyLearner) -> None:
        if self._path is not None:
            learner.load(self._path)

    def save(self, learner: OffPolicyLearner, episodes: int) -> None:
        former, self._path = self._path, self._folder / f"learner_{episodes:06d}.pt"
        learner.save(self._path)
        if former is not None and former != self._path:
            former.unlink(missing_ok=True)
