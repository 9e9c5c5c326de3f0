# SPDX-License-Identifier: Apache-2.0
"""Policy networks in cells: random motion first, then what the network draws, or its mean."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.learning.action_units import ActionUnits
from twinloop.learning.rollout import Actor as FirstMotion
from twinloop.models.actor import Actor
from twinloop.planners.base import PlanStats
from twinloop.tasks.base import Task


class NetworkActor:
    """Acts for N hands; see `rollout.Actor`. What a hand does depends on its seed alone.

    Args:
        units: of random motion.
        actor: the policy; None: there is none yet. It may be set between two steps.
        first: acts while there is no policy; None: actions are drawn evenly from all.
        explores: with the policy's own noise.
        smoothing: share of the action before in each action, which keeps noise from shaking a
            robot; below 1.
    """

    def __init__(
        self,
        units: ActionUnits,
        hands: int,
        actor: Actor | None = None,
        explores: bool = True,
        smoothing: float = 0.0,
        first: FirstMotion | None = None,
    ) -> None:
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(f"smoothing is {smoothing}, expected 0 to less than 1")
        self.actor = actor
        self._units, self._explores, self._smoothing = units, explores, smoothing
        self._first = first
        self._rng = [np.random.default_rng(0) for _ in range(hands)]
        self._before = np.zeros((hands, len(units.middle)))
        self._begins = np.ones(hands, dtype=bool)

    def start(self, hand: int, seed: int) -> None:
        """Begin an episode of one hand."""
        self._rng[hand] = np.random.default_rng([seed, 7])
        self._begins[hand] = True
        if self._first is not None:
            self._first.start(hand, seed)

    def aim(self, hand: int, task: Task) -> None:
        """The goal is in the observation."""

    def act(
        self, observations: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], list[PlanStats] | None]:
        """Return targets: [N, O] -> [N, A]."""
        if self.actor is None and self._first is not None:
            return self._first.act(observations)
        wish = self._wish(observations)
        share = np.where(self._begins, 0.0, self._smoothing)[:, None]
        action = share * self._before + (1.0 - share) * wish
        self._before, self._begins[:] = action, False
        targets = self._units.middle + self._units.half * action
        if self._units.acts == "change":
            targets = observations[:, self._units.command] + targets
        return np.asarray(targets, dtype=np.float64), None

    def _wish(self, observations: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return actions in ±1 [N, A]."""
        size = self._before.shape[1]
        if self.actor is None:
            return np.stack([rng.uniform(-1.0, 1.0, size) for rng in self._rng])
        noise = None
        if self._explores:
            drawn = np.stack([rng.standard_normal((1, size)) for rng in self._rng])
            noise = torch.from_numpy(drawn).float()
        seen = torch.as_tensor(observations, dtype=torch.float32)
        return np.asarray(self.actor.act(seen, noise)[:, 0].numpy())
