# SPDX-License-Identifier: Apache-2.0
"""Actions of a contract in units of ±1, as policies give them, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop import planners
from twinloop.learning.episode import Episode
from twinloop.tasks.base import Task


@dataclass(frozen=True)
class ActionUnits:
    """What ±1 stands for.

    Attributes:
        acts: an action is a change of the command in force, or the target itself.
        middle, half: of the range of changes or targets [A], in the contract's unit.
        command: where the command in force lies in the observation; not needed for targets.
    """

    acts: Literal["change", "target"]
    middle: NDArray[np.float32]
    half: NDArray[np.float32]
    command: slice = field(default_factory=lambda: slice(0, 0))

    def of(self, episode: Episode) -> NDArray[np.float32]:
        """Return the actions of an episode in units of ±1, clipped to them [T, A]."""
        actions = episode.actions
        if self.acts == "change":
            actions = actions - episode.observations[:-1, self.command]
        units: NDArray[np.float32] = np.clip((actions - self.middle) / self.half, -1.0, 1.0)
        return units


def change_units(command: slice, max_change: float, size: int = 1) -> ActionUnits:
    """Return units of changes of at most `max_change` a step of each of the targets."""
    middle = np.zeros(size, dtype=np.float32)
    return ActionUnits("change", middle, middle + np.float32(max_change), command)


def units_of(task: Task) -> ActionUnits:
    """Return the units of a task: changes of the command where its observation has that, else
    targets between the contract's limits."""
    if task.command.stop > task.command.start:
        largest = planners.action_space(task).largest_change
        return change_units(task.command, largest, task.action_size)
    action = task.contract.action
    lower, upper = torch.tensor(action.lower).numpy(), torch.tensor(action.upper).numpy()
    return ActionUnits("target", 0.5 * (upper + lower), 0.5 * (upper - lower))
