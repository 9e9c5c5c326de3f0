# SPDX-License-Identifier: Apache-2.0
"""Soft actor-critic (Haarnoja et al., arXiv 1812.05905) for a proposal policy.

Two changes make it quick enough to learn a hand's skill in hours: layer normalisation in critics
and actor, which keeps values sane at high update rates (Hiraoka et al., arXiv 2110.02034), and
returns of a few steps before the bootstrap.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from twinloop.models.layers import BatchedLinear
from twinloop.models.proposal import Proposal


@dataclass(frozen=True)
class SACConfig:
    """Settings; the horizon of returns is 1 / (1 - discount) control steps."""

    batch: int = 256
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    discount: float = 0.97
    steps: int = 3  # rewards summed before the critic takes over
    critics: int = 2
    critic_hidden: tuple[int, ...] = (256, 256)
    actor_every: int = 2  # critic updates between two of the actor
    target_rate: float = 0.005  # of the slow copy of the critics
    average_rate: float = 0.002  # of the averaged policy, which is the one to use
    entropy: float = -0.5  # aimed at, per element of the action
    temperature: float = 0.05  # first value
    temperature_rate: float = 1e-3
    log_deviation: tuple[float, float] = (-3.0, 1.0)


@dataclass(frozen=True)
class Batch:
    """What one update learns from; R is the return of `steps` rewards.

    Attributes:
        features, next_features: what the policy sees before and after the run [B, I].
        action [B, A] in [-1, 1], reward [B], discount [B] of what follows, 0 after a failure.
        limits, next_limits: least and largest action that has an effect [2, B, A]. What was
            applied lies within, so the critics know nothing of actions beyond.
    """

    features: Tensor
    action: Tensor
    reward: Tensor
    next_features: Tensor
    discount: Tensor
    limits: Tensor
    next_limits: Tensor


class Critics(nn.Module):
    """C values of features and action at once: [B, I], [B, A] -> [C, B]."""

    def __init__(self, inputs: int, config: SACConfig, generator: torch.Generator) -> None:
        super().__init__()
        widths = [inputs, *config.critic_hidden, 1]
        self.layers = nn.ModuleList(
            BatchedLinear(config.critics, wide, narrow, generator)
            for wide, narrow in itertools.pairwise(widths)
        )
        self.count = config.critics

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([features, action], dim=-1).expand(self.count, -1, -1)
        for layer in self.layers[:-1]:
            x = layer(x)
            x = functional.silu(functional.layer_norm(x, x.shape[-1:]))
        value: Tensor = self.layers[-1](x)
        return value[..., 0]


class Actor(nn.Module):
    """A squashed Gaussian about a proposal, with a deviation that depends on what is seen."""

    proposal: Proposal

    def __init__(self, proposal: Proposal, config: SACConfig) -> None:
        super().__init__()
        self.proposal = proposal
        width = proposal.config.hidden[-1]
        self.deviation = nn.Linear(width, proposal.config.action_size)
        with torch.no_grad():
            self.deviation.weight.mul_(0.1)
            last = proposal.network[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
            last.bias.zero_()
        self._range = config.log_deviation

    def distribution(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log deviation before squashing: [B, I] -> 2 × [B, A]."""
        *body, last = self.proposal.network
        hidden = features
        for layer in body:
            hidden = layer(hidden)
        low, high = self._range
        log_deviation = low + 0.5 * (high - low) * (1 + torch.tanh(self.deviation(hidden)))
        return last(hidden), log_deviation

    def sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions in [-1, 1] and the logarithm of their density: [B, I], unit noise
        [B, A] -> [B, A], [B]."""
        mean, log_deviation = self.distribution(features)
        raw = mean + log_deviation.exp() * noise
        density = -0.5 * noise.square() - log_deviation - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh²) in a form that does not lose digits for large values.
        squash = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))
        return torch.tanh(raw), (density - squash).sum(-1)


class SoftActorCritic:
    """Actor, critics, temperature and their optimizers; `update` is one gradient step of each."""

    def __init__(self, proposal: Proposal, config: SACConfig, seed: int) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.actor = Actor(proposal, config)
        inputs = proposal.config.input_size + proposal.config.action_size
        self.critics = Critics(inputs, config, self.generator)
        self._slow = copy.deepcopy(self.critics).requires_grad_(False)
        self._average = copy.deepcopy(proposal).requires_grad_(False)
        self.log_temperature = torch.tensor(math.log(config.temperature), requires_grad=True)
        self._actor_optimizer = _optimizer(self.actor, config)
        self._critic_optimizer = _optimizer(self.critics, config)
        self._temperature_optimizer = torch.optim.Adam(
            [self.log_temperature], config.temperature_rate
        )
        self.updates = 0

    def update(self, batch: Batch) -> None:
        """Improve the critics, and every few times the actor and the temperature."""
        c = self.config
        temperature = self.log_temperature.detach().exp()
        with torch.no_grad():
            action, density = self.actor.sample(batch.next_features, self._noise(batch.action))
            action = action.clamp(*batch.next_limits)
            following = self._slow(batch.next_features, action).amin(0) - temperature * density
            aim = batch.reward + batch.discount * following
        loss = (self.critics(batch.features, batch.action) - aim).square().mean(1).sum()
        self._critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._critic_optimizer.step()
        self.updates += 1
        if self.updates % c.actor_every == 0:
            self._update_actor(batch, temperature)
        _follow(self._slow, self.critics, c.target_rate)

    def _update_actor(self, batch: Batch, temperature: Tensor) -> None:
        self.critics.requires_grad_(False)
        action, density = self.actor.sample(batch.features, self._noise(batch.action))
        value = self.critics(batch.features, action.clamp(*batch.limits)).amin(0)
        loss = (temperature * density - value).mean()
        self._actor_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._actor_optimizer.step()
        _follow(self._average, self.actor.proposal, self.config.average_rate)
        self.critics.requires_grad_(True)
        wanted = self.config.entropy * batch.action.shape[-1]
        temperature_loss = -self.log_temperature * (density.detach() + wanted).mean()
        self._temperature_optimizer.zero_grad(set_to_none=True)
        temperature_loss.backward()
        self._temperature_optimizer.step()

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator)

    def policy(self) -> Proposal:
        """Return a frozen copy of the policy, averaged over its last updates: single updates make
        it jump more than what has been learned changes."""
        copied = copy.deepcopy(self._average)
        copied.mean.copy_(self.actor.proposal.mean)
        copied.scale.copy_(self.actor.proposal.scale)
        return copied

    def state(self) -> dict[str, Any]:
        """Return everything that training goes on from."""
        return {
            "actor": self.actor.state_dict(),
            "critics": self.critics.state_dict(),
            "slow": self._slow.state_dict(),
            "average": self._average.state_dict(),
            "log_temperature": self.log_temperature.detach(),
            "optimizers": [o.state_dict() for o in self._optimizers()],
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.actor.load_state_dict(state["actor"])
        self.critics.load_state_dict(state["critics"])
        self._slow.load_state_dict(state["slow"])
        self._average.load_state_dict(state["average"])
        with torch.no_grad():
            self.log_temperature.copy_(state["log_temperature"])
        for optimizer, saved in zip(self._optimizers(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self._actor_optimizer, self._critic_optimizer, self._temperature_optimizer]


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Move the parameters of one network towards those of another by a share of the distance."""
    for behind, ahead in zip(slow.parameters(), fast.parameters(), strict=True):
        behind.lerp_(ahead, rate)


def _optimizer(module: nn.Module, config: SACConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        module.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
