# SPDX-License-Identifier: Apache-2.0
"""When the simulation may advance: on the steady clock, and in lock-step with a planner."""

from __future__ import annotations

import math


class Pace:
    """Ticks that are due on the steady clock at a real-time factor.

    Due times are absolute, so rounding and lateness do not add up. After a lag of more than
    `max_lag_s` the lost time is given up instead of being caught up in one burst.

    Args:
        tick_s: simulated time of a tick, s.
        rtf: simulated seconds in a steady second; 0: as fast as possible.
        burst: ticks granted at once at most; the rest waits for the next call.
        max_lag_s: steady time that may be caught up, s.
    """

    def __init__(self, tick_s: float, rtf: float, burst: int = 10, max_lag_s: float = 0.25) -> None:
        self._interval_s = tick_s / rtf if rtf > 0.0 else 0.0
        self._burst = burst
        self._max_lag_s = max(max_lag_s, 2.0 * self._interval_s)
        self._next_s = -math.inf
        self.lost_s = 0.0

    def restart(self, steady_s: float) -> None:
        """The next tick is due now: after a reset, a wait or a start."""
        self._next_s = steady_s

    def due(self, steady_s: float) -> int:
        """Ticks to run now; they count as run."""
        if self._interval_s == 0.0:
            return self._burst
        lag_s = steady_s - self._next_s
        if lag_s < 0.0:
            return 0
        if lag_s > self._max_lag_s:
            if math.isfinite(lag_s):
                self.lost_s += lag_s
            self._next_s = steady_s + self._interval_s
            return 1
        ticks = min(self._burst, 1 + int(lag_s / self._interval_s))
        self._next_s += ticks * self._interval_s
        return ticks

    def postpone(self, ticks: int) -> None:
        """Give back ticks that were granted but not run."""
        self._next_s -= ticks * self._interval_s


class LockStep:
    """Waits at every control step for that step's command, so that slowness changes no result.

    Simulated time stands still at the step's due time until the command arrives. When none comes
    for `timeout_s` of steady time the simulation runs on freely; the next command takes it into
    lock-step again.

    Args:
        period_ns: control period, ns of simulated time.
        timeout_s: patience at one step, steady s.
    """

    def __init__(self, period_ns: int, timeout_s: float) -> None:
        self._period_ns = period_ns
        self._timeout_s = timeout_s
        self._due_ns: int | None = None
        self._since_s: float | None = None
        self.is_engaged = False

    def engage(self, due_ns: int) -> None:
        """From now on wait for commands, for the first at `due_ns`, ns of simulated time."""
        self.is_engaged = True
        self._due_ns = due_ns
        self._since_s = None

    def disengage(self) -> None:
        """Run freely."""
        self.is_engaged = False
        self.suspend()

    def suspend(self) -> None:
        """Run freely until the next command."""
        self._due_ns = None
        self._since_s = None

    def commanded(self, stamp_ns: int) -> None:
        """A command for the step due at `stamp_ns`, ns of simulated time, was accepted."""
        if self.is_engaged:
            self._due_ns = stamp_ns + self._period_ns
            self._since_s = None

    @property
    def expects_commands(self) -> bool:
        """Whether time will stand still for want of a command."""
        return self._due_ns is not None

    def must_wait(self, now_ns: int, steady_s: float) -> bool:
        """Whether simulated time must stand still at `now_ns`."""
        if self._due_ns is None or now_ns < self._due_ns:
            return False
        if self._since_s is None:
            self._since_s = steady_s
        return True

    def has_timed_out(self, steady_s: float) -> bool:
        """Whether the present wait has lasted longer than the timeout."""
        return self.waited_s(steady_s) > self._timeout_s

    def waited_s(self, steady_s: float) -> float:
        """How long the present wait has lasted, steady s; 0 while there is none."""
        return 0.0 if self._since_s is None else steady_s - self._since_s
