# SPDX-License-Identifier: Apache-2.0
"""How regularly a control loop runs."""

from __future__ import annotations

import statistics
from collections import deque

_WINDOW = 500


class LoopTiming:
    """Period and jitter of the newest cycles; may be read while it is fed."""

    def __init__(self) -> None:
        self._periods_s: deque[float] = deque(maxlen=_WINDOW)
        self._begun_s: float | None = None

    def begin(self, steady_s: float) -> float:
        """A cycle begins; returns the time since the one before, s, 0 for the first."""
        before_s, self._begun_s = self._begun_s, steady_s
        if before_s is None:
            return 0.0
        period_s = steady_s - before_s
        self._periods_s.append(period_s)
        return period_s

    def pause(self) -> None:
        """The loop pauses: the time until its next cycle is no period."""
        self._begun_s = None

    @property
    def rate_hz(self) -> float:
        """Cycles a second; 0 while unknown."""
        periods_s = list(self._periods_s)
        total_s = sum(periods_s)
        return len(periods_s) / total_s if total_s else 0.0

    @property
    def period_ms(self) -> float:
        """Mean time between two cycles, ms; 0 while unknown."""
        rate_hz = self.rate_hz
        return 1e3 / rate_hz if rate_hz else 0.0

    @property
    def jitter_ms(self) -> float:
        """Standard deviation of the time between two cycles, ms."""
        periods_s = list(self._periods_s)
        return 1e3 * statistics.pstdev(periods_s) if len(periods_s) > 1 else 0.0

    @property
    def longest_ms(self) -> float:
        """Longest time between two of the newest cycles, ms."""
        return 1e3 * max(list(self._periods_s), default=0.0)
