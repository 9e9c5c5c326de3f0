# SPDX-License-Identifier: Apache-2.0
"""Judges the stamps of commands on a clock that may step."""

from __future__ import annotations

from enum import Enum

# A jump of the ROS clock that the steady clock does not explain by this much is a step.
_STEP_S = 0.5


class Freshness(Enum):
    """What a stamp says about its command."""

    FRESH = "fresh"
    STALE = "stale"
    FUTURE = "future"


class StampJudge:
    """Tells fresh stamps from stale and future ones, and lives through clock steps.

    The ROS clock may be set by an operator, NTP or a simulator. After a step, stamps of the clock
    as it was count as fresh for `grace_s` of steady time: commands under way, and sources that
    have not noticed yet, are not refused for a fault that is not theirs.

    Args:
        max_age_s: oldest acceptable stamp, s of ROS time.
        max_ahead_s: how far in the future a stamp may lie, s of ROS time.
        tick_s: what the ROS clock usually advances between two readings, at most, s.
        grace_s: steady time after a step during which the old clock is understood, s.
    """

    def __init__(
        self, max_age_s: float, max_ahead_s: float, tick_s: float, grace_s: float = 1.0
    ) -> None:
        self._max_age_ns = round(max_age_s * 1e9)
        self._max_ahead_ns = round(max_ahead_s * 1e9)
        self._tick_s = tick_s
        self._grace_s = grace_s
        self._seen: tuple[int, float] | None = None
        self._shift_ns = 0
        self._grace_ends_s = -float("inf")
        self.steps = 0

    def observe(self, now_ns: int, steady_s: float) -> int:
        """Read both clocks; returns by how many ns the ROS clock stepped since the last reading.

        ROS time may run slower than the steady clock (slow or paused simulation), never back;
        faster simulation must be observed at least every half second of ROS time.
        """
        seen, self._seen = self._seen, (now_ns, steady_s)
        if seen is None:
            return 0
        ros_s = (now_ns - seen[0]) * 1e-9
        steady_passed_s = max(0.0, steady_s - seen[1])
        if 0.0 <= ros_s <= steady_passed_s + _STEP_S:
            return 0
        passed_s = min(steady_passed_s, self._tick_s)
        step_ns = now_ns - seen[0] - round(passed_s * 1e9)
        self._shift_ns = step_ns
        self._grace_ends_s = steady_s + self._grace_s
        self.steps += 1
        return step_ns

    def restart(self) -> None:
        """Forget the clock's past: what comes next is no step, whatever it reads."""
        self._seen = None
        self._grace_ends_s = -float("inf")

    def judge(self, stamp_ns: int, now_ns: int, steady_s: float) -> tuple[Freshness, int]:
        """Freshness of a stamp, and its age in ns on the clock it was taken from."""
        age_ns = now_ns - stamp_ns
        if -self._max_ahead_ns <= age_ns <= self._max_age_ns:
            return Freshness.FRESH, age_ns
        if steady_s <= self._grace_ends_s:
            old_age_ns = age_ns - self._shift_ns
            if -self._max_ahead_ns <= old_age_ns <= self._max_age_ns:
                return Freshness.FRESH, old_age_ns
        return (Freshness.STALE if age_ns > 0 else Freshness.FUTURE), age_ns
