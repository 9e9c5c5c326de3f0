# SPDX-License-Identifier: Apache-2.0
"""A policy that proposes actions, which a planner then improves on with its dynamics model.

Sampling about a proposal instead of about the last plan is how POLO, LOOP and TD-MPC use a policy
(arXiv 1811.01848, 2008.10066, 2203.04955).
"""

from __future__ import annotations

import itertools

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

Range = tuple[int, int]


class ProposalConfig(BaseModel):
    """Sizes and layout; JSON-able.

    Attributes:
        command, joint_position: where these channels lie in the observation, each [A].
        symmetry: observation index by which an equivalent observation is read (balls swapped); the
            proposal is the same for both. Empty: none.
        max_change: largest change of a target in a step, rad.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    observation_size: int = Field(gt=0, le=4096)
    action_size: int = Field(gt=0, le=1024)
    hidden: tuple[int, ...] = (256, 256)
    command: Range
    joint_position: Range
    symmetry: tuple[int, ...] = ()
    max_change: float = Field(gt=0)

    @model_validator(mode="after")
    def _layout_fits(self) -> ProposalConfig:
        for name in ("command", "joint_position"):
            start, stop = getattr(self, name)
            size = self.action_size
            if not 0 <= start < stop <= self.observation_size or stop - start != size:
                raise ValueError(f"{name} is {(start, stop)}, expected a range of {size} elements")
        if self.symmetry and sorted(self.symmetry) != list(range(self.observation_size)):
            raise ValueError(f"symmetry is not a permutation of 0..{self.observation_size - 1}")
        if any(not 0 < width <= 8192 for width in self.hidden):
            raise ValueError(f"hidden is {self.hidden}, expected widths in 1..8192")
        return self


class Proposal(nn.Module):
    """Observation [..., O] to the change of the joint targets, [..., A]."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ProposalConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.observation_size))
        self.register_buffer("scale", torch.ones(config.observation_size))
        widths = [config.observation_size, *config.hidden]
        layers: list[nn.Module] = []
        for wide, next_wide in itertools.pairwise(widths):
            layers += [nn.Linear(wide, next_wide), nn.SiLU()]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], config.action_size))

    def features(self, observation: Tensor) -> Tensor:
        """Return what the network sees, [..., O]: the observation with the command relative to
        the joints, in units of its usual spread."""
        start, stop = self.config.command
        joints = observation[..., slice(*self.config.joint_position)]
        lag = observation[..., start:stop] - joints
        raw = torch.cat([observation[..., :start], lag, observation[..., stop:]], dim=-1)
        return ((raw - self.mean) / self.scale).clamp(-5.0, 5.0)

    def change(self, features: Tensor) -> Tensor:
        """Return the wished change of the targets in units of the largest one: [..., O] ->
        [..., A]; not limited to ±1."""
        wish: Tensor = self.network(features)
        if self.config.symmetry:
            wish = 0.5 * (wish + self.network(features[..., list(self.config.symmetry)]))
        return wish

    def forward(self, observation: Tensor) -> Tensor:
        """Return proposed joint targets [rad]: [..., O] -> [..., A]."""
        change = self.change(self.features(observation)).clamp(-1.0, 1.0)
        command = observation[..., slice(*self.config.command)]
        return command + self.config.max_change * change

    def normalise(self, observations: Tensor) -> None:
        """Set the scales from observations [M, O]; symmetric elements share theirs."""
        self.mean.zero_()
        self.scale.fill_(1.0)
        start, stop = self.config.command
        raw = observations.clone()
        raw[:, start:stop] -= observations[:, slice(*self.config.joint_position)]
        if self.config.symmetry:
            raw = torch.cat([raw, raw[:, list(self.config.symmetry)]])
        self.mean.copy_(raw.mean(0))
        deviation = raw.std(0)
        # An element that hardly moves in the data may move later, so it is not blown up.
        self.scale.copy_(deviation.clamp(min=0.01))
