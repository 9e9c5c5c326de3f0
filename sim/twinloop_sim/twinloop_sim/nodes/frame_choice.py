# SPDX-License-Identifier: Apache-2.0
"""Which exposures a camera that draws in software takes, so that it never falls behind."""

from __future__ import annotations

from collections import deque

_MARGIN = 1.25  # that drawing may take longer than it usually does
_KEEP = 0.8  # of an average
_PACE_OVER = 31  # exposures, of which the pace is told: simulations run unevenly on busy machines
_PAUSE_NS = 200_000_000


class FrameChoice:
    """Takes each exposure that serves a control step, and of the others what there is time for.

    Args:
        per_step: exposures of a control step that are wanted, the last ones of it.
        spacing_s: least time between two exposures, s of simulated time.
        takes_all: leave none out, however long it takes: where simulated time waits.
    """

    def __init__(self, per_step: int, spacing_s: float, takes_all: bool = False) -> None:
        self._per_step = per_step
        self._spacing_s = spacing_s
        self._takes_all = takes_all
        self._arrivals: deque[tuple[int, float]] = deque(maxlen=_PACE_OVER)  # stamp, steady
        self.slowness = 1.0  # steady seconds in a simulated one
        self.drawing_s = 0.0  # steady, on average
        self.left_out = 0

    def takes(self, stamp_ns: int, exposures_left: int, steady_s: float) -> bool:
        """Whether to draw an exposure.

        Args:
            stamp_ns: its time, ns.
            exposures_left: before the next control step, after this one.
            steady_s: now.
        """
        self._observe(stamp_ns, steady_s)
        if exposures_left == 0:
            return True
        if exposures_left >= self._per_step:
            return False
        has_time = _MARGIN * self.drawing_s < self._spacing_s * self.slowness
        if self._takes_all or has_time:
            return True
        self.left_out += 1
        return False

    def drew(self, seconds: float) -> None:
        """Drawing and publishing an exposure took this long, s of steady time."""
        before = self.drawing_s or seconds
        self.drawing_s = _KEEP * before + (1.0 - _KEEP) * seconds

    def _observe(self, stamp_ns: int, steady_s: float) -> None:
        # Over resets and pauses the two clocks say nothing about each other.
        if self._arrivals and not 0 < stamp_ns - self._arrivals[-1][0] < _PAUSE_NS:
            self._arrivals.clear()
        self._arrivals.append((stamp_ns, steady_s))
        (first_ns, first_s), (last_ns, last_s) = self._arrivals[0], self._arrivals[-1]
        if last_ns - first_ns > _PAUSE_NS:
            self.slowness = (last_s - first_s) / ((last_ns - first_ns) * 1e-9)
