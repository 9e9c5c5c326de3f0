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

from twinloop.models.layers import check_widths

Range = tuple[int, int]


class ProposalConfig(BaseModel):
    """Sizes and layout; JSON-able.

    Attributes:
        command, joint_position: where these channels lie in the observation, each [A].
        target_of: observation elements that a task's target elements are about [T]; the policy
            sees targets relative to them. Empty: it sees no target.
        symmetry: index by which equivalent inputs [O + T] (observation, then target) are read, such
            as with the balls swapped; the proposal is the same for both. Empty: none.
        max_change: largest change of a target in a step, rad.
        layer_norm: whether hidden layers are normalised.
        squash: whether changes are limited by a tanh, as a policy is that was trained so.
        rest: with every element of the target nearer than the first number to what it is about,
            nothing is to move, and beyond the second all of the change is made. Measured positions
            are never quite in place, and a policy that answers each error moves what should rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    observation_size: int = Field(gt=0, le=4096)
    action_size: int = Field(gt=0, le=1024)
    hidden: tuple[int, ...] = (256, 256)
    command: Range
    joint_position: Range
    target_of: tuple[int, ...] = ()
    symmetry: tuple[int, ...] = ()
    max_change: float = Field(gt=0)
    layer_norm: bool = False
    squash: bool = False
    rest: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _layout_fits(self) -> ProposalConfig:
        for name in ("command", "joint_position"):
            start, stop = getattr(self, name)
            size = self.action_size
            if not 0 <= start < stop <= self.observation_size or stop - start != size:
                raise ValueError(f"{name} is {(start, stop)}, expected a range of {size} elements")
        if any(not 0 <= index < self.observation_size for index in self.target_of):
            raise ValueError(
                f"target_of is {self.target_of}, expected elements of the observation, "
                f"0..{self.observation_size - 1}"
            )
        if self.symmetry and sorted(self.symmetry) != list(range(self.input_size)):
            raise ValueError(f"symmetry is not a permutation of 0..{self.input_size - 1}")
        if self.rest is not None and not 0 <= self.rest[0] < self.rest[1]:
            raise ValueError(f"rest is {self.rest}, expected two distances, the first smaller")
        check_widths("hidden", self.hidden)
        return self

    @property
    def input_size(self) -> int:
        """Number of elements that the network sees, O + T."""
        return self.observation_size + len(self.target_of)


class Proposal(nn.Module):
    """Observation [..., O] and target [..., T] to the change of the joint targets, [..., A]."""

    mean: Tensor
    scale: Tensor
    _target_of: Tensor
    _symmetry: Tensor
    network: nn.Sequential

    def __init__(self, config: ProposalConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.input_size))
        self.register_buffer("scale", torch.ones(config.input_size))
        # Beside the weights, so that no plan has to copy them to the device.
        for name in ("target_of", "symmetry"):
            index = torch.tensor(getattr(config, name), dtype=torch.long)
            self.register_buffer(f"_{name}", index, persistent=False)
        widths = [config.input_size, *config.hidden]
        layers: list[nn.Module] = []
        for wide, next_wide in itertools.pairwise(widths):
            layers.append(nn.Linear(wide, next_wide))
            if config.layer_norm:
                layers.append(nn.LayerNorm(next_wide))
            layers.append(nn.SiLU())
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], config.action_size))

    def features(self, observation: Tensor, target: Tensor | None = None) -> Tensor:
        """Return what the network sees, [..., O + T], in units of its usual spread: the observation
        with the command relative to the joints, and the target relative to what it is about."""
        raw = self._relative(observation, target)
        return ((raw - self.mean) / self.scale).clamp(-5.0, 5.0)

    def _relative(self, observation: Tensor, target: Tensor | None) -> Tensor:
        start, stop = self.config.command
        joints = observation[..., slice(*self.config.joint_position)]
        lag = observation[..., start:stop] - joints
        parts = [observation[..., :start], lag, observation[..., stop:]]
        if self.config.target_of:
            if target is None:
                raise ValueError("this proposal needs a target, got none")
            parts.append(target - observation[..., self._target_of])
        return torch.cat(parts, dim=-1)

    def change(self, features: Tensor) -> Tensor:
        """Return the wished change of the targets in units of the largest one: [..., O + T]
        -> [..., A]; limited to ±1 only where the policy squashes."""
        wish: Tensor = self.network(features)
        if self.config.symmetry:
            wish = 0.5 * (wish + self.network(features[..., self._symmetry]))
        return torch.tanh(wish) if self.config.squash else wish

    def forward(self, observation: Tensor, target: Tensor | None = None) -> Tensor:
        """Return proposed joint targets [rad]: [..., O], [..., T] -> [..., A].

        Raises:
            ValueError: no target, where the policy sees one.
        """
        change = self.change(self.features(observation, target)).clamp(-1.0, 1.0)
        if self.config.rest is not None and target is not None:
            change = change * self.urgency(observation, target)
        command = observation[..., slice(*self.config.command)]
        return command + self.config.max_change * change

    def urgency(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return the share of a change that is made, see `rest`: [..., O], [..., T] -> [..., 1]."""
        if self.config.rest is None:
            return torch.ones_like(observation[..., :1])
        near, far = self.config.rest
        away = (target - observation[..., self._target_of]).abs().amax(-1, keepdim=True)
        return ((away - near) / (far - near)).clamp(0.0, 1.0)

    def normalise(self, observations: Tensor, targets: Tensor | None = None) -> None:
        """Set the scales from observations [M, O] and targets [M, T]; symmetric elements share
        theirs."""
        raw = self._relative(observations, targets)
        if self.config.symmetry:
            raw = torch.cat([raw, raw[:, self._symmetry]])
        self.mean.copy_(raw.mean(0))
        deviation = raw.std(0)
        # An element that hardly moves in the data may move later, so it is not blown up.
        self.scale.copy_(deviation.clamp(min=0.01))
