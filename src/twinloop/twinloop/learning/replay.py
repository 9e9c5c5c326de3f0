# SPDX-License-Identifier: Apache-2.0
"""Episodes -> windows of consecutive transitions, split by episode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twinloop.learning.episode import Episode


@dataclass(frozen=True)
class Windows:
    """W windows of K transitions, as starts into the joined rows of all episodes.

    Rows are not copied per window: windows overlap, and the data may be large.
    """

    observations: Tensor  # [R, O]
    actions: Tensor  # [R, A]; a row that ends an episode has no action and holds zeros
    starts: Tensor  # [W], int64
    steps: int  # K
    weights: Tensor | None = None  # [W], 1 on average; None: all alike

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return windows: [...] -> observations [..., K+1, O] and actions [..., K, A]."""
        rows = self.starts[index][..., None] + torch.arange(self.steps + 1)
        return _rows_of(self.observations, rows), _rows_of(self.actions, rows[..., :-1])

    def transitions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first transition of every window: [W, O], [W, A], [W, O]."""
        return (
            self.observations[self.starts],
            self.actions[self.starts],
            self.observations[self.starts + 1],
        )


def _rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """Return rows of a table, quicker than by indexing it: [R, O], [...] -> [..., O]."""
    return table.index_select(0, rows.flatten()).view(*rows.shape, table.shape[1])


def windows(episodes: Sequence[Episode], steps: int, pilot_weight: float = 1.0) -> Windows:
    """Cut every run of `steps` consecutive transitions; shorter episodes give none.

    Args:
        episodes: all of them.
        steps: K.
        pilot_weight: of a transition in which a person had a hand, against 1 of another; a window
            counts as its transitions do on average.

    Raises:
        ValueError: no episode is long enough.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    starts, row = [], 0
    for episode in episodes:
        starts.append(np.arange(row, row + max(len(episode) - steps + 1, 0)))
        row += len(episode) + 1
    if not sum(map(len, starts)):
        raise ValueError(f"none of {len(episodes)} episodes has {steps} transitions")
    actions = [np.pad(episode.actions, ((0, 1), (0, 0))) for episode in episodes]
    return Windows(
        observations=torch.from_numpy(np.concatenate([e.observations for e in episodes])),
        actions=torch.from_numpy(np.concatenate(actions)),
        starts=torch.from_numpy(np.concatenate(starts)),
        steps=steps,
        weights=None if pilot_weight == 1.0 else _weights(episodes, steps, pilot_weight),
    )


def _weights(episodes: Sequence[Episode], steps: int, pilot_weight: float) -> Tensor:
    """Return the windows' weights [W], 1 on average; 1 each where they sum to nothing."""
    found = []
    for episode in episodes:
        each = np.ones(len(episode))
        for first, end in episode.meta.get("piloted", ()):
            each[first:end] = pilot_weight
        if len(each) >= steps:
            found.append(np.convolve(each, np.full(steps, 1.0 / steps), mode="valid"))
    weights = np.concatenate(found)
    mean = weights.mean()
    return torch.from_numpy(weights / mean if mean > 0.0 else np.ones_like(weights)).float()


def split(
    episodes: Sequence[Episode], held_out_share: float = 0.1
) -> tuple[list[Episode], list[Episode]]:
    """Split by episode into training and held-out ones.

    An episode's side follows from its `episode_id` alone, so it stays the same while data grows
    and after a restart: what a gate measures was never trained on. With two or more episodes each
    side gets at least one.
    """
    if not 0 <= held_out_share < 1:
        raise ValueError(f"held_out_share is {held_out_share}, expected in [0, 1)")
    order = [_draw(str(e.meta.get("episode_id", i))) for i, e in enumerate(episodes)]
    training = [e for e, draw in zip(episodes, order, strict=True) if draw >= held_out_share]
    held_out = [e for e, draw in zip(episodes, order, strict=True) if draw < held_out_share]
    if held_out_share > 0 and len(episodes) > 1:
        for side, other in ((held_out, training), (training, held_out)):
            if not side:
                side.append(other.pop(int(np.argmin(order))))
    return training, held_out


def _draw(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
