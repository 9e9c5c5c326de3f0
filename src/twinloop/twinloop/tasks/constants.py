# SPDX-License-Identifier: Apache-2.0
"""Numbers of a task as tensors, copied to each device once.

A plan on a GPU must not copy anything from the host; a cost that makes its constants anew would.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers as a tensor of the type and on the device of `like`: [n]. Do not change it."""
    return _constant(tuple(values), like.dtype, like.device)


@lru_cache(maxsize=1024)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
