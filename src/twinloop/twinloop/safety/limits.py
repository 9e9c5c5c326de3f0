# SPDX-License-Identifier: Apache-2.0
"""From requested targets to a goal that may be applied: one formula for guards and twins."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Targets computed in float32 may miss a limit by their rounding; that is no fault to report.
ROUNDING_RAD = 1e-6


def limit_goal(
    targets: Array, previous: Array, lower: ArrayLike, upper: ArrayLike, max_change: ArrayLike
) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Clamp targets to the position limits, then to one step's change from the previous goal.

    Args:
        targets: requested [..., J], rad, finite.
        previous: goal in force [..., J], rad, inside the limits.
        lower: position limits [J], rad.
        upper: position limits [J], rad.
        max_change: largest change from one command to the next, rad, scalar or [J].

    Returns:
        The goal [..., J], rad; where the position limits, and where the change limit, moved a
        target by more than rounding [..., J].
    """
    inside = np.minimum(np.maximum(targets, lower), upper)
    change = inside - previous
    near = previous + np.minimum(np.maximum(change, np.negative(max_change)), max_change)
    limited = np.abs(near - inside) > ROUNDING_RAD
    return np.where(limited, near, inside), np.abs(inside - targets) > ROUNDING_RAD, limited
