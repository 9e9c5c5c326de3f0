# SPDX-License-Identifier: Apache-2.0
"""Linear-Gaussian policies in cells, and their episodes as rollouts of states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinloop.learning.episode import Episode
from twinloop.planners.base import PlanStats
from twinloop.planners.linear_quadratic.cost import Cost
from twinloop.planners.linear_quadratic.encoding import Encoding
from twinloop.planners.linear_quadratic.policy import LinearPolicy
from twinloop.tasks.base import Task

Array = NDArray[np.float64]


class LinearActor:
    """Does what a policy says at each step of an episode; see `rollout.Actor`.

    Args:
        hands: how many are acted for.
        explores: with the policy's noise, or with its mean alone.
    """

    def __init__(
        self, policy: LinearPolicy, encoding: Encoding, hands: int, explores: bool
    ) -> None:
        self._policy, self._encoding, self._explores = policy, encoding, explores
        self._steps = np.zeros(hands, dtype=int)
        self._rng = [np.random.default_rng(0) for _ in range(hands)]

    def start(self, hand: int, seed: int) -> None:
        """Begin an episode of one hand."""
        self._steps[hand] = 0
        self._rng[hand] = np.random.default_rng([seed, 5])

    def aim(self, hand: int, task: Task) -> None:
        """The goal is in the observation."""

    def act(
        self, observations: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], list[PlanStats] | None]:
        """Return actions: [N, O] -> [N, A]."""
        states = self._encoding.encode(observations)
        actions = np.empty((len(states), self._policy.offset.shape[1]))
        for hand, (step, state) in enumerate(zip(self._steps, states, strict=True)):
            if self._explores:
                noise = self._rng[hand].normal(size=actions.shape[1])
                actions[hand] = self._policy.sample(step, state, noise)
            else:
                actions[hand] = self._policy.mean(step, state)
        self._steps += 1
        return actions, None


def rollouts_of(episodes: Sequence[Episode], encoding: Encoding) -> tuple[Array, Array]:
    """Return states [N, T+1, X] and actions [N, T, U] of episodes of one length.

    Raises:
        ValueError: episodes of different lengths, or none.
    """
    lengths = sorted({len(episode) for episode in episodes})
    if len(lengths) != 1:
        raise ValueError(f"episodes have {lengths} steps, expected one length")
    observations = np.stack([episode.observations for episode in episodes])
    actions = np.stack([episode.actions for episode in episodes])
    return encoding.encode(observations), actions.astype(np.float64)


def begun(episode: Episode, steps: int) -> Episode:
    """Return an episode's first steps."""
    if len(episode) == steps:
        return episode
    return Episode(
        np.asarray(episode.observations[: steps + 1]), episode.actions[:steps], episode.meta
    )


def cost_of(task: Task, encoding: Encoding) -> Cost:
    """Return a task's cost of states: of the observation that they stand for, with its goal at
    zero where states do not keep it."""
    decoder = torch.from_numpy(encoding.decoder)
    target = torch.zeros(0, dtype=torch.float64)

    def cost(state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        return task.cost(decoder @ state, action, target)

    return cost
