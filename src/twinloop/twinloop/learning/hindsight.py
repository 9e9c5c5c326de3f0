# SPDX-License-Identifier: Apache-2.0
"""Hindsight experience replay (Andrychowicz et al., arXiv 1707.01495), strategy `future`: a
transition is learned for a goal that its episode came to reach later."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from twinloop.tasks.base import Task


@runtime_checkable
class Relabels(Protocol):
    """A task whose observation holds what is wanted and what is reached, in equal units."""

    wanted: slice
    achieved: slice


class GoalSlices(NamedTuple):
    """Where a goal, and what is compared with it, lie in an observation."""

    wanted: slice
    achieved: slice


def slices_of(task: Task) -> GoalSlices:
    """Return where a task's observation holds its goal and what was reached.

    Raises:
        ValueError: the task does not name them.
    """
    if not isinstance(task, Relabels):
        raise ValueError(
            f"task {task.name} names no `wanted` and `achieved` parts of its observation, which "
            "learning for other goals needs; expected relabelled to be 0"
        )
    return GoalSlices(task.wanted, task.achieved)


def relabelled(
    seen: Tensor, later: Tensor, where: GoalSlices, share: float, generator: torch.Generator
) -> Tensor:
    """Return runs of observations, a share of them with another goal: [B, K + 1, O], [B, O] ->
    [B, K + 1, O]."""
    chosen = torch.rand(len(seen), generator=generator) < share
    goal = torch.where(chosen[:, None], later[:, where.achieved], seen[:, 0, where.wanted])
    seen = seen.clone()
    seen[..., where.wanted] = goal[:, None]
    return seen
