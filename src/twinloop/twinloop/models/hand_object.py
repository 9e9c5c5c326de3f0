# SPDX-License-Identifier: Apache-2.0
"""Ensemble dynamics of a hand and one object that it holds.

One network moves the joints (a linear servo model with a small correction), one moves the object.
Both see how far each joint lags behind its target, in units of what a joint moves in a step; the
latter also, where the model knows the hand's geometry, where the links are about the object, with
the joints where they are and where they are commanded to be.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.models.kinematics import ChainTable
from twinloop.models.layers import BatchedLinear, BatchedMLP
from twinloop.models.link_geometry import LinkGeometry, LinkGeometryConfig

Range = tuple[int, int]


class HandObjectConfig(EnsembleConfig):
    """Sizes and the layout of the observation: ranges of its channels.

    Attributes:
        object_state: all that moves beside the joints; it begins with the object's place.
        object_weight: of the object's errors, beside the joints'.
        reach_m: unit of the distances from the object to the links.
        geometry: None: places of links are not looked at.
    """

    kind: Literal["hand_object"] = "hand_object"  # type: ignore[assignment]
    hidden: tuple[int, ...] = (128, 128)
    hand_hidden: tuple[int, ...] = (64,)
    joint_position: Range
    joint_velocity: Range
    object_state: Range
    object_weight: float = Field(default=3.0, gt=0)
    reach_m: float = Field(default=0.05, gt=0)
    geometry: LinkGeometryConfig | None = None

    @model_validator(mode="after")
    def _layout_fits(self) -> Self:
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

    def __init__(
        self, config: HandObjectConfig, seed: int = 0, table: ChainTable | None = None
    ) -> None:
        self._table = table
        super().__init__(config, seed)

    def _build(self, generator: torch.Generator) -> None:
        c = self.config
        try:
            self.geometry = None if c.geometry is None else LinkGeometry(c.geometry, self._table)
        finally:
            del self._table
        hand, moving = 4 * c.action_size, c.object_state[1] - c.object_state[0]
        self.hand_linear = BatchedLinear(c.members, hand, 2 * c.action_size, generator, gain=0.3)
        self.hand_network = BatchedMLP(
            c.members, hand + moving, c.hand_hidden, 2 * c.action_size, generator
        )
        links = 0 if c.geometry is None else 2 * 3 * len(c.geometry.link_joint)
        self.object_linear = BatchedLinear(c.members, hand + moving, moving, generator, gain=0.1)
        self.object_network = BatchedMLP(
            c.members, hand + moving + links, c.hidden, moving, generator
        )

    def normalise(self, observation: Tensor, action: Tensor, following: Tensor) -> None:
        """Set the scales from transitions, and let the object's errors count more."""
        super().normalise(observation, action, following)
        self.difference_scale[slice(*self.config.object_state)] /= self.config.object_weight

    def _difference(self, observation: Tensor, action: Tensor) -> Tensor:
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
        turned = self.object_linear(seen)
        if self.geometry is not None:
            places = [self._links(observation, angles) for angles in (joints, action)]
            seen = torch.cat([seen, *places], dim=-1)
        turned = turned + self.object_network(seen)
        change = torch.zeros_like(observation)
        change[..., slice(*c.joint_position)] = moved[..., : c.action_size]
        change[..., slice(*c.joint_velocity)] = moved[..., c.action_size :]
        change[..., slice(*c.object_state)] = turned
        return change

    def _links(self, observation: Tensor, joints: Tensor) -> Tensor:
        """Return where the links' middles are about the object: [E, N, O], [E, N, A] or [N, A] ->
        [E, N, 3 * L]."""
        assert self.geometry is not None
        c = self.config
        start = c.object_state[0]
        place = observation[..., start : start + 3].detach()
        # Joints learn from their own error; through the kinematics they would learn little.
        center, _ = self.geometry.links(joints.detach().reshape(-1, c.action_size))
        links = center.permute(2, 1, 0).reshape(*joints.shape[:-1], -1, 3)
        return ((links - place[..., None, :]) / c.reach_m).flatten(-2)
