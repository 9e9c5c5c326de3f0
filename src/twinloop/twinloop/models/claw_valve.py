# SPDX-License-Identifier: Apache-2.0
"""Ensemble dynamics of a claw over a valve: one network for all fingers, and what they do together.

Each finger is seen with its joints and with the place of its tip, as it is and as it is commanded,
relative to the nearest spoke. So a finger learns from what the others felt, at every spoke. The
valve turns by what the fingers do to it together.
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


class ClawValveConfig(EnsembleConfig):
    """Sizes and the layout of the observation: ranges of its channels."""

    kind: Literal["claw_valve"] = "claw_valve"  # type: ignore[assignment]
    hidden: tuple[int, ...] = (128,)
    joint_position: Range
    joint_velocity: Range
    valve_angle: Range
    valve_velocity: Range
    geometry: LinkGeometryConfig
    fingers: int = Field(default=3, gt=0, le=64)
    spokes: int = Field(default=3, gt=0, le=64)
    # Where fingertips usually are about the valve: distance from its axis, and below the claw.
    tip_radius_m: float = Field(default=0.06, gt=0)
    tip_depth_m: float = Field(default=0.20, gt=0)
    valve_weight: float = Field(default=3.0, gt=0)  # of the valve's errors, beside the joints'
    reach_m: float = Field(default=0.02, gt=0)  # unit of distances from there

    @model_validator(mode="after")
    def _layout_fits(self) -> Self:
        sizes = {
            "joint_position": self.action_size,
            "joint_velocity": self.action_size,
            "valve_angle": 2,
            "valve_velocity": 1,
        }
        for name, size in sizes.items():
            start, stop = getattr(self, name)
            if not 0 <= start < stop <= self.observation_size or stop - start != size:
                raise ValueError(f"{name} is {(start, stop)}, expected a range of {size} elements")
        if self.known is None or self.action_size % self.fingers:
            raise ValueError("expected `known` and a like number of joints for each finger")
        if len(self.geometry.link_joint) % self.fingers:
            raise ValueError("expected a like number of links for each finger")
        return self


class ClawValve(Ensemble):
    """The model; rows and shapes as in `Ensemble`."""

    Config: type[EnsembleConfig] = ClawValveConfig
    config: ClawValveConfig

    def __init__(
        self, config: ClawValveConfig, seed: int = 0, table: ChainTable | None = None
    ) -> None:
        self._table = table
        super().__init__(config, seed)

    def _build(self, generator: torch.Generator) -> None:
        c = self.config
        try:
            self.geometry = LinkGeometry(c.geometry, self._table)
        finally:
            del self._table
        joints = c.action_size // c.fingers
        seen = 4 * joints + 8 + 1
        width = c.hidden[-1]
        self.encoder = BatchedMLP(c.members, seen, c.hidden, width, generator, last_gain=1.4)
        self.finger_linear = BatchedLinear(c.members, 4 * joints, 2 * joints, generator, gain=0.3)
        self.finger_network = BatchedMLP(c.members, 2 * width, (width,), 2 * joints, generator)
        self.valve_network = BatchedMLP(c.members, width + 1, (width,), 2, generator)

    def normalise(self, observation: Tensor, action: Tensor, following: Tensor) -> None:
        """Set the scales from transitions; all fingers, and sine and cosine, share theirs."""
        super().normalise(observation, action, following)
        c = self.config
        groups = [(slice(*r), c.fingers) for r in (c.joint_position, c.joint_velocity)]
        for where, parts in [*groups, (slice(*c.valve_angle), 2)]:
            for scale in (self.observation_scale, self.difference_scale):
                scale[where] = scale[where].view(parts, -1).square().mean(0).sqrt().repeat(parts)
            mean = self.observation_mean[where].view(parts, -1)
            self.observation_mean[where] = mean.mean(0).repeat(parts)
        for valve in (c.valve_angle, c.valve_velocity):
            self.difference_scale[slice(*valve)] /= c.valve_weight
        for scale, mean_too in ((self.action_scale, False), (self.action_mean, True)):
            rows = scale.view(c.fingers, -1)
            shared = rows.mean(0) if mean_too else rows.square().mean(0).sqrt()
            scale.copy_(shared.repeat(c.fingers))

    def difference(self, observation: Tensor, action: Tensor) -> Tensor:
        c = self.config
        members, rows, _ = observation.shape
        joints = observation[..., slice(*c.joint_position)]
        command = observation[..., slice(*c.known)]  # type: ignore[misc]
        scaled = (observation - self.observation_mean) / self.observation_scale
        pull = 4.0 / self.action_scale
        target = action.expand(members, -1, -1)
        servo = torch.stack(
            [
                scaled[..., slice(*c.joint_position)],
                scaled[..., slice(*c.joint_velocity)],
                # A joint moves by what it lags behind its targets, far less than their range.
                (command - joints) * pull,
                (target - command) * pull,
            ],
            dim=-1,
        )
        # [E, N, A, 4] -> [E, N * F, 4 * joints of a finger]
        servo = servo.unflatten(2, (c.fingers, -1)).flatten(3).flatten(1, 2)
        sine, cosine = observation[..., slice(*c.valve_angle)].unbind(-1)
        angle = torch.atan2(sine, cosine)
        velocity = scaled[..., slice(*c.valve_velocity)]
        tips = torch.cat([self._tips(joints, angle), self._tips(action, angle)], dim=-1)
        each = velocity[:, :, None].expand(-1, -1, c.fingers, -1)
        seen = torch.cat([servo, torch.cat([tips, each], dim=-1).flatten(1, 2)], dim=-1)
        felt = torch.relu(self.encoder(seen))
        together = felt.unflatten(1, (rows, c.fingers)).mean(2)  # [E, N, W]
        context = together[:, :, None].expand(-1, -1, c.fingers, -1).flatten(1, 2)
        moved = self.finger_linear(servo) + self.finger_network(torch.cat([felt, context], dim=-1))
        moved = moved.unflatten(1, (rows, c.fingers)).unflatten(-1, (2, -1))  # [E, N, F, 2, J]
        turned = self.valve_network(torch.cat([together, velocity], dim=-1))

        change = torch.zeros_like(observation)
        change[..., slice(*c.joint_position)] = moved[..., 0, :].flatten(2)
        change[..., slice(*c.joint_velocity)] = moved[..., 1, :].flatten(2)
        scale = self.difference_scale[slice(*c.valve_angle)]
        by = turned[..., 0] * scale.square().sum().sqrt()
        change[..., slice(*c.valve_angle)] = (
            torch.stack(
                [
                    sine * (torch.cos(by) - 1.0) + cosine * torch.sin(by),
                    cosine * (torch.cos(by) - 1.0) - sine * torch.sin(by),
                ],
                dim=-1,
            )
            / scale
        )
        change[..., slice(*c.valve_velocity)] = turned[..., 1:]
        return change

    def _tips(self, joints: Tensor, angle: Tensor) -> Tensor:
        """Return where the fingertips are relative to the spokes: joints [E, N, A] or [N, A],
        valve angles [E, N] -> [E, N, F, 4]."""
        c = self.config
        # Joints learn from their own error; through the kinematics they would learn little.
        flat = joints.detach().reshape(-1, c.action_size)
        center, half = self.geometry.links(flat)
        last = len(c.geometry.link_joint) // c.fingers
        x, y, z = (center - half)[:, last - 1 :: last]  # [F, rows]
        radius = torch.hypot(x, y)
        azimuth = torch.atan2(y, x).T.reshape(*joints.shape[:-1], c.fingers)
        phase = c.spokes * (azimuth - angle[..., None])
        place = torch.stack([radius - c.tip_radius_m, z + c.tip_depth_m], dim=-1) / c.reach_m
        place = place.transpose(0, 1).reshape(*joints.shape[:-1], c.fingers, 2)
        spoke = torch.stack([torch.sin(phase), torch.cos(phase)], dim=-1)
        return torch.cat([place.expand(*phase.shape, 2), spoke], dim=-1)
