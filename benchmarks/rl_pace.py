# SPDX-License-Identifier: Apache-2.0
"""A robot that does not wait for its learner beside one that does, for as long on the clock."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from twinloop.learning.acting import ActingSettings, act, lives
from twinloop.learning.action_units import units_of
from twinloop.learning.episode_bags import EpisodeBags
from twinloop.learning.following_bags import FollowingSettings, follow
from twinloop.learning.network_actor import NetworkActor
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.policy_run import try_policy
from twinloop.learning.rollout import roll_out
from twinloop.models.actor import Actor

PERIOD_S = 0.02  # of both, four tenths of the environment's own
Make = Callable[[], Any]


def asynchronous(
    folder: Path, make: Make, settings: OffPolicySettings, seed: int, seconds: float, trials: int
) -> dict[str, Any]:
    """Act at the nominal pace, while another process learns."""
    folder.mkdir(parents=True, exist_ok=True)
    task, cell = make()
    learner = multiprocessing.get_context("spawn").Process(
        target=_learn, args=(folder, make, settings, seed), daemon=True
    )
    learner.start()
    _wait_for_imports(folder)
    end_s = time.monotonic() + seconds
    acting = ActingSettings(steps=task.episode_steps, period_s=PERIOD_S, first=settings.first)
    acted = act(folder, task, cell, acting, seed, lambda: time.monotonic() > end_s)
    (folder / "stop").touch()
    learner.join()
    from twinloop.learning import checkpoint

    found = checkpoint.load_model(folder, "policy")
    if found is None or not isinstance(found[0], Actor):
        raise RuntimeError("the learner left no policy")
    periods = np.array(acted.periods_s)
    return measured(task, cell, found[0], seed, trials) | {
        "transitions": acted.transitions,
        "updates": found[1]["updates"],
        "swaps": acted.swaps,
        "period_ms_median": 1e3 * float(np.median(periods)),
        "period_ms_p99": 1e3 * float(np.quantile(periods, 0.99)),
        "period_p99_over_nominal": float(np.quantile(periods, 0.99)) / PERIOD_S,
        "load": os.getloadavg()[0],
    }


def synchronous(
    folder: Path, make: Make, settings: OffPolicySettings, seed: int, seconds: float, trials: int
) -> dict[str, Any]:
    """Act at the same pace, and stand still after each episode while it is learned from."""
    task, cell = make()
    learner = OffPolicyLearner(task, settings, seed)
    bags = EpisodeBags(folder / "bags", task.contract)
    actor = NetworkActor(units_of(task), 1)
    paced = _Paced(cell)
    end_s, index = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        number = 1_000_000 * seed + index
        meta = {"source": "explore", "model": ""}
        episode = roll_out(paced, actor, task, [number], task.episode_steps, meta)[0]
        learner.add([bags.add(episode)])
        learner.improve(time_limit_s=end_s - time.monotonic())
        actor.actor = learner.actor() if learner.updates else None
        index += 1
    return measured(task, cell, learner.actor(), seed, trials) | {
        "transitions": learner.transitions,
        "updates": learner.updates,
        "load": os.getloadavg()[0],
    }


def measured(task: Any, cell: Any, actor: Actor, seed: int, trials: int) -> dict[str, Any]:
    """Return what a policy earns in fresh episodes without noise."""
    records = try_policy(task, cell, actor, task.episode_steps, seed, trials)
    totals = [task.total(record.episode, units_of(task)) for record in records]
    return {
        "seed": seed,
        "trials": trials,
        "return_mean": float(np.mean(totals)),
        "return_worst": float(np.min(totals)),
    }


class _Paced:
    """A cell whose steps take as long as a robot's."""

    def __init__(self, cell: Any) -> None:
        self._cell, self._due_s = cell, 0.0
        self.hands = cell.hands

    def reset(self, *arguments: Any, **options: Any) -> Any:
        self._due_s = time.monotonic()
        return self._cell.reset(*arguments, **options)

    def step(self, action: Any) -> Any:
        found = self._cell.step(action)
        self._due_s += PERIOD_S
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cell, name)


def _learn(folder: Path, make: Make, settings: OffPolicySettings, seed: int) -> None:
    torch.set_num_threads(1)
    task, cell = make()
    cell.close()
    (folder / "ready").touch()
    gone = lives(os.getppid())
    following = FollowingSettings(save_s=60.0)
    follow(folder, task, settings, following, seed, lambda: gone() or (folder / "stop").exists())


def _wait_for_imports(folder: Path) -> None:
    """The clock starts once both processes are there, as robots and learners mostly are."""
    while not (folder / "ready").exists():
        time.sleep(0.1)
