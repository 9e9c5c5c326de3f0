# SPDX-License-Identifier: Apache-2.0
"""Episodes -> runs of a few transitions for off-policy learning, drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twinloop.learning.action_units import ActionUnits
from twinloop.learning.episode import Episode
from twinloop.planners.control import DROPPED, LOST


@dataclass(frozen=True)
class Runs:
    """B runs of up to K consecutive transitions; a run stops early where its episode ends.

    Attributes:
        observations [B, K + 1, O]: after its end a run repeats its last row.
        actions [B, K, A]: in units of ±1, such as changes of targets by the largest one.
        steps [B]: how many transitions a run has, 1 to K.
        failed [B]: whether the run's last observation ended its episode as a failure.
        goal [B, G]: what the episode was after.
        later [B, O]: an observation at random from the rest of the episode, after the run's first
            transition; empty [B, 0] unless asked for.
    """

    observations: Tensor
    actions: Tensor
    steps: Tensor
    failed: Tensor
    goal: Tensor
    later: Tensor | None = None


class StepReplay:
    """All transitions seen so far, as rows of joined episodes.

    Args:
        units: of the actions.
        goal_size: elements of an episode's goal, G.
    """

    def __init__(self, units: ActionUnits, goal_size: int = 0) -> None:
        self._units = units
        self._goal_size = goal_size
        self._rows: tuple[list[Any], ...] = tuple([] for _ in range(5))
        self._joined: tuple[Tensor, ...] | None = None
        self.transitions = 0

    def add(self, episode: Episode, goal: Sequence[float] = ()) -> None:
        """Append an episode; `meta["stop_reason"]` tells whether its end was a failure.

        What was dropped or lost was one. Any other end, also that of a recorder that was killed,
        says nothing of the task.

        Raises:
            ValueError: the goal has another size.
        """
        if len(goal) != self._goal_size:
            raise ValueError(f"goal has {len(goal)} elements, expected {self._goal_size}")
        count = len(episode)
        if not count:
            return
        observations = episode.observations.astype(np.float32)
        actions = np.zeros((count + 1, episode.actions.shape[1]), dtype=np.float32)
        actions[:-1] = self._units.of(episode)
        failed = np.zeros(count + 1, dtype=np.float32)
        failed[-1] = float(episode.meta.get("stop_reason") in (DROPPED, LOST))
        left = np.arange(count, -1, -1)  # transitions from a row to the end of its episode
        goals = np.tile(np.asarray(goal, dtype=np.float32), (count + 1, 1))
        for rows, more in zip(
            self._rows, (observations, actions, failed, left, goals), strict=True
        ):
            rows.append(more)
        self.transitions += count
        self._joined = None

    def observations(self) -> tuple[Tensor, Tensor]:
        """Return every observation [R, O] with its goal [R, G]."""
        observations, _, _, _, goals, _ = self._join()
        return observations, goals

    def draw(
        self, count: int, steps: int, generator: torch.Generator, with_later: bool = False
    ) -> Runs:
        """Return B runs of up to `steps` transitions, all starts equally likely.

        Raises:
            ValueError: nothing was added yet.
        """
        if not self.transitions:
            raise ValueError("there are no transitions to draw from")
        observations, actions, failed, left, goals, starts = self._join()
        start = starts[torch.randint(len(starts), (count,), generator=generator)]
        length = left[start].clamp(max=steps)
        offset = torch.minimum(torch.arange(steps + 1), length[:, None])
        rows = start[:, None] + offset
        later = None
        if with_later:
            share = torch.rand(count, generator=generator)
            ahead = 1 + (share * left[start]).long()
            later = observations[start + torch.minimum(ahead, left[start].long())]
        return Runs(
            observations[rows],
            actions[rows[:, :-1]],
            length,
            failed[start + length],
            goals[start],
            later,
        )

    def _join(self) -> tuple[Tensor, ...]:
        if self._joined is None:
            for rows in self._rows:
                rows[:] = [np.concatenate(rows)]
            tensors = tuple(torch.from_numpy(rows[0]) for rows in self._rows)
            self._joined = (*tensors, (tensors[3] > 0).nonzero()[:, 0])
        return self._joined
