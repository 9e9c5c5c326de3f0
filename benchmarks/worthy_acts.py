# SPDX-License-Identifier: Apache-2.0
"""Which act is done of those that are worth enough, where a pilot wants another.

After "Shared Autonomy via Deep Reinforcement Learning" (arXiv 1802.01744, algorithm 1). The
tolerance is the paper's α: 0 leaves the pilot nothing, 1 everything.
"""

from __future__ import annotations

import torch
from torch import Tensor

# An act is a pair: main engine off or on, and side engines left, off or right.
ACTS = tuple((main, side) for main in (0, 1) for side in (-1, 0, 1))


def nearest_worthy(value: Tensor, wanted: Tensor, tolerance: float) -> Tensor:
    """Return the act nearest to the wanted one among those that are worth enough: [B, 6], [B]
    -> [B].

    Enough is (1 - tolerance) of the best, with values counted from the worst act's, so that
    negative ones have a share too. Nearness: the same act; else the same main engine; else the same
    side engine; of acts that are as near, the more valuable one.
    """
    acts = torch.tensor(ACTS)
    shifted = value - value.amin(1, keepdim=True)
    best = shifted.amax(1, keepdim=True)
    mine, theirs = acts[None], acts[wanted][:, None]
    near = 2 * (mine[..., 0] == theirs[..., 0]) + (mine[..., 1] == theirs[..., 1])
    # At most a half, so that value only decides between acts equally near.
    rank = near + 0.5 * shifted / best.clamp(min=1e-9)
    is_worthy = shifted >= (1.0 - tolerance) * best
    return torch.where(is_worthy, rank, -1.0).argmax(1)
