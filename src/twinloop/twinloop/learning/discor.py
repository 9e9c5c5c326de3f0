# SPDX-License-Identifier: Apache-2.0
"""Distribution correction, DisCor (Kumar, Gupta, Levine, arXiv 2003.07305).

Bellman backups whose target is itself wrong teach nothing. A network Δ learns how far the values
are from the true ones, by a backup of its own (Algorithm 1 there):

    Δ(s, a) <- |Q(s, a) - target| + discount · Δ(s', a'),   a' ~ π(s')

and a transition counts by w ∝ exp(-discount · Δ(s', a') / τ), with τ the mean of Δ in the batch.
Stable-Baselines3 takes no weights, so that minibatches are drawn again in proportion to them from
a larger pool (sampling, importance resampling); its actor sees the same draws.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor


class HasDiscount(Protocol):
    @property
    def discount(self) -> float: ...

    @property
    def learning_rate(self) -> float: ...


def weights(following_error: Tensor, discount: float, temperature: Tensor | float) -> Tensor:
    """Return the weights of transitions, of mean 1 (equation 7 there).

    Args:
        following_error: estimate Δ of the error where the bootstrap is taken [B]; 0 where nothing
            follows.
        temperature: τ; smaller ones tell right from wrong more sharply.
    """
    scaled = -discount * following_error / temperature
    share: Tensor = torch.softmax(scaled, dim=0)
    return share * len(share)


class BellmanErrors:
    """The network Δ beside the critics of Stable-Baselines3's SAC, one for each of them."""

    POOL = 4  # transitions that are weighed for each one that is learned from
    _RATE = 0.005  # of the slow copy and of the temperatures

    def __init__(self, sac: Any, settings: HasDiscount) -> None:
        self._sac, self._discount = sac, settings.discount
        self._errors = copy.deepcopy(sac.critic)
        self._slow = copy.deepcopy(self._errors).requires_grad_(False)
        self._optimizer = torch.optim.Adam(self._errors.parameters(), settings.learning_rate)
        self._temperature = torch.full((len(self._errors.q_networks),), 10.0)

    def choose(self, drawn: Any, count: int, generator: torch.Generator) -> list[Tensor]:
        """Return `count` rows of a larger draw by their weights; learns from them, too."""
        with torch.no_grad():
            actions, density = self._sac.actor.action_log_prob(drawn.next_observations)
            following = self._all(self._slow, drawn.next_observations, actions).clamp(min=0.0)
            following = following * (1.0 - drawn.dones)
            # One distribution serves both critics: the mean of theirs.
            weight = torch.stack(
                [
                    weights(following[:, k], self._discount, self._temperature[k])
                    for k in range(following.shape[1])
                ]
            ).mean(0)
        rows = torch.multinomial(weight, count, replacement=True, generator=generator)
        kept = [part[rows] for part in drawn]
        self._learn(type(drawn)(*kept), following[rows], actions[rows], density[rows])
        return kept

    def _learn(self, batch: Any, following: Tensor, actions: Tensor, density: Tensor) -> None:
        with torch.no_grad():
            values = self._all(self._sac.critic_target, batch.next_observations, actions)
            entropy = self._sac.log_ent_coef.exp() * density[:, None]
            bootstrap = values.amin(1, keepdim=True) - entropy
            target = batch.rewards + (1.0 - batch.dones) * batch.discounts * bootstrap
            now = self._all(self._sac.critic, batch.observations, batch.actions)
            aim = (now - target).abs() + self._discount * following
        found = self._all(self._errors, batch.observations, batch.actions)
        loss = 0.5 * (found - aim).square().mean(0).sum()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            for behind, ahead in zip(
                self._slow.parameters(), self._errors.parameters(), strict=True
            ):
                behind.lerp_(ahead, self._RATE)
            self._temperature.lerp_(found.detach().abs().mean(0).clamp(min=1e-6), self._RATE)

    @staticmethod
    def _all(networks: Any, observations: Tensor, actions: Tensor) -> Tensor:
        """Return the outputs of all networks [B, C]."""
        return torch.cat(networks(observations, actions), dim=1)

    def state(self) -> dict[str, Any]:
        """Return what learning goes on from."""
        return {
            "errors": self._errors.state_dict(),
            "slow": self._slow.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "temperature": self._temperature,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._errors.load_state_dict(state["errors"])
        self._slow.load_state_dict(state["slow"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._temperature = state["temperature"]
