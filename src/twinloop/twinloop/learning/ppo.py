# SPDX-License-Identifier: Apache-2.0
"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347) for a proposal policy.

The critic may see more than the policy (the twin's true state): it exists in training only.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from twinloop.models.proposal import Proposal


@dataclass(frozen=True)
class PPOConfig:
    """Settings; the horizon of returns is 1 / (1 - discount) control steps."""

    rollout: int = 32  # steps a hand between two updates
    epochs: int = 4
    batch: int = 512
    learning_rate: float = 3e-4
    discount: float = 0.97
    trace: float = 0.92  # lambda of the generalised advantage estimate
    clip: float = 0.2
    deviation: tuple[float, float, float] = (0.1, 0.37, 1.0)  # least, first, largest
    last_deviation: float = 0.15  # the largest at the end: fine motions want little noise
    entropy: float = 5e-4
    critic_only: int = 8  # updates in which only the critic learns
    critic_hidden: tuple[int, ...] = (256, 256)


class ActorCritic(nn.Module):
    """A Gaussian policy about a proposal, and a value of policy features and privileged state."""

    def __init__(self, proposal: Proposal, privileged: int, config: PPOConfig) -> None:
        super().__init__()
        self.proposal = proposal
        self.config = config
        low, first, high = config.deviation
        self._range = (low, high)
        actions = proposal.config.action_size
        self.log_deviation = nn.Parameter(torch.full((actions,), first).log())
        widths = [proposal.config.input_size + privileged, *config.critic_hidden]
        layers: list[nn.Module] = []
        for wide, next_wide in itertools.pairwise(widths):
            layers += [nn.Linear(wide, next_wide), nn.SiLU()]
        self.critic = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def value(self, features: Tensor, privileged: Tensor) -> Tensor:
        """Return expected discounted rewards: [..., O + T], [..., P] -> [...]."""
        value: Tensor = self.critic(torch.cat([features, privileged], dim=-1))
        return value[..., 0]

    def sample(self, features: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw changes [..., A] and return them with the logarithm of their density [...]."""
        mean = self.proposal.change(features)
        noise = torch.randn(mean.shape, generator=generator)
        action = mean + self.log_deviation.exp() * noise
        return action, self.log_density(features, action)

    def log_density(self, features: Tensor, action: Tensor) -> Tensor:
        """Return the logarithm of the density of changes, up to a constant: [...]."""
        error = (action - self.proposal.change(features)) / self.log_deviation.exp()
        return (-0.5 * error.square() - self.log_deviation).sum(-1)

    def limit_deviation(self, progress: float) -> None:
        """Keep the noise within its range, whose upper end falls from the first value to the last
        one in the second half of training (progress 0.5 to 1)."""
        low, high = torch.tensor(self._range).log()
        _, first, _ = self.config.deviation
        if progress > 0.5:
            left = 2.0 * (1.0 - progress)
            last = self.config.last_deviation
            high = torch.tensor(last * (first / last) ** left).log()
        with torch.no_grad():
            self.log_deviation.clamp_(low, high)


@dataclass(frozen=True)
class Experience:
    """T steps of N hands. Rewards at a time limit hold the value of what would have followed.

    Attributes:
        features [T, N, O], privileged [T, N, P], action [T, N, A], log_density [T, N], reward
        [T, N], ended [T, N] (1 where an episode ended after the step), value [T, N], and
        last_value [N], the value after the last step.
    """

    features: Tensor
    privileged: Tensor
    action: Tensor
    log_density: Tensor
    reward: Tensor
    ended: Tensor
    value: Tensor
    last_value: Tensor


def advantages(experience: Experience, discount: float, trace: float) -> Tensor:
    """Return generalised advantage estimates [T, N] (Schulman et al., arXiv 1506.02438)."""
    e = experience
    result = torch.zeros_like(e.reward)
    following, running = e.last_value, torch.zeros_like(e.last_value)
    for t in range(len(e.reward) - 1, -1, -1):
        goes_on = 1.0 - e.ended[t]
        surprise = e.reward[t] + discount * following * goes_on - e.value[t]
        running = surprise + discount * trace * goes_on * running
        result[t] = running
        following = e.value[t]
    return result


def update(
    policy: ActorCritic,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    generator: torch.Generator,
    critic_only: bool,
) -> None:
    """Improve policy and critic in place on one batch of experience."""
    c = policy.config
    advantage = advantages(experience, c.discount, c.trace)
    returns = (advantage + experience.value).flatten()
    weight = advantage.flatten()
    weight = (weight - weight.mean()) / (weight.std() + 1e-6)
    features = experience.features.flatten(0, 1)
    privileged = experience.privileged.flatten(0, 1)
    action = experience.action.flatten(0, 1)
    before = experience.log_density.flatten()
    for _ in range(c.epochs):
        for rows in torch.randperm(len(features), generator=generator).split(c.batch):
            ratio = (policy.log_density(features[rows], action[rows]) - before[rows]).exp()
            kept = ratio.clamp(1 - c.clip, 1 + c.clip)
            gain = torch.min(ratio * weight[rows], kept * weight[rows]).mean()
            error = policy.value(features[rows], privileged[rows]) - returns[rows]
            loss = 0.25 * error.square().mean() - c.entropy * policy.log_deviation.sum()
            if not critic_only:
                loss = loss - gain
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
