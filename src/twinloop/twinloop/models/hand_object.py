# SPDX-License-Identifier: Apache-2.0
"""Ensemble dynamics of a hand and one object that it holds.

One network moves the joints (a linear servo model with a small correction), one moves the object.
Both see how far each joint lags behind its target, in units of what a joint moves in a step.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.models.layers import BatchedLinear, BatchedMLP, check_widths

Range = tuple[int, int]


class HandObjectConfig(EnsembleConfig):
    """Sizes and the layout of the observation: ranges of its channels.

    Attributes:
        object_state: all that moves beside the joints.
        object_weight: of the object's errors, beside the joints'.
    """

    kind: Literal["hand_object"] = "hand_object"  # type: ignore[assignment]
    hidden: tuple[int, ...] = (128, 128)
    hand_hidden: tuple[int, ...] = (64,)
    joint_position: Range
    joint_velocity: Range
    object_state: Range
    object_weight: float = Field(default=3.0, gt=0)

    @model_validator(mode="after")
    def _layout_fits(self) -> Self:
        check_widths("hand_hidden", self.hand_hidden)
        for name in ("joint_position", "joint_velocity", "object_state"):
            start, stop = getattr(self, name)
            if not 0 <= start < stop <= self.observation_size:
                raise ValueError(f"{name} is {(start, stop)}, expected a range of the observation")
        sizes = {stop - start for start, stop in (self.joint_position, self.joint_velocity)}
        if sizes != {self.action_size} or self.known is None:
            raise ValueError(f"expected `known` and channels of {self.action_size} joints")
        return self


class HandObject(Ensemble):
    """The model; rows and shapes as in `Ensemble`."""

    Config: type[EnsembleConfig] = HandObjectConfig
    config: HandObjectConfig

    def _build(self, generator: torch.Generator) -> None:
        c = self.config
        hand, moving = 4 * c.action_size, c.object_state[1] - c.object_state[0]
        self.hand_linear = BatchedLinear(c.members, hand, 2 * c.action_size, generator, gain=0.3)
        self.hand_network = BatchedMLP(
            c.members, hand + moving, c.hand_hidden, 2 * c.action_size, generator
        )
        self.object_linear = BatchedLinear(c.members, hand + moving, moving, generator, gain=0.1)
        self.object_network = BatchedMLP(c.members, hand + moving, c.hidden, moving, generator)

    def normalise(self, observation: Tensor, action: Tensor, following: Tensor) -> None:
        """Set the scales from transitions, and let the object's errors count more."""
        super().normalise(observation, action, following)
        self.difference_scale[slice(*self.config.object_state)] /= self.config.object_weight

    def difference(self, observation: Tensor, action: Tensor) -> Tensor:
        c = self.config
        members = observation.shape[0]
        scaled = (observation - self.observation_mean) / self.observation_scale
        joints = observation[..., slice(*c.joint_position)]
        command = observation[..., slice(*c.known)]  # type: ignore[misc]
        pull = 4.0 / self.action_scale
        target = action.expand(members, -1, -1)
        hand = torch.cat(
            [
                scaled[..., slice(*c.joint_position)],
                scaled[..., slice(*c.joint_velocity)],
                # A joint moves by what it lags behind its targets, far less than their range.
                (command - joints) * pull,
                (target - command) * pull,
            ],
            dim=-1,
        )
        seen = torch.cat([hand, scaled[..., slice(*c.object_state)]], dim=-1)
        moved = self.hand_linear(hand) + self.hand_network(seen)
        turned = self.object_linear(seen) + self.object_network(seen)
        change = torch.zeros_like(observation)
        change[..., slice(*c.joint_position)] = moved[..., : c.action_size]
        change[..., slice(*c.joint_velocity)] = moved[..., c.action_size :]
        change[..., slice(*c.object_state)] = turned
        return change
