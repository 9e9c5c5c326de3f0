# SPDX-License-Identifier: Apache-2.0
"""Which exposures a camera that draws in software takes, so that it never falls behind."""

from __future__ import annotations

_MARGIN = 1.25  # that drawing may take longer than it usually does
_KEEP = 0.8  # of an average


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
        self._last: tuple[int, float] | None = None  # stamp and arrival of the newest exposure
        self.slowness = 1.0  # steady seconds in a simulated one, on average
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
        if self._last is not None:
            simulated_s = (stamp_ns - self._last[0]) * 1e-9
            # Over resets and pauses the two say nothing about each other.
            if 0.0 < simulated_s < 0.2:
                slowness = (steady_s - self._last[1]) / simulated_s
                self.slowness = _KEEP * self.slowness + (1.0 - _KEEP) * slowness
        self._last = stamp_ns, steady_s
