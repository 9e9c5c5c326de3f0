# SPDX-License-Identifier: Apache-2.0
"""Policies of a task by name: how they are trained, and versions of a registry made of them."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from twinloop import tasks
from twinloop.bags.errors import BagError
from twinloop.contract import Contract
from twinloop.learning import checkpoint
from twinloop.learning.acting import ActingSettings, act, lives
from twinloop.learning.episode import Episode
from twinloop.learning.episode_bags import read_bags
from twinloop.learning.following_bags import FollowingSettings, follow
from twinloop.learning.model_file import Candidate, Lineage
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.offline import OfflineLearner, OfflineSettings
from twinloop.learning.policy_run import PolicyRunSettings, learn_policy
from twinloop.learning.train import bag_folders
from twinloop.models.actor import Actor
from twinloop.paths import share
from twinloop.tasks.base import Task
from twinloop.yaml_files import read_yaml

Algorithm = Literal["sac", "bc", "iql", "bear"]
OFFLINE = ("bc", "iql", "bear")
_SLICE = 500  # offline gradient steps between two words about them
S = TypeVar("S", OffPolicySettings, OfflineSettings)


def online_settings(task: str, **changes: Any) -> OffPolicySettings:
    """Return how a task's policy is learned online: `sac` of config/training/<task>.yaml.

    Raises:
        ValueError: the file has an unknown setting or a bad value; the message names both.
    """
    return _settings(OffPolicySettings, task, "sac", changes)


def offline_settings(task: str, algorithm: str, **changes: Any) -> OfflineSettings:
    """Return how a policy is learned from bags: `offline` of config/training/<task>.yaml.

    Raises:
        ValueError: the file has an unknown setting or a bad value; the message names both.
    """
    return _settings(OfflineSettings, task, "offline", {"algorithm": algorithm} | changes)


def train_online(
    folder: Path,
    task: str,
    goal: str,
    transitions: int,
    seed: int,
    settings: OffPolicySettings,
    asynchronous: bool,
    told: Callable[[int], None],
) -> tuple[Actor, Lineage, dict[str, float | None]]:
    """Learn a policy in a twin, which with `asynchronous` keeps real time and waits for nothing.

    Args:
        told: is given the transitions so far, after each episode.

    Raises:
        LibraryMissing: Stable-Baselines3 is not installed.
        ValueError: the task's goal is not in its observation.
    """
    from twinloop_sim import cells

    made = tasks.make(task, goal)
    # Says at once what cannot be learned, or by what.
    OffPolicyLearner(made, settings, seed)
    cell = cells.make(task, 1)
    about = {"task": task, "goal": goal, "seed": seed, "asynchronous": asynchronous}
    checkpoint.start_run(folder, about | asdict(settings))
    try:
        if asynchronous:
            return _asynchronous(folder, made, cell, transitions, seed, settings, told)
        run = PolicyRunSettings(transitions, made.episode_steps)

        def progress(learner: OffPolicyLearner, _episode: Episode) -> None:
            told(learner.transitions)

        learner = learn_policy(folder, made, cell, run, settings, seed, progress)
    finally:
        cell.close()
    metrics: dict[str, float | None] = {"updates": float(learner.updates)}
    lineage = Lineage(transitions=learner.transitions, total_transitions=learner.transitions)
    return learner.actor(), lineage, metrics


def train_offline(
    bags: Path, contract: Contract, goal: str, settings: OfflineSettings, seed: int
) -> tuple[OfflineLearner, Lineage]:
    """Return a learner of a policy from bags, before its first gradient step.

    Raises:
        BagError: a bag is damaged, or there is none.
        ValueError: the task's goal is not in its observation, or bags hold no transitions.
    """
    episodes = read_bags(bag_folders(bags), contract)
    if not episodes:
        raise BagError(bags, "holds no complete bag of an episode")
    learner = OfflineLearner(tasks.make(contract.name, goal), episodes, settings, seed)
    ids = tuple(dict.fromkeys(str(episode.meta["episode_id"]) for episode in episodes))
    return learner, Lineage(
        episodes=ids,
        transitions=learner.transitions,
        total_episodes=len(ids),
        total_transitions=learner.transitions,
        seed=seed,
    )


def slices(updates: int) -> list[int]:
    """Return gradient steps in portions, between which something can be said."""
    return [min(_SLICE, updates - done) for done in range(0, updates, _SLICE)]


def candidate(
    actor: Actor,
    contract: Contract,
    lineage: Lineage,
    metrics: dict[str, float | None],
    seed: int,
    command: str,
) -> Candidate:
    """Return a policy on its way into the registry."""
    lineage = lineage.model_copy(update={"command": command, "seed": seed})
    return Candidate(actor, contract, lineage, metrics, status="seed")


def _asynchronous(
    folder: Path,
    task: Task,
    cell: Any,
    transitions: int,
    seed: int,
    settings: OffPolicySettings,
    told: Callable[[int], None],
) -> tuple[Actor, Lineage, dict[str, float | None]]:
    following = FollowingSettings(transitions=transitions)
    learner = multiprocessing.get_context("spawn").Process(
        target=_follow,
        args=(folder, partial(tasks.make, task.name, task.goal), settings, following, seed),
        daemon=True,
    )
    learner.start()
    counted = 0

    def stop() -> bool:
        nonlocal counted
        counted += 1
        if counted % 50 == 0:
            told(min(counted, transitions))
        return False

    acting = ActingSettings(
        steps=task.episode_steps,
        transitions=transitions,
        period_s=task.contract.period_s,
        smoothing=settings.smoothing,
        first=settings.first,
        about_pose=settings.about_pose,
    )
    acted = act(folder, task, cell, acting, seed, stop)
    learner.join()
    found = checkpoint.load_model(folder, "policy")
    if learner.exitcode or found is None or not isinstance(found[0], Actor):
        raise RuntimeError(f"the learner ended with {learner.exitcode} and left no policy")
    metrics: dict[str, float | None] = {"updates": found[1]["updates"], "swaps": float(acted.swaps)}
    lineage = Lineage(transitions=acted.transitions, total_transitions=acted.transitions)
    return found[0], lineage, metrics


def _follow(
    folder: Path,
    make: Callable[[], Task],
    settings: OffPolicySettings,
    following: FollowingSettings,
    seed: int,
) -> None:
    """The learner's process; it ends with the one that started it."""
    follow(folder, make(), settings, following, seed, lives(os.getppid()))


def _settings(kind: type[S], task: str, section: str, changes: dict[str, Any]) -> S:
    path = share("config", "training") / f"{task}.yaml"
    content = (read_yaml(path) if path.is_file() else {}).get(section) or {}
    unknown = sorted(set(content) - set(kind.__dataclass_fields__))
    if unknown:
        raise ValueError(f"{path}: {section}: unknown settings {unknown}")
    try:
        made = TypeAdapter(kind).validate_json(json.dumps(content))
    except ValidationError as error:
        raise ValueError(f"{path}: {section}: {error}") from error
    return replace(made, **changes)
