# SPDX-License-Identifier: Apache-2.0
"""Layers of E networks evaluated together by batched matrix products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

_HAS_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_HAS_BFLOAT16 = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
_IN_BFLOAT16 = ContextVar("in_bfloat16", default=False)
AffineMap = tuple[Tensor, Tensor]  # weight [E, in, out] and bias [E, 1, out]
MemberMap = tuple[Tensor, Tensor]  # of one member: weight [out, in] and bias [out]
_MOST_LAYERS = 16
_WIDEST = 8192


def check_widths(name: str, widths: Sequence[int]) -> None:
    """Refuse layers that no model has, before any is made.

    Raises:
        ValueError: there are too many of them, or one is too wide or not wide at all.
    """
    if len(widths) > _MOST_LAYERS or any(not 0 < width <= _WIDEST for width in widths):
        raise ValueError(
            f"{name} is {tuple(widths)!r:.80}, expected at most {_MOST_LAYERS} widths in "
            f"1..{_WIDEST}"
        )


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Let networks multiply in bfloat16 inside, and add up in single precision.

    Inputs and outputs stay in single precision, and so do weights, unless they are in bfloat16
    already (`learning/joined_weights.py`). It counts on CPUs that have instructions for it, where
    it is twice as fast; nothing changes elsewhere.
    """
    before = _IN_BFLOAT16.set(_HAS_BFLOAT16)
    try:
        yield
    finally:
        _IN_BFLOAT16.reset(before)


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
        return torch.baddbmm(self.bias.to(x.dtype), x, self.weight.to(x.dtype))


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
        given = x.dtype
        if _IN_BFLOAT16.get() and x.is_cpu:
            x = x.to(torch.bfloat16)
        for layer in self.layers[:-1]:
            x = torch.relu_(layer(x))
        out: Tensor = self.layers[-1](x)
        return out.to(given)

    def folded(
        self, mean: Tensor, scale: Tensor, output_scale: Tensor, kept: Sequence[slice]
    ) -> FoldedMLP:
        """Return a copy that takes raw inputs and gives scaled outputs, for use without gradients.

        They are those of `output_scale * self((x - mean) / scale)`, with the scales worked into the
        weights; ReLU stands between them. Outputs that are not in `kept` are not worked out.
        """
        maps: list[AffineMap] = []
        for layer in self.layers:
            assert isinstance(layer, BatchedLinear)
            maps.append((layer.weight.clone(), layer.bias.clone()))
        weight, bias = maps[0]
        weight = weight / scale[:, None]
        maps[0] = weight, bias - mean @ weight[:, None]
        weight, bias = (
            torch.cat([(part * output_scale)[..., where] for where in kept], dim=-1)
            for part in maps[-1]
        )
        maps[-1] = weight, bias
        return FoldedMLP(maps, kept)


def weights_of_products(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that `bfloat16_products` multiplies in bfloat16: none where the processor
    has no instructions for it."""
    if not _HAS_BFLOAT16:
        return []
    return [p for m in model.modules() if isinstance(m, BatchedMLP) for p in m.parameters()]


class FoldedMLP:
    """E networks that say by how much some elements of a state change, step after step."""

    def __init__(self, maps: list[AffineMap], kept: Sequence[slice]) -> None:
        """
        Args:
            maps: layers, with ReLU between them.
            kept: elements of the state that the outputs are for, in their order.
        """
        self._maps, self._kept = maps, list(kept)
        self._sizes = [where.stop - where.start for where in kept]
        self._members = by_member(maps) if maps[0][0].is_cpu else []

    def roll(self, steps: Tensor) -> None:
        """Fill in the kept elements of all steps but the first: [E, H + 1, N, in].

        A row is what the layers read, and begins with the state.

        On a CPU one member after the other: its rows stay in the cache from layer to layer, and
        products of single matrices are quicker there than batched ones.
        """
        if not steps.is_cpu:
            self._fill(steps.unbind(1), self._batched)
            return
        for rows, maps in zip(steps, self._members, strict=True):
            self._fill(rows.unbind(0), partial(apply_member, maps))

    def _fill(self, rows: Sequence[Tensor], network: Callable[[Tensor], Tensor]) -> None:
        states = [[row[..., where] for where in self._kept] for row in rows]
        for row, state, following in zip(rows[:-1], states[:-1], states[1:], strict=True):
            changes = network(row).split(self._sizes, dim=-1)
            for start, change, out in zip(state, changes, following, strict=True):
                torch.add(start, change, out=out)

    def _batched(self, x: Tensor) -> Tensor:
        for weight, bias in self._maps[:-1]:
            x = torch.baddbmm(bias, x, weight).relu_()
        weight, bias = self._maps[-1]
        return torch.baddbmm(bias, x, weight)


def by_member(maps: Sequence[AffineMap]) -> list[list[MemberMap]]:
    """Return the layers of each member apart, as `apply_member` takes them."""
    members = range(len(maps[0][0]))
    return [[(weight[e].T, bias[e, 0]) for weight, bias in maps] for e in members]


def apply_member(maps: Sequence[MemberMap], x: Tensor) -> Tensor:
    """Return what the layers of one member give on a CPU: [N, in] -> [N, out]."""
    for weight, bias in maps[:-1]:
        x = _affine(x, weight, bias, "relu")
    weight, bias = maps[-1]
    return _affine(x, weight, bias, "none")


def _affine(x: Tensor, weight: Tensor, bias: Tensor, following: Literal["relu", "none"]) -> Tensor:
    if _HAS_FUSED:  # the one that torch.compile would choose, with bias and ReLU in the product
        fused: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, following, [], "")
        return fused
    out = torch.addmm(bias, x, weight.T)
    return out.relu_() if following == "relu" else out
