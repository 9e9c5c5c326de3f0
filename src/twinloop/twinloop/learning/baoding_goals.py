# SPDX-License-Identifier: Apache-2.0
"""Baoding where every hand of a batch has a goal of its own: to turn either way, or places.

A goal is a vector [5]: the sign of the turn (1 ccw, -1 cw, 0 for places), then the places
(x1, z1, x2, z2) [m], which are 0 for turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from twinloop.learning.episode import Episode
from twinloop.learning.step_replay import Runs
from twinloop.tasks.baoding import Baoding

_TURN_RAD = 2.0


class BaodingGoals:
    """Targets and rewards for goals [..., 5]; see `twinloop.learning.goals.Goals`.

    Args:
        task: gives the settings; its own goal is not used.
        relabelled: share of runs that are learned for another goal than their episode's.
    """

    size = 5

    def __init__(self, task: Baoding, relabelled: float = 0.5) -> None:
        if not 0.0 <= relabelled <= 1.0:
            raise ValueError(f"relabelled is {relabelled}, expected a share from 0 to 1")
        self.task = task
        self.relabelled = relabelled

    def of(self, episode: Episode) -> Sequence[float]:
        """Return the goal of an episode from its meta `goal` and `places`.

        Raises:
            ValueError: a goal of places without them.
        """
        return self.vector(self._task_of(episode))

    def succeeded(self, episode: Episode) -> bool:
        """Return whether an episode reached the goal of its meta."""
        return self._task_of(episode).succeeded(episode)

    def _task_of(self, episode: Episode) -> Baoding:
        goal, places = str(episode.meta["goal"]), tuple(episode.meta.get("places", ()))
        return Baoding(goal, self.task.config, places)

    def vector(self, task: Baoding) -> tuple[float, ...]:
        """Return the goal of a task whose episode has begun.

        Raises:
            ValueError: it has no places yet.
        """
        if task.sign:
            return (task.sign, 0.0, 0.0, 0.0, 0.0)
        if task.places is None:
            raise ValueError(f"goal {task.goal} has no places before its episode begins")
        return (0.0, *task.places.tolist())

    def draw(
        self, observation: Tensor, rng: np.random.Generator, shares: Sequence[float]
    ) -> tuple[float, ...]:
        """Return a random goal for a hand that observes this [O].

        Args:
            shares: how often ccw, cw, hold and move [4].
        """
        goal = str(rng.choice(("ccw", "cw", "hold", "move"), p=np.divide(shares, np.sum(shares))))
        task = Baoding(goal, self.task.config).begin(observation, int(rng.integers(2**31)))
        return self.vector(task)

    def targets(self, observation: Tensor, goal: Tensor) -> Tensor:
        """Return what to aim at now: [..., O], [..., 5] -> [..., 4]."""
        sign, places = goal[..., 0], goal[..., 1:]
        running = self.task.running(observation, sign, 1)[..., 0, :]
        approach = self.task.approach(observation, places, 1)[..., 0, :]
        return torch.where(sign[..., None] == 0.0, approach, running)

    def reward(self, before: Tensor, action: Tensor, after: Tensor, goal: Tensor) -> Tensor:
        """Return what a step earns: [..., O], [..., A], [..., O], [..., 5] -> [...]."""
        sign, places = goal[..., 0], goal[..., 1:]
        turned = sign * self.task.turned(before, after)
        near = self.task.nearness(after, places)
        return torch.where(sign == 0.0, near, turned) - self.task.price(action, after)

    def relabel(self, runs: Runs, generator: torch.Generator) -> Tensor:
        """Return goals [B, 5]: of some runs, places to which the balls would have to turn by up to
        `_TURN_RAD` either way, whatever the episode was after."""
        count = len(runs.goal)
        now = self.task.angle(runs.observations[:, 0])
        turn = _TURN_RAD * (2 * torch.rand(count, generator=generator) - 1)
        (cx, cz), (rx, rz) = self.task.config.reach_center_m, self.task.config.reach_radii_m
        x, z = rx * torch.cos(now + turn), rz * torch.sin(now + turn)
        there = torch.stack([torch.zeros(count), cx + x, cz + z, cx - x, cz - z], dim=1)
        is_other = torch.rand(count, generator=generator) < self.relabelled
        return torch.where(is_other[:, None], there, runs.goal)
