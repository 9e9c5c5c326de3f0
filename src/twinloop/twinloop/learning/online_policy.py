# SPDX-License-Identifier: Apache-2.0
"""What a job of the online learner does where a policy is learned: soft actor-critic on its bags.

Each job goes on from `learner.pt` and all bags, takes the gradient steps that the update-to-data
ratio allows, and gives the policy away as a version of the registry. The state is written before
the version: a job that is killed anywhere is done again from the state before it, or only gives
away what it had learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from twinloop import tasks
from twinloop.learning.episode import Episode
from twinloop.learning.following_bags import STATE
from twinloop.learning.model_file import Candidate, Lineage, LoadedModel, Manifest
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings, require_observed_goal
from twinloop.learning.policy_gate import judge_new, judge_returns, whole_episodes
from twinloop.learning.policy_training import online_settings
from twinloop.learning.registry import Registry
from twinloop.models.actor import Actor
from twinloop.planners.policy import Acts
from twinloop.tasks.base import Task

if TYPE_CHECKING:
    from twinloop.learning.online_job import LearnerConfig

PLANNER = "policy"
_BY_HAND = "seed"


def settings_of(config: LearnerConfig) -> OffPolicySettings:
    """Return how the policy is learned: `sac` of config/training/<task>.yaml, and what the learner
    was told otherwise.

    Raises:
        ValueError: a setting is unknown or out of range.
    """
    settings = config.learning or online_settings(config.task)
    if config.updates_per_transition:
        settings = replace(settings, updates=config.updates_per_transition)
    if config.first_transitions:
        settings = replace(settings, first=config.first_transitions)
    return settings


def require_learnable(config: LearnerConfig) -> None:
    """Refuse what no job could learn.

    Raises:
        ValueError: settings are wrong, or the task's goal is not in its observation.
    """
    settings_of(config)
    require_observed_goal(tasks.make(config.task, config.goal))


class PolicyLearning:
    """The part of a job that learns a policy, gates it, and takes it back.

    Args:
        report: as that of the job.
    """

    def __init__(
        self, config: LearnerConfig, registry: Registry, report: Callable[..., None]
    ) -> None:
        self._config = config
        self._registry = registry
        self._report = report
        self._task: Task = tasks.make(config.task, config.goal)
        self._state: Path = config.journal_folder / STATE

    def learn(self, running: LoadedModel | None, episodes: Sequence[Episode]) -> None:
        """Learn from all episodes there are, and let what was learned act.

        Args:
            running: what acts, None where nothing can be loaded.
            episodes: of all complete bags, the oldest first.

        Raises:
            LibraryMissing: Stable-Baselines3 is not installed.
        """
        obstacle = self._obstacle(running, episodes)
        learner = self._learner(running)
        if learner is None:
            return
        learner.add(episodes)
        started, cpu = time.monotonic(), time.process_time()
        self._report(
            "training",
            f"on {learner.transitions} transitions, {max(learner.owed, 0)} gradient steps are due",
            transitions=learner.transitions,
        )
        done = learner.improve(self._config.train_updates, self._config.train_seconds)
        if not learner.is_finite:
            self._report("diverged", "weights are NaN or infinite; the state before them stays")
            return
        if done:
            learner.save(self._state)
        self._report(
            "progress",
            f"{done} gradient steps, {learner.updates} in all, {max(learner.owed, 0)} still due",
            updates=learner.updates,
        )
        if obstacle:
            self._report("waiting", obstacle)
            return
        if learner.updates == self._newest()[1] or learner.trains_critics_alone:
            self._report(
                "waiting",
                f"{learner.transitions} transitions and {learner.updates} gradient steps made no "
                f"other policy; the first {learner.settings.first} of each make none",
            )
            return
        metrics: dict[str, float | None] = {
            "updates": float(learner.updates),
            "owed": float(max(learner.owed, 0)),
            "train_seconds": time.monotonic() - started,
            "train_cpu_seconds": time.process_time() - cpu,
        }
        lineage = self._lineage(self._parent(running), episodes, learner.transitions)
        metrics.update(learner.figures())
        made = Candidate(learner.actor(), self._registry.contract, lineage, metrics)
        version = self._registry.add(made)
        self._report("candidate", f"{version} after {learner.updates} updates", version=version)
        self.gate(self._registry.load(version), running, episodes)
        self._registry.prune(self._config.keep_rejected)

    def gate(
        self, candidate: LoadedModel, running: LoadedModel | None, episodes: Sequence[Episode]
    ) -> None:
        """Decide on a policy that was not tried yet, and let it act where nothing forbids it."""
        assert isinstance(candidate.model, Actor)
        decision = judge_new(
            candidate.model, running.version if running else None, episodes, self._config.gate
        )
        self._registry.decide(candidate.version, decision)
        self._report(
            decision.verdict, f"{candidate.version}: {decision.reason}", version=candidate.version
        )

    def _obstacle(self, running: LoadedModel | None, episodes: Sequence[Episode]) -> str:
        """Return why no other policy is given away now, "" where nothing is in the way: the running
        one is to be judged first, or was just taken back."""
        if running is None or not isinstance(running.model, Actor):
            return ""
        gate = self._config.gate
        acted = len(whole_episodes(episodes, running.version))
        if acted < gate.returns_episodes:
            return (
                f"{running.version} has acted for {acted} whole episodes, "
                f"and is judged after {gate.returns_episodes}"
            )
        former = self._registry.former()
        if former is None or not isinstance(former.model, Actor):
            return ""
        decision = judge_returns(self._task, running.version, former.version, episodes, gate)
        if decision is None:
            return ""
        # In this order a crash between both leaves a policy that runs, and that may be judged.
        back_to = self._registry.rollback()
        self._registry.decide(running.version, decision)
        self._report(
            "rejected",
            f"{running.version}: {decision.reason}; {back_to} acts again",
            version=running.version,
        )
        return f"{back_to} acts until the next candidate"

    def _learner(self, running: LoadedModel | None) -> OffPolicyLearner | None:
        """Return a learner that goes on from its state, or else from the policy that acts; None
        where neither can be."""
        settings = settings_of(self._config)
        made = OffPolicyLearner(self._task, settings, self._config.seed)
        if self._state.exists() and not self._was_given_since(running):
            try:
                made.load(self._state)
                return made
            except ValueError as error:
                self._report("state_refused", f"{error}; the learner begins anew")
                made = OffPolicyLearner(self._task, settings, self._config.seed)
        if running is None or not isinstance(running.model, Acts):
            return made
        try:
            if not isinstance(running.model, Actor):
                raise ValueError("its file is a program of its own")
            made.start_from(running.model)
        except ValueError as error:
            self._report("waiting", f"{running.version} acts as it is, and is not learned: {error}")
            return None
        return made

    def _was_given_since(self, running: LoadedModel | None) -> bool:
        """Whether somebody chose a policy that was not learned here after the state was written."""
        if running is None or running.manifest.status != _BY_HAND:
            return False
        chosen = [one for one in self._registry.promotions() if one.version == running.version]
        if not isinstance(running.model, Acts) or not chosen or chosen[-1].is_rollback:
            return False
        at_s = datetime.fromisoformat(chosen[-1].at).timestamp()
        return at_s > self._state.stat().st_mtime

    def _newest(self) -> tuple[str | None, int]:
        """Return the newest policy that was learned here, and its number of gradient steps."""
        learned = list(self._learned().items())
        if not learned:
            return None, 0
        version, about = learned[-1]
        return version, int(about.metrics["updates"] or 0)

    def _learned(self) -> dict[str, Manifest]:
        """Return the policies that were learned here, oldest first."""
        return {
            version: about
            for version, about in self._registry.entries()
            if isinstance(about, Manifest)
            and about.status != _BY_HAND
            and about.architecture.get("kind") == "actor"
            and "updates" in about.metrics
        }

    def _parent(self, running: LoadedModel | None) -> str | None:
        """Return what the learner went on from: the newest policy learned here, or a later one that
        was given and acts."""
        newest = self._newest()[0]
        if running is None or not isinstance(running.model, Actor):
            return newest
        return max(newest or "", running.version, key=lambda name: int(name[1:] or 0))

    def _lineage(
        self, parent: str | None, episodes: Sequence[Episode], transitions: int
    ) -> Lineage:
        """Return where a version comes from: its episodes are those that its parent had not."""
        known = {name for about in self._learned().values() for name in about.lineage.episodes}
        sizes: dict[str, int] = {}
        for episode in episodes:
            name = str(episode.meta.get("episode_id", ""))
            sizes[name] = sizes.get(name, 0) + len(episode)
        fresh = {name: size for name, size in sizes.items() if name not in known}
        return Lineage(
            parent=parent,
            episodes=tuple(fresh),
            transitions=sum(fresh.values()),
            total_episodes=len(sizes),
            total_transitions=transitions,
            seed=self._config.seed,
            command="online learner",
        )
