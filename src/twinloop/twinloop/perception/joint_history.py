# SPDX-License-Identifier: Apache-2.0
"""Where the joints were when a picture was taken."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class JointHistory:
    """The last joint positions, to be read between two samples.

    Args:
        keep_s: how far back it goes, s.
        reach_s: how far a sample may be from a time that has none on its other side, s.
    """

    def __init__(self, keep_s: float = 2.0, reach_s: float = 0.03) -> None:
        self._keep_ns = round(keep_s * 1e9)
        self._reach_ns = round(reach_s * 1e9)
        self._samples: deque[tuple[int, Array]] = deque()

    def feed(self, stamp_ns: int, position: ArrayLike) -> None:
        """Take joint positions [J], rad. A clock that steps makes all older samples void.

        Raises:
            ValueError: a position is not finite.
        """
        position = np.asarray(position, dtype=np.float64)
        if not np.isfinite(position).all():
            raise ValueError(f"joint positions {position.tolist()}, expected finite radians")
        samples = self._samples
        if samples and not 0 < stamp_ns - samples[-1][0] <= self._keep_ns:
            if 0 <= samples[-1][0] - stamp_ns <= self._keep_ns:
                return  # delivered late, or twice
            samples.clear()
        samples.append((stamp_ns, position))
        while samples[0][0] < stamp_ns - self._keep_ns:
            samples.popleft()

    def at(self, stamp_ns: int) -> Array | None:
        """Return joint positions [J], rad, or None where no sample is near enough."""
        samples = self._samples
        after = bisect_left(samples, stamp_ns, key=lambda sample: sample[0])
        if 0 < after < len(samples):
            (begin_ns, begin), (end_ns, end) = samples[after - 1], samples[after]
            share = (stamp_ns - begin_ns) / (end_ns - begin_ns)
            return begin + share * (end - begin)
        if not samples:
            return None
        nearest_ns, nearest = samples[0] if after == 0 else samples[-1]
        return nearest.copy() if abs(nearest_ns - stamp_ns) <= self._reach_ns else None
