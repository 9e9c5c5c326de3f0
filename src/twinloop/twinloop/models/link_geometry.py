# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics and ball-to-link gaps, batched in torch and differentiable.

Rows of the batch come last in most tensors here, so that sums over coordinates run along memory.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from twinloop.models.kinematics import ChainTable


class LinkGeometryConfig(BaseModel):
    """Which joint moves what; the lengths are tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    joint_index: tuple[tuple[int, ...], ...] = Field(min_length=1)  # [C][D], -1 where padded
    link_joint: tuple[tuple[int, int], ...] = Field(min_length=1)  # [L] (chain, depth)
    boxes: int = Field(ge=0, le=4096)

    @model_validator(mode="after")
    def _table_fits(self) -> Self:
        chains, depth = len(self.joint_index), len(self.joint_index[0])
        if depth == 0 or any(len(row) != depth for row in self.joint_index):
            raise ValueError("joint_index: chains differ in length, expected them padded alike")
        if any(joint < -1 for row in self.joint_index for joint in row):
            raise ValueError("joint_index: a joint is below -1, which stands for none")
        if any(not (0 <= c < chains and 0 <= d < depth) for c, d in self.link_joint):
            raise ValueError("link_joint: a link is on no chain")
        return self

    @classmethod
    def of(cls, table: ChainTable) -> LinkGeometryConfig:
        return cls(
            joint_index=tuple(map(tuple, table.joint_index)),
            link_joint=tuple(table.link_joint),
            boxes=len(table.box_half),
        )


class LinkGeometry(nn.Module):
    """Where the links are, and how far balls are from their surfaces."""

    def __init__(self, config: LinkGeometryConfig, table: ChainTable | None = None) -> None:
        super().__init__()
        chains, depth = len(config.joint_index), len(config.joint_index[0])
        links = len(config.link_joint)
        self._depth, self._chains = depth, chains
        # Beside the lengths, so that no plan has to copy them to the device.
        index = {
            "_joints": torch.tensor(config.joint_index).clamp(min=0).T.flatten(),
            "_movers": torch.tensor([d * chains + chain for chain, d in config.link_joint]),
        }
        for name, value in index.items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("constant", torch.zeros(depth, chains, 3, 3, 1))
        self.register_buffer("sine", torch.zeros(depth, chains, 3, 3, 1))
        self.register_buffer("cosine", torch.zeros(depth, chains, 3, 3, 1))
        self.register_buffer("translation", torch.zeros(depth, chains, 1, 3, 1))
        self.register_buffer("link_center", torch.zeros(links, 1, 3, 1))
        self.register_buffer("link_half", torch.zeros(links, 1, 3, 1))
        self.register_buffer("link_radius", torch.ones(links, 1))
        self.register_buffer("box_center", torch.zeros(3, 1, config.boxes, 1))
        self.register_buffer("box_half", torch.ones(3, 1, config.boxes, 1))
        if table is not None:
            self._fill(table)

    _joints: Tensor
    _movers: Tensor
    constant: Tensor
    sine: Tensor
    cosine: Tensor
    translation: Tensor
    link_center: Tensor
    link_half: Tensor
    link_radius: Tensor
    box_center: Tensor
    box_half: Tensor

    @property
    def shapes(self) -> int:
        """Number of shapes that a ball has a gap to: links and boxes."""
        return len(self.link_radius) + self.box_half.shape[-2]

    def _fill(self, table: ChainTable) -> None:
        x, y, z = table.axis.unbind(-1)
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
        # Rodrigues: R(q) = 1 + sin(q) K + (1 - cos(q)) K², after the fixed turn into the joint.
        square = table.rotation @ cross @ cross
        for name, value in (
            ("constant", table.rotation + square),
            ("sine", table.rotation @ cross),
            ("cosine", -square),
        ):
            getattr(self, name).copy_(value.transpose(0, 1)[..., None])
        self.translation.copy_(table.translation.transpose(0, 1)[:, :, None, :, None])
        self.link_center.copy_(table.link_center[:, None, :, None])
        self.link_half.copy_(table.link_half[:, None, :, None])
        self.link_radius.copy_(table.link_radius[:, None])
        self.box_center.copy_(table.box_center.T[:, None, :, None])
        self.box_half.copy_(table.box_half.T[:, None, :, None])

    def links(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Return centres and half axes [m] of the links: [B, J] rad -> 2 × [3, L, B]."""
        angle = joints.T[self._joints].view(self._depth, self._chains, 1, 1, -1)
        local = torch.addcmul(self.constant, torch.sin(angle), self.sine)
        local = torch.addcmul(local, torch.cos(angle), self.cosine)  # [D, C, 3, 3, B]
        turn = local[0]
        place = self.translation[0, :, 0].expand(-1, -1, len(joints))  # [C, 3, B]
        turns, places = [turn], [place]
        for d in range(1, self._depth):
            place = place + (turn * self.translation[d]).sum(2)
            turn = (turn[:, :, :, None] * local[d][:, None]).sum(2)
            turns.append(turn)
            places.append(place)
        # All links at once: many small operations cost as much as they are many.
        turned = torch.cat(turns)[self._movers]  # [L, 3, 3, B]
        center = torch.cat(places)[self._movers] + (turned * self.link_center).sum(2)
        half = (turned * self.link_half).sum(2)
        return center.transpose(0, 1).contiguous(), half.transpose(0, 1).contiguous()

    def gaps(self, balls: Tensor, links: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return distances from ball centres to surfaces, and unit vectors from surface to ball.

        Balls [3, M, B] m; gaps [M, L + K, B] m; directions [3, M, L + K, B].
        """
        center, half = (part[:, None] for part in links)
        points = balls[:, :, None]
        apart = points - center
        # A point has no axis to project on: the small number keeps spheres from 0 / 0.
        share = (apart * half).sum(0) / (half * half).sum(0).add(1e-12)
        to_link = apart - share.clamp(-1.0, 1.0) * half
        beyond = points - self.box_center
        to_box = beyond - torch.minimum(torch.maximum(beyond, -self.box_half), self.box_half)
        to_surface = torch.cat([to_link, to_box], dim=2)
        distance = (to_surface * to_surface).sum(0).add(1e-12).sqrt()
        radius = nn.functional.pad(self.link_radius, (0, 0, 0, self.box_half.shape[-2]))
        return distance - radius, to_surface / distance
