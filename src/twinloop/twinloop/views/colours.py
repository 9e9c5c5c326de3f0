# SPDX-License-Identifier: Apache-2.0
"""Colours that mean the same in every viewer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BALLS = ((226, 106, 44), (52, 120, 200))
TARGET = (90, 190, 110)
FINGERTIP = (240, 190, 60)
# Viridis at five places, from the cheapest to the dearest, reversed: bright is good.
_SCALE = np.array(
    [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]], dtype=np.float64
)


def of_cost(cost: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return colours [N, 3] of costs [N], from the cheapest to the dearest of them."""
    low, high = (float(cost.min()), float(cost.max())) if len(cost) else (0.0, 0.0)
    share = (cost - low) / (high - low) if high > low else np.zeros(len(cost))
    at = share * (len(_SCALE) - 1)
    return np.stack(
        [np.interp(at, np.arange(len(_SCALE)), channel) for channel in _SCALE.T], axis=-1
    ).astype(np.uint8)
