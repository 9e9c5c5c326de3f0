# SPDX-License-Identifier: Apache-2.0
"""Learns a proposal policy off policy, from any episodes of a task: rewards come from observations.

The learner keeps every transition. Between two rounds of episodes it takes as many gradient steps
as `updates` says for each new transition.

A policy in training is not steady: now it keeps all balls, some rounds later it drops every fourth.
So every other episode is played without noise, and the policy to use is that of the time in which
such episodes went best: in which most of them succeeded, or where as many did, earned most. Rewards
alone mislead: a policy that turns quickly and then drops a ball earns more than one that takes its
time and keeps it. A single round of that time would mislead, too, as few episodes speak for it:
what is used are the mean weights of all of its rounds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinloop.learning.action_units import change_units
from twinloop.learning.checkpoint import CheckpointInvalid
from twinloop.learning.episode import Episode
from twinloop.learning.goals import Goals
from twinloop.learning.soft_actor_critic import Actor, Batch, SACConfig, SoftActorCritic
from twinloop.learning.step_replay import Runs, StepReplay
from twinloop.models.proposal import Proposal, ProposalConfig
from twinloop.planners.base import PlanStats
from twinloop.tasks.base import Task

_FORM = 2  # of the files that `save` writes
Weights = dict[str, Tensor]
Packed = tuple[dict[str, Any], Weights]  # config and tensors of a network


@dataclass(frozen=True)
class PolicyConfig:
    """How a policy is trained.

    Attributes:
        hidden: widths of the policy's layers.
        updates: gradient steps a transition.
        augment: whether equivalent views, such as with the balls swapped, are learned from alike.
        trial: latest episodes without noise that tell how good the policies of their rounds are,
            whose mean is the one to use if none went better; 0: it is always the latest.
        sac: settings of the actor-critic.
    """

    hidden: tuple[int, ...] = (256, 256)
    updates: float = 1.0
    augment: bool = True
    trial: int = 32
    sac: SACConfig = field(default_factory=SACConfig)


def new_proposal(
    task: Task,
    max_change: float,
    hidden: tuple[int, ...] = (256, 256),
    squashed: bool = True,
    rest: tuple[float, float] | None = None,
) -> Proposal:
    """Return an untrained proposal for a task's observations and targets; see ProposalConfig."""
    return Proposal(
        ProposalConfig(
            observation_size=task.observation_size,
            action_size=task.action_size,
            hidden=hidden,
            command=(task.command.start, task.command.stop),
            joint_position=(task.joint_position.start, task.joint_position.stop),
            target_of=task.target_of,
            symmetry=task.symmetry,
            max_change=max_change,
            layer_norm=squashed,
            squash=squashed,
            rest=rest,
        )
    )


@dataclass(frozen=True)
class _Tried:
    """How the calm episodes of a round went, each a success (1 or 0) and a return, and the policy
    that acted."""

    results: list[tuple[float, float]]
    weights: Weights


