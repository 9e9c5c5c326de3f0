# SPDX-License-Identifier: Apache-2.0
"""Who commands the hand: autonomy, a pilot who holds the dead-man, or nobody once he is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from twinloop.safety.limits import limit_goal
from twinloop.safety.watchdog import Watchdog

Array = NDArray[np.float64]

_OVERTAKEN_NS = 1_000_000_000  # what was said longer before was not overtaken: the clock was set
_RECENT_PERIODS = 3  # an autonomy that commanded this lately is waited for


class Who(IntEnum):
    """Who commands; numbers are those of the ControlStatus message."""

    AUTONOMY = 0
    PILOT = 1
    SHARED = 2
    NOBODY = 3


@dataclass(frozen=True)
class SteeringSettings:
    """Of an `Arbiter`.

    Attributes:
        lower, upper: limits of the joints [J], rad.
        period_s: of the control steps, s.
        pilot_speed: of the pilot's targets at most, rad/s.
        pilot_timeout_s: silence of a pilot who holds the dead-man that counts as loss, steady s.
            With the time to notice, to tell the guard and to brake it makes the 100 ms in which a
            robot stands whose pilot is gone.
        wait_s: how long after a step is due its autonomous command is waited for: where time
            waits for commands, a planner that is left behind would lose steps; steady s.
        lease_s: silence after which another autonomous source may command, steady s.

    Raises:
        ValueError: a time or speed that is not a positive number.
    """

    lower: Array
    upper: Array
    period_s: float = 0.1
    pilot_speed: float = 0.8
    pilot_timeout_s: float = 0.05
    wait_s: float = 0.0
    lease_s: float = 0.5

    def __post_init__(self) -> None:
        for name in ("period_s", "pilot_speed", "pilot_timeout_s", "lease_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"steering: {name} is {value}, expected a positive number")


@dataclass(frozen=True)
class Order:
    """A command to send: targets [J], rad, of the step at a stamp, ns; None: come to rest now."""

    stamp_ns: int
    goal: Array | None


class Arbiter:
    """Lets autonomy through until a pilot takes over, and holds when he is lost.

    A pilot's targets go out once a control step, at the stamps of the planner's steps while it
    plans, so an episode that a pilot steers is one like any other. They start from the goal in
    force and move by no more than his speed. Whoever follows him starts from his last goal: the
    planner observes it.

    Stamps are ROS time, ns; watchdogs keep to the steady clock, s.

    Args:
        settings: see there.

    Attributes:
        who: commands now.
        since_ns: from which stamp on.
        reason: why.
        refused: messages that were not taken.
    """

    def __init__(self, settings: SteeringSettings) -> None:
        self.settings = settings
        self.who = Who.AUTONOMY
        self.since_ns = 0
        self.reason = "nobody holds the dead-man"
        self.refused = 0
        self.sharing = False
        self._period_ns = round(settings.period_s * 1e9)
        self._goal: Array | None = None  # the newest that was applied
        self._is_settled = True  # the goal is not one that a hold has taken back
        self._target: Array | None = None  # what the pilot wants
        self._sent_ns = 0
        self._wished_ns = 0
        self._released_ns = 0
        self._wants_release = False  # a pilot who was lost has to let go before he takes over
        self._stamp_ns = 0
        self._due_since_s: float | None = None
        self._autonomy_ns = 0
        self._source = ""
        self._lease = Watchdog(settings.lease_s)
        self._pilot = Watchdog(settings.pilot_timeout_s)

    @property
    def holds_dead_man(self) -> bool:
        """Whether a pilot is heard who holds it."""
        return self._pilot.is_watching

    def applied(self, goal: Array, is_guards: bool = False) -> None:
        """Take the goal [J], rad, that the guard let through, or set by itself."""
        self._goal = goal
        self._is_settled |= is_guards

    def autonomy(self, stamp_ns: int, goal: Array, source: str, steady_s: float) -> Order | None:
        """Take an autonomous command; return what is to be sent for its step."""
        if not np.isfinite(goal).all():
            self.refused += 1
            return None
        if source != self._source and not self._lease.is_expired(steady_s) and self._source:
            self.refused += 1
            return None
        self._source, self._autonomy_ns = source, stamp_ns
        self._lease.feed(steady_s)
        if stamp_ns <= self._sent_ns and self._sent_ns - stamp_ns < 10 * self._period_ns:
            return None  # the step has its command already
        if self.who in (Who.AUTONOMY, Who.SHARED):
            return self._send(stamp_ns, goal)
        return self._own(stamp_ns)

    def pilot(self, target: Array, said_ns: int, stamp_ns: int, steady_s: float) -> None:
        """Take what a pilot who holds the dead-man wants; it is his from here on.

        Args:
            target: [J], rad.
            said_ns: when he wanted it, ROS time: what is overtaken by his release counts no more.
            stamp_ns: now.
            steady_s: now.
        """
        if not np.isfinite(target).all():
            self.refused += 1
            return
        if self._wants_release or 0 <= self._released_ns - said_ns < _OVERTAKEN_NS:
            return
        self._target, self._wished_ns = target, said_ns
        self._pilot.feed(steady_s)
        wanted = Who.SHARED if self.sharing else Who.PILOT
        if self.who is not wanted:
            self._become(wanted, stamp_ns, "the dead-man is held")

    def released(self, said_ns: int, stamp_ns: int) -> None:
        """The pilot let go at `said_ns`: autonomy goes on, from where he left it."""
        if 0 < self._wished_ns - said_ns < _OVERTAKEN_NS:
            return
        self._released_ns, self._wants_release = said_ns, False
        self._pilot.release()
        if self.who in (Who.PILOT, Who.SHARED):
            self._become(Who.AUTONOMY, stamp_ns, "the dead-man was released")

    def lost(self, reason: str, stamp_ns: int) -> Order | None:
        """The pilot's messages ceased while he held the dead-man: stop, and stay."""
        self._pilot.release()
        has_just_begun = self.who is Who.AUTONOMY and not self._sent_ns
        if self.who not in (Who.PILOT, Who.SHARED) and not has_just_begun:
            return None
        self._become(Who.NOBODY, stamp_ns, reason)
        self._wants_release = True
        # The guard brakes, and tells where: until then the goal is one that was taken back.
        self._is_settled = False
        return Order(stamp_ns, None)

    def knows_of_loss(self) -> None:
        """The pilot's own side has noticed too: it takes no dead-man that was not let go."""
        self._wants_release = False

    def resume(self, stamp_ns: int) -> tuple[bool, str]:
        """Let autonomy go on after the pilot was lost; returns whether it may, and why."""
        if self.who is not Who.NOBODY:
            return False, f"{self.who.name.lower()} commands"
        self._become(Who.AUTONOMY, stamp_ns, "resumed on request")
        return True, "autonomy goes on"

    def sample(self, stamp_ns: int, steady_s: float) -> Order | None:
        """Take the time of a joint sample; return the pilot's command of a step that is due."""
        self._stamp_ns = stamp_ns
        return self.watch(stamp_ns, steady_s)

    def watch(self, now_ns: int, steady_s: float) -> Order | None:
        """Look at the watchdog and at steps that wait; to be called every 10 ms or so."""
        if self._pilot.is_expired(steady_s):
            silent_ms = 1e3 * self._pilot.age_s(steady_s)
            return self.lost(f"the pilot was silent for {silent_ms:.0f} ms", now_ns)
        if self.who not in (Who.PILOT, Who.NOBODY):
            self._due_since_s = None
            return None
        due_ns = self._sent_ns + self._period_ns
        gap_ns = self._stamp_ns - due_ns
        if gap_ns < 0 and gap_ns > -10 * self._period_ns:
            self._due_since_s = None
            return None
        if self._due_since_s is None:
            self._due_since_s = steady_s
        plans = abs(self._stamp_ns - self._autonomy_ns) < _RECENT_PERIODS * self._period_ns
        if plans and steady_s - self._due_since_s < self.settings.wait_s:
            return None
        # After a gap the steps begin anew; within one they keep their pace.
        return self._own(due_ns if 0 <= gap_ns < self._period_ns else self._stamp_ns)

    def excuse(self, seconds: float) -> None:
        """Do not count silence in which this process was itself stalled."""
        self._pilot.excuse(seconds)

    def _own(self, stamp_ns: int) -> Order | None:
        """The order of a step that autonomy has not got."""
        if self._goal is None or not self._is_settled:
            return None
        if self.who is Who.NOBODY:
            return self._send(stamp_ns, self._goal)
        if self._target is None:
            return None
        change = self.settings.pilot_speed * self.settings.period_s
        goal, _, _ = limit_goal(
            self._target, self._goal, self.settings.lower, self.settings.upper, change
        )
        return self._send(stamp_ns, goal)

    def _send(self, stamp_ns: int, goal: Array) -> Order:
        self._sent_ns, self._due_since_s = stamp_ns, None
        return Order(stamp_ns, goal)

    def _become(self, who: Who, stamp_ns: int, reason: str) -> None:
        # From the first step on that has no command yet.
        is_recent = 0 <= stamp_ns - self._sent_ns < 2 * self._period_ns
        self.since_ns = self._sent_ns + 1 if is_recent else stamp_ns
        self.who, self.reason = who, reason
        self._is_settled = True
        if who in (Who.AUTONOMY, Who.NOBODY):
            self._target = None
