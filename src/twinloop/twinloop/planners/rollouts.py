# SPDX-License-Identifier: Apache-2.0
"""What a planner thought would happen: its best rollouts, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Rollouts:
    """The K cheapest rollouts of a plan, best first; H steps, O elements of the observation.

    Attributes:
        predicted: mean over the ensemble's members [K, H, O].
        spread: standard deviation over the members [K, H, O].
        cost: summed over the horizon, with the penalty for disagreement [K].
    """

    predicted: Array
    spread: Array
    cost: Array


def cheapest(tried: Sequence[tuple[Tensor, Tensor]], count: int) -> Rollouts:
    """Return the cheapest of the rollouts that are finite, at most `count`.

    Args:
        tried: predicted states [H, E, N, O] and values [N], for each time a planner rolled out.
    """
    values = torch.cat([value for _, value in tried])
    best = values.topk(min(count, int(torch.isfinite(values).sum()))).indices
    kept, first = [], 0
    for states, value in tried:
        # Of each batch those that are wanted; they are put into their order below.
        here = best[(best >= first) & (best < first + len(value))]
        kept.append((here, states[:, :, here - first]))
        first += len(value)
    order = torch.cat([here for here, _ in kept])
    states = torch.cat([part for _, part in kept], dim=2)
    rank = values[order].argsort(descending=True)
    spread, mean = torch.std_mean(states[:, :, rank], 1, correction=0)  # [H, K, O]
    return Rollouts(
        mean.transpose(0, 1).cpu().numpy().astype(np.float32),
        spread.transpose(0, 1).cpu().numpy().astype(np.float32),
        -values[order][rank].cpu().numpy().astype(np.float32),
    )
