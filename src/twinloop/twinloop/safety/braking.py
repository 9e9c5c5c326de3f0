# SPDX-License-Identifier: Apache-2.0
"""How joints that move come to rest soonest, within their limits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# What differences of positions have of rounding, in rad a tick.
_STILL = 1e-10


def braking(last: Array, acceleration: Array, jerk: Array, dt: float) -> Array:
    """Return the positions [T, J], rad, until all joints stand; T may be 0.

    The last tick is the first in which none moves.

    Each joint rests as early as its limits allow. In n ticks, its acceleration can be anything
    between two envelopes: as low, and as high, as the limits allow if it starts from the present
    acceleration and is none again a tick after the last. Both keep the limit of jerk, and so does
    every mixture of them. So n is the least for which the change of velocity that is wanted lies
    between theirs, and the mixture is the one that makes it.

    Velocity, acceleration and jerk are backward differences over `dt`, as those of `Ramp`.

    Args:
        last: the last three positions [3, J], rad, newest last.
        acceleration, jerk: limits [J], rad/s^2 and rad/s^3.
        dt: tick, s.
    """
    # In rad a tick and its powers from here on.
    velocity = last[2] - last[1]
    present = velocity - (last[1] - last[0])
    most, change = acceleration * dt**2, jerk * dt**3
    # Beyond its limit, by a clamp say, no number of ticks would be enough.
    present = np.clip(present, -most, most)
    is_moving = (np.abs(velocity) > _STILL) | (np.abs(present) > _STILL)
    if not is_moving.any():
        return np.empty((0, last.shape[1]))
    ticks = np.where(is_moving, _least_ticks(velocity, present, most, change), 0)
    low, high = _envelopes(ticks, present, most, change)
    least, greatest = low.sum(0), high.sum(0)
    span = np.where(greatest > least, greatest - least, 1.0)
    share = np.clip((-velocity - least) / span, 0.0, 1.0)
    slowing = np.where(is_moving, low + share * (high - low), 0.0)
    return last[2] + np.cumsum(velocity * is_moving + np.cumsum(slowing, 0), 0)


def _least_ticks(velocity: Array, present: Array, most: Array, change: Array) -> NDArray[np.int64]:
    """Return the least number of ticks [J] in which each joint can rest; more is possible too."""

    def is_enough(ticks: NDArray[np.int64]) -> NDArray[np.bool_]:
        low, high = _envelopes(ticks, present, most, change)
        is_ordered = (low <= high + _STILL).all(0)
        return is_ordered & (low.sum(0) <= _STILL - velocity) & (high.sum(0) >= -velocity - _STILL)

    # At its limit of acceleration all the time, and as long as it takes to get there and back.
    below = np.maximum(np.ceil(np.abs(velocity) / most - 1e-9).astype(np.int64) - 1, 0)
    above = below + 2 + np.ceil(2.0 * (np.abs(present) + most) / change).astype(np.int64)
    while not (enough := is_enough(above)).all():
        above = np.where(enough, above, 2 * above)
    while (above - below > 1).any():
        middle = (above + below + 1) // 2
        middle = np.where(above - below > 1, middle, above)
        enough = is_enough(middle)
        above, below = np.where(enough, middle, above), np.where(enough, below, middle)
    return above


def _envelopes(
    ticks: NDArray[np.int64], present: Array, most: Array, change: Array
) -> tuple[Array, Array]:
    """Return the lowest and highest accelerations [T, J] of a stop in some ticks [J]."""
    count = np.arange(1, int(ticks.max()) + 1)[:, None]
    end = np.maximum(ticks + 1 - count, 0) * change
    high = np.minimum(np.minimum(most, present + count * change), end)
    low = np.maximum(np.maximum(-most, present - count * change), -end)
    is_later = count > ticks
    return np.where(is_later, 0.0, low), np.where(is_later, 0.0, high)
