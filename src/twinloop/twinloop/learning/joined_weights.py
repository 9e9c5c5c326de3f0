# SPDX-License-Identifier: Apache-2.0
"""All weights of a network as one vector, for optimizers: many small operations cost more than a
large one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def joined(weights: Sequence[nn.Parameter]) -> Iterator[nn.Parameter]:
    """Give one parameter [P] whose elements are those of all weights, in their order.

    Its gradient is there from the beginning and is added to by each backward pass: set it to zero
    with `grad.zero_()`, never to None. Afterwards weights have memory of their own again, and no
    gradient.
    """
    vector = nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
    vector.grad = torch.zeros_like(vector)
    for weight, part, slope in zip(
        weights, _parts(vector.detach(), weights), _parts(vector.grad, weights), strict=True
    ):
        weight.data, weight.grad = part, slope
    try:
        yield vector
    finally:
        for weight in weights:
            weight.data, weight.grad = weight.detach().clone(), None


def _parts(vector: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Return views of a vector in the shapes of weights."""
    parts = vector.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
