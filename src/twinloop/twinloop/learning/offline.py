# SPDX-License-Identifier: Apache-2.0
"""Policies from recorded episodes alone, which stay within what was recorded.

`bc` clones: actions as recorded. `iql` is implicit Q-learning (Kostrikov, Nair, Levine, arXiv
2110.06169): values by expectile regression on recorded actions alone, and a policy that is cloned
with more weight on actions that did better than usual. `bear` maximises the critics within the
support of a clone, by a bound on the maximum mean discrepancy (Kumar et al., arXiv 1906.00949).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from twinloop.learning.action_units import units_of
from twinloop.learning.episode import Episode
from twinloop.learning.off_policy import require_observed_goal
from twinloop.learning.policy_input import PolicyInput
from twinloop.learning.step_replay import StepReplay
from twinloop.models.actor import Actor, ActorConfig
from twinloop.models.layers import BatchedMLP
from twinloop.tasks.base import Task

Algorithm = Literal["bc", "iql", "bear"]


class NoTransitions(ValueError):
    """There is nothing to learn from."""


@dataclass(frozen=True)
class OfflineSettings:
    """How a policy is learned from bags.

    Attributes:
        algorithm: see the module.
        hidden: widths of the layers of actor, critics and value.
        updates: gradient steps.
        discount: of rewards, a control step.
        target_rate: of the slow copy of the critics.
        expectile: of the values that V aims at; 0.5 is the mean, towards 1 the best that was done.
        temperature: weight of an action is exp(temperature · advantage), at most `most_weight`.
        divergence: bound on the maximum mean discrepancy of `bear`.
        samples: actions that are compared for it.
    """

    algorithm: Algorithm = "iql"
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch: int = 256
    updates: int = 20_000
    discount: float = 0.99
    target_rate: float = 0.005
    expectile: float = 0.7
    temperature: float = 3.0
    most_weight: float = 100.0
    divergence: float = 0.05
    samples: int = 5

    def __post_init__(self) -> None:
        if not 0.0 < self.expectile < 1.0:
            raise ValueError(f"expectile is {self.expectile}, expected between 0 and 1")
        if self.updates < 1 or self.batch < 1:
            raise ValueError(
                f"updates is {self.updates} and batch {self.batch}, expected at least 1"
            )


class _Batch(NamedTuple):
    seen: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    ends: Tensor


class OfflineLearner:
    """Networks that learn from episodes that are all there from the start.

    Args:
        task: gives rewards, sizes and limits; its goal has to stand in the observation.
        seed: of first weights and minibatches.

    Raises:
        NoTransitions: the episodes hold none.
        ValueError: the task's goal is not in its observation.
    """

    def __init__(
        self, task: Task, episodes: Sequence[Episode], settings: OfflineSettings, seed: int = 0
    ) -> None:
        require_observed_goal(task)
        self.task, self.settings = task, settings
        self._replay = StepReplay(units_of(task))
        for episode in episodes:
            self._replay.add(episode)
        if not self._replay.transitions:
            raise NoTransitions("the bags hold no transitions to learn from")
        self._input = PolicyInput(task)
        self._input.set_scales(self._replay.observations()[0])
        self._generator = torch.Generator().manual_seed(seed)
        s, o, a = settings, task.observation_size, task.action_size
        self._policy = self._new_actor("state" if s.algorithm == "bear" else "none", seed)
        self._clone = self._new_actor("state", seed + 1)  # of `bear`
        self._critics = BatchedMLP(2, o + a, s.hidden, 1, self._generator)
        self._slow = copy.deepcopy(self._critics).requires_grad_(False)
        self._value = BatchedMLP(1, o, s.hidden, 1, self._generator)
        self._log_price = torch.zeros((), requires_grad=True)  # of divergence, in `bear`
        networks: list[nn.Module] = [self._policy, self._clone, self._critics, self._value]
        parameters = [p for network in networks for p in network.parameters()]
        self._optimizer = torch.optim.Adam([*parameters, self._log_price], s.learning_rate)
        self.updates = 0

    @property
    def transitions(self) -> int:
        """Number of recorded transitions."""
        return self._replay.transitions

    def improve(self, most: int | None = None) -> int:
        """Take the gradient steps that are left, at most so many; returns how many were taken."""
        left = self.settings.updates - self.updates
        count = left if most is None else min(most, left)
        losses = {"bc": self._bc, "iql": self._iql, "bear": self._bear}
        loss_of = losses[self.settings.algorithm]
        for _ in range(count):
            loss = loss_of(self._draw())
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            self._follow()
            self.updates += 1
        return count

    @torch.no_grad()
    def values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return the lower of the critics' values: [B, O] and actions in units of ±1, as of
        `ActionUnits` [B, A] -> [B]."""
        done = self._input.actions(observations, actions)
        return _q(self._critics, self._input.of(observations), done).amin(0)

    def actor(self) -> Actor:
        """Return a frozen copy of the policy."""
        return self._input.shown_to(self._policy)

    def _new_actor(self, deviation: Literal["state", "none"], seed: int) -> Actor:
        return Actor(
            ActorConfig(
                observation_size=self.task.observation_size,
                action_size=self.task.action_size,
                hidden=self.settings.hidden,
                deviation=deviation,
            ),
            seed,
        )

    def _draw(self) -> _Batch:
        runs = self._replay.draw(self.settings.batch, 1, self._generator)
        observations, actions = self._input.mirrored(
            runs.observations, runs.actions, self._generator
        )
        seen, following = observations.unbind(1)
        return _Batch(
            self._input.of(seen),
            self._input.actions(seen, actions[:, 0]),
            self.task.reward(seen, actions[:, 0], following),
            self._input.of(following),
            runs.failed,
        )

    def _bc(self, batch: _Batch) -> Tensor:
        return self._cloning(batch, torch.ones(len(batch.seen)))

    def _iql(self, batch: _Batch) -> Tensor:
        s = self.settings
        with torch.no_grad():
            recorded = _q(self._slow, batch.seen, batch.action).amin(0)
            aim = batch.reward + s.discount * (1.0 - batch.ends) * self._v(batch.following)
        surplus = recorded - self._v(batch.seen)
        share = torch.where(surplus > 0, s.expectile, 1.0 - s.expectile)
        value_loss = (share * surplus.square()).mean()
        weight = (s.temperature * surplus.detach()).exp().clamp(max=s.most_weight)
        return value_loss + self._critic_loss(batch, aim) + self._cloning(batch, weight)

    def _bear(self, batch: _Batch) -> Tensor:
        s = self.settings
        with torch.no_grad():
            following = self._sampled(self._policy, batch.following, 1)[:, 0]
            best = _q(self._slow, batch.following, following).amin(0)
            aim = batch.reward + s.discount * (1.0 - batch.ends) * best
        acted = self._sampled(self._policy, batch.seen, s.samples)
        with torch.no_grad():
            cloned = self._sampled(self._clone, batch.seen, s.samples)
        apart = discrepancy(acted, cloned).mean() - s.divergence
        price = self._log_price.clamp(-5.0, 5.0).exp()
        gain = _q(self._slow, batch.seen, acted[:, 0]).amin(0).mean()
        actor_loss = -gain + price.detach() * apart - price * apart.detach()
        return self._critic_loss(batch, aim) + actor_loss + self._clone_loss(batch)

    def _critic_loss(self, batch: _Batch, aim: Tensor) -> Tensor:
        return (_q(self._critics, batch.seen, batch.action) - aim).square().mean(1).sum()

    def _cloning(self, batch: _Batch, weight: Tensor) -> Tensor:
        mean, _ = self._policy.moments(batch.seen)
        error = (torch.tanh(mean[:, 0]) - batch.action).square().sum(-1)
        return (weight * error).mean()

    def _clone_loss(self, batch: _Batch) -> Tensor:
        """Return the negative log likelihood of recorded actions, before they are squashed."""
        mean, log = self._clone.moments(batch.seen)
        assert log is not None
        raw = torch.atanh(batch.action.clamp(-0.999, 0.999))
        log = log[:, 0].clamp(-5.0, 2.0)
        return (0.5 * ((raw - mean[:, 0]) / log.exp()).square() + log).sum(-1).mean()

    def _sampled(self, actor: Actor, seen: Tensor, count: int) -> Tensor:
        """Return actions that an actor draws: [B, O] -> [B, count, A]."""
        mean, log = actor.moments(seen)
        assert log is not None
        noise = torch.randn(len(seen), count, mean.shape[-1], generator=self._generator)
        return torch.tanh(mean + log.clamp(-5.0, 2.0).exp() * noise)

    def _v(self, seen: Tensor) -> Tensor:
        value: Tensor = self._value(seen[None])[0, :, 0]
        return value

    @torch.no_grad()
    def _follow(self) -> None:
        for slow, fast in zip(self._slow.parameters(), self._critics.parameters(), strict=True):
            slow.lerp_(fast, self.settings.target_rate)


def discrepancy(one: Tensor, other: Tensor, width: float = 1.0) -> Tensor:
    """Return the squared maximum mean discrepancy of samples [B, N, A] and [B, M, A] -> [B], with
    the Laplacian kernel (Gretton et al., JMLR 13, 2012, equation 3; arXiv 1906.00949, appendix C).

    Without what samples have in common with themselves, its mean is 0 for samples of one
    distribution, however few they are. Distances are means over the elements of an action, so that
    samples of many elements do not all seem infinitely far from each other.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (-(x[:, :, None] - y[:, None]).abs().mean(-1) / width).exp()

    def within(x: Tensor) -> Tensor:
        count = x.shape[1]
        return (kernel(x, x).sum((1, 2)) - count) / (count * (count - 1))

    return within(one) + within(other) - 2.0 * kernel(one, other).mean((1, 2))


def _q(critics: BatchedMLP, seen: Tensor, action: Tensor) -> Tensor:
    """Return values [C, B] of inputs [B, O] and actions in ±1 [B, A]."""
    joined = torch.cat([seen, action], dim=-1).expand(2, -1, -1)
    values: Tensor = critics(joined)[..., 0]
    return values
