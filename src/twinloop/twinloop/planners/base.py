# SPDX-License-Identifier: Apache-2.0
"""What nodes and rollouts ask of a planner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from twinloop.models.base import DynamicsModel
from twinloop.planners.rollouts import Rollouts
from twinloop.tasks.base import Task


@dataclass(frozen=True)
class PlanStats:
    """What one call of a planner did."""

    plan_ms: float  # wall-clock time of the call
    best_return: float
    mean_return: float  # over the rollouts that are finite
    disagreement: float  # standard deviation of a rollout's return over members, mean of rollouts
    samples: int
    horizon: int
    nan_rollouts: int  # rollouts that were not finite, and so scored as worst
    pilot_share: float | None = None  # of a pilot's command that survived; None: there was none


class Planner(Protocol):
    """Chooses the next action by looking ahead with a model. Warm-started and seeded.

    It plans for B robots at once, each with random numbers of its own, so that what a robot does
    depends on its seed alone and not on which others are planned beside it.
    """

    model: DynamicsModel
    task: Task
    largest_change: float  # of a target in a step

    @property
    def horizon(self) -> int:
        """Steps looked ahead, H."""
        ...

    def reset(self, seed: int) -> None:
        """Forget the last plan; the next call plans one robot, from `seed`."""
        ...

    def reset_batch(self, seeds: list[int]) -> None:
        """Forget the last plans; the next call plans one robot for each seed."""
        ...

    def reset_row(self, row: int, seed: int) -> None:
        """Forget the last plan of one robot in a batch, which starts anew from `seed`."""
        ...

    def plan(self, observation: Tensor, target: Tensor) -> tuple[Tensor, PlanStats]:
        """Return the next action: [O], [H, T] -> [A]."""
        ...

    def plan_batch(self, observation: Tensor, target: Tensor) -> tuple[Tensor, list[PlanStats]]:
        """Return the next actions of B robots: [B, O], [B, H, T] -> [B, A]."""
        ...


@runtime_checkable
class ShowsRollouts(Protocol):
    """A planner that can tell what it thought would happen."""

    keeps_rollouts: bool  # for `best_rollouts`, from the next plan on

    def best_rollouts(self, count: int) -> Rollouts | None:
        """Return the cheapest rollouts of the last plan, None where none were kept."""
        ...
