# SPDX-License-Identifier: Apache-2.0
"""Layers of E networks evaluated together by batched matrix products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
