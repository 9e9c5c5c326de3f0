# SPDX-License-Identifier: Apache-2.0
"""Layers of E networks evaluated together by batched matrix products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

AffineMap = tuple[Tensor, Tensor]  # weight [E, in, out] and bias [E, 1, out]


class BatchedLinear(nn.Module):
    """E affine maps at once: [E, N, in] -> [E, N, out], each member with its own weights."""

    def __init__(
        self, members: int, inputs: int, outputs: int, generator: torch.Generator, gain: float = 1.0
    ) -> None:
        super().__init__()
        bound = gain / math.sqrt(inputs)
        weight = torch.rand(members, inputs, outputs, generator=generator)
        self.weight = nn.Parameter((2 * weight - 1) * bound)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class BatchedMLP(nn.Module):
    """E multilayer perceptrons with ReLU: [E, N, in] -> [E, N, out].

    The last layer starts small unless told, so that a new model predicts almost no change.
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        generator: torch.Generator,
        last_gain: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = [inputs, *hidden]
        layers = [
            BatchedLinear(members, a, b, generator, gain=math.sqrt(6) / math.sqrt(2))
            for a, b in itertools.pairwise(sizes)
        ]
        layers.append(BatchedLinear(members, sizes[-1], outputs, generator, gain=last_gain))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu_(layer(x))
        out: Tensor = self.layers[-1](x)
        return out

    def folded(self, mean: Tensor, scale: Tensor, output_scale: Tensor) -> list[AffineMap]:
        """Return layers that take raw inputs and give scaled outputs.

        They are those of `output_scale * self((x - mean) / scale)`, with the scales worked into the
        weights; ReLU stands between them.
        """
        maps = [(layer.weight, layer.bias) for layer in self.layers]
        weight, bias = maps[0]
        weight = weight / scale[:, None]
        maps[0] = weight, bias - mean @ weight[:, None]
        weight, bias = maps[-1]
        maps[-1] = weight * output_scale, bias * output_scale
        return maps


def apply(maps: list[AffineMap], x: Tensor) -> Tensor:
    """Return what folded layers make of their input: [E, N, in] -> [E, N, out]."""
    for weight, bias in maps[:-1]:
        x = torch.baddbmm(bias, x, weight).relu_()
    weight, bias = maps[-1]
    return torch.baddbmm(bias, x, weight)
