# SPDX-License-Identifier: Apache-2.0
"""How regularly the images of a camera come."""

from __future__ import annotations

import statistics
from collections import deque

_WINDOW = 100
# The usual period is that of few images, so that a camera that gets slower is soon followed.
_USUAL = 15
_FEWEST = 5
_GAP = 1.5  # usual periods; more is a lost image


class FrameTiming:
    """Rate, jitter and lost images, from the newest stamps; may be read while it is fed."""

    def __init__(self) -> None:
        self.dropped = 0
        self._periods_s: deque[float] = deque(maxlen=_WINDOW)
        self._gaps: deque[int] = deque(maxlen=_WINDOW)  # images lost before each of the newest
        self._newest_ns: int | None = None

    def observe(self, stamp_ns: int) -> None:
        """Take the stamp of an image."""
        before_ns, self._newest_ns = self._newest_ns, stamp_ns
        if before_ns is None or stamp_ns <= before_ns:
            return
        period_s = (stamp_ns - before_ns) * 1e-9
        usual_s = self.period_s
        is_gap = len(self._periods_s) >= _FEWEST and period_s > _GAP * usual_s
        lost = round(period_s / usual_s) - 1 if is_gap else 0
        self.dropped += lost
        self._gaps.append(lost)
        self._periods_s.append(period_s)

    def pause(self) -> None:
        """The stream broke off: the time until the next image is no period."""
        self._newest_ns = None

    @property
    def period_s(self) -> float:
        """The usual time between two images, their median [s]; 0 while unknown."""
        newest = list(self._periods_s)[-_USUAL:]
        return statistics.median(newest) if newest else 0.0

    @property
    def rate_hz(self) -> float:
        """Images that came a second."""
        total_s = sum(self._periods_s)
        return len(self._periods_s) / total_s if total_s else 0.0

    @property
    def longest_ms(self) -> float:
        """Longest time between two of the newest images [ms]."""
        return 1e3 * max(list(self._periods_s), default=0.0)

    @property
    def lost_share(self) -> float:
        """Lost images among the newest."""
        gaps = list(self._gaps)
        return sum(gaps) / (sum(gaps) + len(gaps)) if gaps else 0.0

    @property
    def jitter_ms(self) -> float:
        """Standard deviation of the time between two images, without lost ones [ms]."""
        usual_s = self.period_s
        regular_s = [period_s for period_s in list(self._periods_s) if period_s <= _GAP * usual_s]
        return 1e3 * statistics.stdev(regular_s) if len(regular_s) > 1 else 0.0
