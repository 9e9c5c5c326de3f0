# SPDX-License-Identifier: Apache-2.0
"""Whether a pilot holds the dead-man, of several devices one at a time, and what he wants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from twinloop.safety.watchdog import Watchdog
from twinloop.teleop.settings import ORDERS


class Hold(IntEnum):
    """State of the dead-man; numbers are those of the PilotStatus message."""

    RELEASED = 0
    HELD = 1
    LOST = 2


@dataclass(frozen=True)
class Wish:
    """What a device says at one time.

    Attributes:
        dead_man: whether it is held.
        motions: -1 to 1 of the greatest speed, by name; orders likewise, 0 where not given.
    """

    dead_man: bool
    motions: Mapping[str, float] = field(default_factory=dict)


class Pilot:
    """Follows one device at a time, and knows when it has gone silent.

    A device takes over by a press of its dead-man after a release: one that is found pressed, as
    after a start, a loss or a stop, moves nothing. While one is held the others are not listened
    to. A device that goes silent while it is held is lost; whoever presses next is the pilot.

    Args:
        timeout_s: silence that counts as loss, steady s.
        known: names that mean something; others are counted and do nothing.

    Attributes:
        hold: state of the dead-man.
        source: the device that has it, or had it last.
        reason: why.
        malformed: messages, or names in them, that meant nothing.
    """

    def __init__(self, timeout_s: float, known: set[str]) -> None:
        self.hold = Hold.RELEASED
        self.source = ""
        self.reason = ""
        self.malformed = 0
        self._known = known
        self._watchdog = Watchdog(timeout_s)
        self._armed: set[str] = set()
        self._wish = Wish(False)
        self._orders: list[str] = []
        self._before: dict[str, set[str]] = {}

    @property
    def motions(self) -> Mapping[str, float]:
        """What is wanted now; nothing unless the dead-man is held."""
        return self._wish.motions if self.hold is Hold.HELD else {}

    def hear(self, source: str, wish: Wish, steady_s: float) -> None:
        """Take what a device says."""
        values = {}
        for name, value in wish.motions.items():
            if name not in self._known or not math.isfinite(value):
                self.malformed += 1
                continue
            values[name] = min(1.0, max(-1.0, value))
        self._note_orders(source, values)
        if not wish.dead_man:
            self._armed.add(source)
            if self.hold is Hold.HELD and source == self.source:
                self.hold, self.reason = Hold.RELEASED, f"{source} let go"
                self._watchdog.release()
            return
        if self.hold is not Hold.HELD:
            if source not in self._armed:
                return
            self.hold, self.source, self.reason = Hold.HELD, source, f"{source} holds"
        if source == self.source:
            self._wish = Wish(True, values)
            self._watchdog.feed(steady_s)

    def watch(self, steady_s: float) -> Hold:
        """Look at the watchdog; returns the state."""
        if self._watchdog.is_expired(steady_s):
            silent_ms = 1e3 * self._watchdog.age_s(steady_s)
            self.lose(f"{self.source} was silent for {silent_ms:.0f} ms")
        return self.hold

    def lose(self, reason: str) -> None:
        """Stop, and want a new press: of a device that went silent, or for a stop of the robot."""
        self._armed.clear()
        self._watchdog.release()
        if self.hold is Hold.HELD:
            self.hold, self.reason = Hold.LOST, reason

    def excuse(self, seconds: float) -> None:
        """Do not count silence in which this process was itself stalled."""
        self._watchdog.excuse(seconds)

    def take_orders(self) -> list[str]:
        """Return what was newly ordered since the last call, by any device."""
        orders, self._orders = self._orders, []
        return orders

    def _note_orders(self, source: str, values: Mapping[str, float]) -> None:
        given = {name for name, value in values.items() if value and name in ORDERS}
        self._orders += sorted(given - self._before.get(source, set()))
        self._before[source] = given
