# SPDX-License-Identifier: Apache-2.0
"""All weights of a network as one vector, for optimizers: many small operations cost more than a
large one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class JoinedWeights:
    """The weights of a network while they are joined.

    Attributes:
        vector: all of them [P], in their order; what an optimizer is given.
        gradient: of the vector [P].
    """

    def __init__(self, weights: Sequence[nn.Parameter], halved: Collection[nn.Parameter]) -> None:
        self._weights = list(weights)
        self.vector = nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
        self.gradient = self.vector.grad = torch.zeros_like(self.vector)
        self._slopes = _parts(self.gradient, weights)
        self._half = self.vector.detach().bfloat16() if halved else None
        self._own = _parts(self.vector.detach(), weights)
        ids = set(map(id, halved))
        halves = self._own if self._half is None else _parts(self._half, weights)
        for weight, own, half in zip(weights, self._own, halves, strict=True):
            weight.data = half if id(weight) in ids else own
            weight.grad = None

    def take_gradients(self) -> None:
        """Move what a backward pass has left in the weights into the vector's gradient; weights
        that it did not reach have none."""
        reached, slopes = [], []
        for weight, slope in zip(self._weights, self._slopes, strict=True):
            if weight.grad is None:
                slope.zero_()
            else:
                reached.append(weight.grad)
                slopes.append(slope)
                weight.grad = None
        if reached:
            torch._foreach_copy_(slopes, reached)

    def refresh(self) -> None:
        """Let the network see what an optimizer has made of the vector."""
        if self._half is not None:
            self._half.copy_(self.vector.detach())

    def part(self) -> None:
        """Give the weights memory of their own again, and no gradient."""
        for weight, own in zip(self._weights, self._own, strict=True):
            weight.data, weight.grad = own.clone(), None


@contextmanager
def joined(
    weights: Sequence[nn.Parameter], halved: Collection[nn.Parameter] = ()
) -> Iterator[JoinedWeights]:
    """Join weights for a while.

    Args:
        halved: those that the network meanwhile sees in bfloat16, converted once an update; the
            vector, and what it leaves, keep single precision. Gradients of such a weight are in
            bfloat16, their sum over the times it is used in a pass, too.
    """
    together = JoinedWeights(weights, halved)
    try:
        yield together
    finally:
        together.part()


def _parts(vector: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Return views of a vector in the shapes of weights."""
    parts = vector.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
