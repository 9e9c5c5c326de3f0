# SPDX-License-Identifier: Apache-2.0
"""Ensemble dynamics of a hand with balls in its palm.

One network moves the joints (a linear servo model with a small correction); one network, with
weights shared by the balls, moves each ball. The latter sees the ball, the other ball relative to
it, the joints, and the gap and direction from every link to the ball, with the joints where they
are and where they are commanded to be, from known forward kinematics.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.models.kinematics import ChainTable
from twinloop.models.layers import BatchedLinear, BatchedMLP, check_widths
from twinloop.models.link_geometry import LinkGeometry, LinkGeometryConfig

Range = tuple[int, int]


class HandBallsConfig(EnsembleConfig):
    """Sizes and the layout of the observation: ranges of its channels."""

    kind: Literal["hand_balls"] = "hand_balls"  # type: ignore[assignment]
    hidden: tuple[int, ...] = (200, 200)
    hand_hidden: tuple[int, ...] = (128,)
    joint_position: Range
    joint_velocity: Range
    ball_position: Range
    ball_velocity: Range
    geometry: LinkGeometryConfig
    ball_radius_m: float = Field(gt=0)
    reach_m: float = Field(default=0.015, gt=0)  # gap over which a link's direction fades
    far_m: float = Field(default=0.04, gt=0)  # gaps beyond are all alike

    @model_validator(mode="after")
    def _layout_fits(self) -> Self:
        check_widths("hand_hidden", self.hand_hidden)
        sizes = {
            "joint_position": self.action_size,
            "joint_velocity": self.action_size,
            "ball_position": 6,
            "ball_velocity": 6,
        }
        for name, size in sizes.items():
            start, stop = getattr(self, name)
            if not 0 <= start < stop <= self.observation_size or stop - start != size:
                raise ValueError(f"{name} is {(start, stop)}, expected a range of {size} elements")
        if self.known is None:
            raise ValueError("known is None, expected the range of the command")
        if any(j >= self.action_size for row in self.geometry.joint_index for j in row):
            raise ValueError("geometry.joint_index names a joint that the action does not have")
        return self


class HandBalls(Ensemble):
    """The model; rows and shapes as in `Ensemble`."""

    Config: type[EnsembleConfig] = HandBallsConfig
    config: HandBallsConfig

    def __init__(
        self, config: HandBallsConfig, seed: int = 0, table: ChainTable | None = None
    ) -> None:
        self._table = table
        super().__init__(config, seed)

    def _build(self, generator: torch.Generator) -> None:
        c = self.config
        try:
            self.geometry = LinkGeometry(c.geometry, self._table)
        finally:
            del self._table
        hand = 4 * c.action_size
        self.hand_linear = BatchedLinear(c.members, hand, 2 * c.action_size, generator, gain=0.3)
        self.hand_network = BatchedMLP(
            c.members, hand + 12, c.hand_hidden, 2 * c.action_size, generator
        )
        ball = 12 + hand + 2 * 4 * self.geometry.shapes
        self.ball_network = BatchedMLP(c.members, ball, c.hidden, 6, generator)

    def normalise(self, observation: Tensor, action: Tensor, following: Tensor) -> None:
        """Set the scales from transitions; both balls share theirs."""
        super().normalise(observation, action, following)
        for channel in (self.config.ball_position, self.config.ball_velocity):
            where = slice(*channel)
            for scale in (self.observation_scale, self.difference_scale):
                scale[where] = scale[where].unflatten(0, (2, 3)).square().mean(0).sqrt().repeat(2)
            mean = self.observation_mean[where].unflatten(0, (2, 3))
            self.observation_mean[where] = mean.mean(0).repeat(2)

    def difference(self, observation: Tensor, action: Tensor) -> Tensor:
        c = self.config
        members, rows, _ = observation.shape
        scaled = (observation - self.observation_mean) / self.observation_scale
        joints = observation[..., slice(*c.joint_position)]
        command = observation[..., slice(*c.known)]  # type: ignore[misc]
        pull = self.action_scale.reciprocal()
        target = action.expand(members, -1, -1)
        hand = torch.cat(
            [
                scaled[..., slice(*c.joint_position)],
                scaled[..., slice(*c.joint_velocity)],
                # A joint moves by what it lags behind its targets, far less than their range.
                (command - joints) * (4.0 * pull),
                (target - command) * (4.0 * pull),
            ],
            dim=-1,
        )
        position = scaled[..., slice(*c.ball_position)]
        velocity = scaled[..., slice(*c.ball_velocity)]
        correction = self.hand_network(torch.cat([hand, position, velocity], dim=-1))
        hand_change = self.hand_linear(hand) + correction

        position = position.unflatten(-1, (2, 3))
        velocity = velocity.unflatten(-1, (2, 3))
        gaps = self._gap_features(observation, joints, action)
        balls = torch.cat(
            [
                position,
                velocity,
                position.flip(-2) - position,
                velocity.flip(-2) - velocity,
                hand[..., None, :].expand(-1, -1, 2, -1),
                gaps.view(members, rows, 2, -1),
            ],
            dim=-1,
        )
        ball_change = self.ball_network(balls.flatten(1, 2)).view(members, rows, 2, 6)

        change = torch.zeros_like(observation)
        change[..., slice(*c.joint_position)] = hand_change[..., : c.action_size]
        change[..., slice(*c.joint_velocity)] = hand_change[..., c.action_size :]
        change[..., slice(*c.ball_position)] = ball_change[..., :3].flatten(-2)
        change[..., slice(*c.ball_velocity)] = ball_change[..., 3:].flatten(-2)
        return change

    def _gap_features(self, observation: Tensor, joints: Tensor, action: Tensor) -> Tensor:
        """Return features of the links about each ball: [E, N, ...] -> [E * N, 2, F]."""
        c = self.config
        rows = observation[..., 0].numel()
        balls = observation[..., slice(*c.ball_position)].reshape(rows, 6).T.reshape(2, 3, rows)
        balls = balls.transpose(0, 1)
        # Where the joints are and where they are to go, in one pass: many small operations cost as
        # much as they are many. Joints learn from their own error; through the kinematics they
        # would learn little.
        both = torch.cat([part.detach().reshape(-1, c.action_size) for part in (joints, action)])
        center, half = self.geometry.links(both)
        if len(both) < 2 * rows:  # all members share the action
            center, half = (
                torch.cat([part[..., :rows], part[..., rows:].repeat(1, 1, len(observation))], -1)
                for part in (center, half)
            )
        gap, direction = self.geometry.gaps(balls.repeat(1, 1, 2), (center, half))
        gap = gap - c.ball_radius_m
        near = torch.exp(gap.clamp(min=0.0) * (-1.0 / c.reach_m))
        # Penetration stands for force, so negative gaps keep their size.
        depth = gap.clamp(max=c.far_m) * (1.0 / c.reach_m)
        features = torch.cat([depth[None], direction * near])
        # [4, 2, links, 2 * rows] -> [rows, 2, 2 * 4 * links]
        return features.unflatten(-1, (2, rows)).permute(4, 1, 3, 0, 2).flatten(2)
