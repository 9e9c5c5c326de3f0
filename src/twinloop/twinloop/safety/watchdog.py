# SPDX-License-Identifier: Apache-2.0
"""A watchdog on the steady clock: it wants to be fed, and says when it was not."""

from __future__ import annotations

import math


class Watchdog:
    """Expires when it has not been fed for `timeout_s`; watches from the first feeding on.

    Times are read by the caller from a clock that never steps (`time.monotonic()`), so neither a
    wall-clock change nor a paused simulation can blind it.

    Args:
        timeout_s: patience between two feedings, s, > 0.

    Raises:
        ValueError: a timeout that is not a positive number.
    """

    def __init__(self, timeout_s: float) -> None:
        if not (math.isfinite(timeout_s) and timeout_s > 0.0):
            raise ValueError(f"watchdog timeout must be a positive number of s, got {timeout_s}")
        self.timeout_s = float(timeout_s)
        self._scale = 1.0
        self._fed_at: float | None = None

    @property
    def is_watching(self) -> bool:
        """Whether it was fed since it was made or last released."""
        return self._fed_at is not None

    def scale(self, factor: float) -> None:
        """Multiply the patience: slow simulation is fed more slowly; `inf` never expires.

        Raises:
            ValueError: a factor that is not a positive number.
        """
        if not factor > 0.0:
            raise ValueError(f"watchdog scale must be positive, got {factor}")
        self._scale = float(factor)

    def feed(self, now_s: float) -> None:
        """Start, or go on watching, from `now_s`, steady s."""
        self._fed_at = now_s

    def excuse(self, seconds: float) -> None:
        """Do not count `seconds` of silence: the one who listens was away himself."""
        if self._fed_at is not None:
            self._fed_at += seconds

    def release(self) -> None:
        """Stop watching until the next feeding."""
        self._fed_at = None

    def age_s(self, now_s: float) -> float:
        """Steady seconds since the last feeding; 0 while not watching."""
        return 0.0 if self._fed_at is None else now_s - self._fed_at

    def is_expired(self, now_s: float) -> bool:
        """Whether it is watching and the last feeding is more than the patience ago."""
        return self._fed_at is not None and now_s - self._fed_at > self.timeout_s * self._scale
