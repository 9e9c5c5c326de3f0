# SPDX-License-Identifier: Apache-2.0
"""When a control step is due, and how late it starts."""

from __future__ import annotations

from collections import deque

JUMP_NS = 1_000_000_000


class StepSchedule:
    """Control steps on the stamps of a sensor, one a period.

    Driven by stamps instead of a timer, so that simulated time, lock-step and real time are the
    same code. The first stamp after `start` is the first due time.
    """

    def __init__(self, period_ns: int) -> None:
        if period_ns <= 0:
            raise ValueError(f"period is {period_ns} ns, expected more than 0")
        self.period_ns = period_ns
        self.skipped = 0
        self._next_ns: int | None = None
        self._last_stamp_ns: int | None = None

    def start(self) -> None:
        self._next_ns = None
        self._last_stamp_ns = None
        self.skipped = 0

    def is_due(self, stamp_ns: int) -> bool:
        """Tell whether `due` would give a step for this stamp; changes nothing."""
        last = self._last_stamp_ns
        jumps = last is not None and abs(stamp_ns - last) > JUMP_NS
        return self._next_ns is None or jumps or stamp_ns >= self._next_ns

    def due(self, stamp_ns: int) -> int | None:
        """Return the due time [ns] of the step that this stamp triggers, or None.

        A stamp seen before triggers nothing. After a jump of the stamps by more than a second the
        schedule starts anew at the stamp; steps that were missed by less are skipped and counted.
        """
        last, self._last_stamp_ns = self._last_stamp_ns, stamp_ns
        if self._next_ns is None or (last is not None and abs(stamp_ns - last) > JUMP_NS):
            self._next_ns = stamp_ns
        if stamp_ns < self._next_ns:
            return None
        missed = (stamp_ns - self._next_ns) // self.period_ns
        self.skipped += missed
        due = self._next_ns + missed * self.period_ns
        self._next_ns = due + self.period_ns
        return due


class Lateness:
    """How long after its due time a step starts, on the steady clock.

    The stamps' clock is laid on the steady clock by the quickest delivery of the last samples, so
    what is measured is the delay over the best case: transport, queueing and the machine's load.

    Args:
        pace: seconds of stamps that pass in a steady second (the real-time factor).
        window: number of samples that the quickest is taken from.
    """

    def __init__(self, pace: float, window: int = 1000) -> None:
        if not pace > 0:
            raise ValueError(f"pace is {pace}, expected more than 0")
        self._pace = pace
        self._offsets: deque[tuple[int, float]] = deque()  # increasing from left to right
        self._window = window
        self._count = 0
        self._last_stamp_ns: int | None = None

    def observe(self, stamp_ns: int, steady_s: float) -> None:
        """Take the arrival of a sample."""
        last, self._last_stamp_ns = self._last_stamp_ns, stamp_ns
        if last is not None and abs(stamp_ns - last) > JUMP_NS:
            self._offsets.clear()
        offset = steady_s - stamp_ns * 1e-9 / self._pace
        while self._offsets and self._offsets[-1][1] >= offset:
            self._offsets.pop()
        self._count += 1
        self._offsets.append((self._count, offset))
        while self._offsets[0][0] <= self._count - self._window:
            self._offsets.popleft()

    def of(self, due_ns: int, steady_s: float) -> float:
        """Return how late [s] a step due at `due_ns` is at the steady time `steady_s`."""
        if not self._offsets:
            return 0.0
        return steady_s - (due_ns * 1e-9 / self._pace + self._offsets[0][1])
