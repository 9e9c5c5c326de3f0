# SPDX-License-Identifier: Apache-2.0
"""What a policy is trained for: one goal of a task, or many that vary from episode to episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from twinloop.learning.episode import Episode
from twinloop.learning.step_replay import Runs
from twinloop.tasks.base import Task


class Goals(Protocol):
    """Targets and rewards where every row of a batch has a goal [G] of its own."""

    size: int  # G

    @property
    def task(self) -> Task:
        """Gives sizes, limits and symmetry."""
        ...

    def of(self, episode: Episode) -> Sequence[float]:
        """Return the goal that an episode was after [G]."""
        ...

    def vector(self, task: Any) -> Sequence[float]:
        """Return the goal of a task whose episode has begun [G]."""
        ...

    def targets(self, observation: Tensor, goal: Tensor) -> Tensor:
        """Return what to aim at now: [..., O], [..., G] -> [..., T]."""
        ...

    def reward(self, before: Tensor, action: Tensor, after: Tensor, goal: Tensor) -> Tensor:
        """Return what a step earns: [..., O], [..., A], [..., O], [..., G] -> [...]."""
        ...

    def succeeded(self, episode: Episode) -> bool:
        """Return whether an episode reached the goal that it was after."""
        ...

    def relabel(self, runs: Runs, generator: torch.Generator) -> Tensor:
        """Return goals [B, G] to learn a run for: its own, or another that it tells about
        (Andrychowicz et al., arXiv 1707.01495)."""
        ...


class OneGoal:
    """The goal of one task object; G is 0."""

    size = 0

    def __init__(self, task: Task) -> None:
        self.task = task

    def of(self, episode: Episode) -> Sequence[float]:
        return ()

    def vector(self, task: Any) -> Sequence[float]:
        return ()

    def targets(self, observation: Tensor, goal: Tensor) -> Tensor:
        return self.task.targets(observation, 1)[..., 0, :]

    def reward(self, before: Tensor, action: Tensor, after: Tensor, goal: Tensor) -> Tensor:
        return self.task.reward(before, action, after)

    def succeeded(self, episode: Episode) -> bool:
        return self.task.succeeded(episode)

    def relabel(self, runs: Runs, generator: torch.Generator) -> Tensor:
        return runs.goal


def goals_of(task: Task, relabelled: float = 0.0) -> Goals:
    """Return all goals of a task that can be learned together, or its one.

    Args:
        relabelled: share of runs that are learned for another goal than their episode's.
    """
    from twinloop.learning.baoding_goals import BaodingGoals
    from twinloop.tasks.baoding import Baoding

    return BaodingGoals(task, relabelled) if isinstance(task, Baoding) else OneGoal(task)