class PolicyLearner:
    """A policy that grows with a task's episodes.

    Args:
        goals: give targets and rewards.
        max_change: largest change of a target in a step.
        seed: of first weights and minibatches.
    """

    def __init__(self, goals: Goals, max_change: float, seed: int, config: PolicyConfig) -> None:
        self.goals, self.task, self.config = goals, goals.task, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # layers draw their first weights from the global generator
            self.proposal = new_proposal(self.task, max_change, config.hidden)
            self.sac = SoftActorCritic(self.proposal, config.sac, seed)
        units = change_units(self.task.command, max_change, self.task.action_size)
        self._replay = StepReplay(units, goals.size)
        self._max_change = max_change
        action = self.task.contract.action
        self._reach = torch.tensor([action.lower, action.upper])[:, None]  # [2, 1, A]
        self._symmetry = torch.tensor(self.task.symmetry, dtype=torch.int64)
        self._is_scaled = False
        self._owed = 0.0
        self._tried: list[_Tried] = []  # the latest rounds
        self._best: tuple[tuple[float, float], Weights] | None = None

    @property
    def transitions(self) -> int:
        """Number of transitions taken so far."""
        return self._replay.transitions

    def add(self, episodes: Sequence[Episode]) -> None:
        """Take episodes of a round; the first ones also set the scales of what the policy sees.

        Later ones have been acted by the policy as it is now.
        """
        if self._is_scaled and self.config.trial:
            self._judge(episodes)
        for episode in episodes:
            self._replay.add(episode, self.goals.of(episode))
            self._owed += len(episode) * self.config.updates
        if not self._is_scaled and self.transitions:
            observations, goal = self._replay.observations()
            self.proposal.normalise(observations, self.goals.targets(observations, goal))
            self._is_scaled = True

    def forgive(self) -> None:
        """Take no gradient steps for the transitions added so far."""
        self._owed = 0.0

    def improve(self, time_limit_s: float = float("inf")) -> int:
        """Take the gradient steps that new transitions are owed; returns how many were taken.

        With a time limit the rest stays owed.
        """
        began, done = time.monotonic(), 0
        while self._owed >= 1.0 and time.monotonic() - began < time_limit_s:
            self.sac.update(self._batch())
            self._owed -= 1.0
            done += 1
        return done

    def explorer(self) -> Packed:
        """Return what another process needs to explore with this policy: its average, and the
        noise of the latest."""
        tensors = {k: v.detach().clone() for k, v in self.sac.actor.state_dict().items()}
        tensors |= {f"proposal.{k}": v for k, v in self.sac.policy().state_dict().items()}
        return self.proposal.config.model_dump(mode="json"), tensors

    def policy(self) -> Proposal:
        """Return a frozen copy of the policy of the best time so far."""
        policy = self.sac.policy()
        if self._best is not None:
            policy.load_state_dict(self._best[1])
        return policy

    def _judge(self, episodes: Sequence[Episode]) -> None:
        """Keep the mean policy of the latest rounds, if these went best of all."""
        results = [
            (float(self.goals.succeeded(e)), self._total(e))
            for e in episodes
            if is_calm(int(e.meta["seed"]))
        ]
        weights = {k: v.clone() for k, v in self.sac.policy().state_dict().items()}
        self._tried.append(_Tried(results, weights))
        counts = np.cumsum([len(tried.results) for tried in reversed(self._tried)])
        if counts[-1] < self.config.trial:
            return
        rounds = int(np.argmax(counts >= self.config.trial)) + 1
        self._tried = self._tried[-rounds:]
        success, earned = np.mean([row for tried in self._tried for row in tried.results], axis=0)
        mean = float(success), float(earned)
        if self._best is None or mean > self._best[0]:
            self._best = mean, _mean([tried.weights for tried in self._tried])

    def _total(self, episode: Episode) -> float:
        """Return the sum of an episode's rewards."""
        seen = torch.from_numpy(np.asarray(episode.observations, dtype=np.float32))
        actions = torch.from_numpy(np.asarray(episode.actions, dtype=np.float32))
        change = ((actions - seen[:-1, self.task.command]) / self._max_change).clamp(-1.0, 1.0)
        goal = torch.tensor(self.goals.of(episode)).expand(len(change), -1)
        return float(self.goals.reward(seen[:-1], change, seen[1:], goal).sum())

    def save(self, path: Path, mark: int = 0) -> None:
        """Write the state of training, without the episodes, as a file that appears whole.

        `mark` tells which episodes it has learned from.
        """
        fresh = path.with_suffix(".part")
        with fresh.open("wb") as file:
            state = {
                "form": _FORM,
                "sac": self.sac.state(),
                "owed": self._owed,
                "mark": mark,
                "tried": [(tried.results, tried.weights) for tried in self._tried],
                "best": self._best,
            }
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    @staticmethod
    def mark(path: Path) -> int | None:
        """Return the mark of a file that `save` wrote, None where there is none."""
        return int(torch.load(path, weights_only=True)["mark"]) if path.exists() else None

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote; the episodes up to then have been added already.

        Raises:
            CheckpointInvalid: the file was written in another form.
        """
        state = torch.load(path, weights_only=True)
        if state.get("form") != _FORM:
            raise CheckpointInvalid(
                f"{path}: form is {state.get('form')!r}, expected {_FORM}; learn from the bags of "
                "its run instead (--from-bags)"
            )
        self.sac.load(state["sac"])
        self._owed = float(state["owed"])
        self._is_scaled = True
        self._tried = [_Tried(*tried) for tried in state["tried"]]
        self._best = state["best"]

    def _batch(self) -> Batch:
        c = self.config.sac
        runs = self._replay.draw(c.batch, c.steps, self.sac.generator)
        ends = runs.observations[torch.arange(len(runs.steps)), runs.steps]
        first = runs.observations[:, 0]
        with torch.no_grad():
            goal = self.goals.relabel(runs, self.sac.generator)
            features = self.proposal.features(first, self.goals.targets(first, goal))
            following = self.proposal.features(ends, self.goals.targets(ends, goal))
            reward = self._returns(runs, goal)
        if self.config.augment and len(self._symmetry):
            # Which of the equivalent views is seen is drawn anew each time.
            swap = torch.rand(len(first), generator=self.sac.generator)[:, None] < 0.5
            features = torch.where(swap, features[:, self._symmetry], features)
            following = torch.where(swap, following[:, self._symmetry], following)
        return Batch(
            features,
            runs.actions[:, 0],
            reward,
            following,
            c.discount**runs.steps * (1.0 - runs.failed),
            self._limits(first),
            self._limits(ends),
        )

    def _limits(self, observation: Tensor) -> Tensor:
        """Return the least and largest change of the targets that joint limits leave, in units of
        the largest one: [B, O] -> [2, B, A]."""
        room = (self._reach - observation[:, self.task.command]) / self._max_change
        return room.clamp(-1.0, 1.0)

    def _returns(self, runs: Runs, goal: Tensor) -> Tensor:
        """Return the discounted sum of the rewards of each run [B]."""
        steps = torch.arange(runs.actions.shape[1])
        before, after = runs.observations[:, :-1], runs.observations[:, 1:]
        goals = goal[:, None].expand(-1, len(steps), -1)
        earned = self.goals.reward(before, runs.actions, after, goals)
        counts = (steps < runs.steps[:, None]) * self.config.sac.discount**steps
        return (earned * counts).sum(1)


def _mean(several: Sequence[Weights]) -> Weights:
    return {name: torch.stack([w[name] for w in several]).mean(0) for name in several[0]}


def is_calm(seed: int) -> bool:
    """Return whether the episode of a seed is played without noise."""
    return seed % 2 == 0


class ExploringActor:
    """Draws actions from a policy that is being trained, or in calm episodes its mean.

    Every hand has its own random numbers: what it does depends on its seed alone.
    """

    def __init__(self, packed: Packed, goals: Goals, hands: int) -> None:
        config = ProposalConfig.model_validate(packed[0])
        self.goals = goals
        self.goal = torch.zeros(hands, goals.size)  # what each hand is after
        self._actor = Actor(Proposal(config), SACConfig())
        self._actor.load_state_dict(packed[1])
        self._rng = [np.random.default_rng(0) for _ in range(hands)]
        self._is_calm = torch.zeros(hands, 1, dtype=torch.bool)

    def start(self, hand: int, seed: int) -> None:
        self._rng[hand] = np.random.default_rng([seed, 2])
        self._is_calm[hand] = is_calm(seed)

    def aim(self, hand: int, task: Task) -> None:
        """Let a hand pursue this task, whose episode has begun."""
        self.goal[hand] = torch.tensor(self.goals.vector(task))

    @torch.no_grad()
    def act(
        self, observations: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], list[PlanStats] | None]:
        config = self._actor.proposal.config
        seen = torch.as_tensor(observations, dtype=torch.float32)
        features = self._actor.proposal.features(seen, self.goals.targets(seen, self.goal))
        noise = np.stack([rng.standard_normal(config.action_size) for rng in self._rng])
        drawn, _ = self._actor.sample(features, torch.from_numpy(noise).float())
        change = torch.where(self._is_calm, self._actor.proposal.change(features), drawn)
        command = seen[:, slice(*config.command)]
        return (command + config.max_change * change).double().numpy(), None
