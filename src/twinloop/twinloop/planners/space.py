# SPDX-License-Identifier: Apache-2.0
"""What a planner may command: limits and speed, as the task's contract states them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinloop.tasks.base import Task


@dataclass(frozen=True)
class ActionSpace:
    """Limits of the targets, each [A], and how far a target may move in a control step.

    Raises:
        ValueError: limits of different shapes or the wrong way round, or no motion allowed.
    """

    lower: Tensor
    upper: Tensor
    largest_change: float

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape or not bool((self.lower < self.upper).all()):
            raise ValueError("action space: the lower limits are not below the upper ones")
        if not self.largest_change > 0:
            raise ValueError(
                f"action space: largest_change is {self.largest_change}, expected more than 0"
            )


def action_space(task: Task) -> ActionSpace:
    """Return the limits, and the rate times the period, of the task's contract."""
    action = task.contract.action
    lower, upper = (torch.tensor(row, dtype=torch.float32) for row in (action.lower, action.upper))
    return ActionSpace(lower, upper, action.rate * task.contract.period_s)
