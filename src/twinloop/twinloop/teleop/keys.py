# SPDX-License-Identifier: Apache-2.0
"""Keys that are held, known by their repetition alone: dead-man of a terminal or a page."""

from __future__ import annotations

from twinloop.teleop.pilot import Wish
from twinloop.teleop.settings import ORDERS, KeyboardSettings


class HeldKeys:
    """Turns presses and repetitions into motions, and their end into a release.

    A terminal tells of presses alone, and repeats a key that is held after a pause. So a press
    moves for `pulse_s`, a key that repeats goes on, and the dead-man counts as held for `linger_s`
    after the last press. Motion therefore ends within `pulse_s` of the last sign of the key, be it
    that the finger was lifted or that the line is dead.

    Args:
        settings: times.
    """

    def __init__(self, settings: KeyboardSettings) -> None:
        self._settings = settings
        self._motions: dict[str, tuple[float, float]] = {}  # value, and when it was told last
        self._last_s = float("-inf")
        self._orders: dict[str, float] = {}

    def press(self, name: str, value: float, now_s: float) -> None:
        """A key was pressed, or repeats itself, at a steady time; orders need no dead-man."""
        if name in ORDERS:
            self._orders[name] = now_s
            return
        self._motions[name] = value, now_s
        self._last_s = now_s

    def release(self) -> None:
        """Let go of everything now."""
        self._motions, self._last_s = {}, float("-inf")

    @property
    def is_idle(self) -> bool:
        """Whether nothing was pressed, or all has been told as released."""
        return not self._motions and not self._orders and self._last_s == float("-inf")

    def wish(self, now_s: float) -> Wish:
        """Return what is held at a steady time."""
        pulse_s = self._settings.pulse_s
        self._motions = {
            name: held for name, held in self._motions.items() if now_s - held[1] <= pulse_s
        }
        self._orders = {
            name: at_s for name, at_s in self._orders.items() if now_s - at_s <= pulse_s
        }
        held = now_s - self._last_s <= self._settings.linger_s
        if not held:
            self._last_s = float("-inf")
        motions = {name: value for name, (value, _) in self._motions.items()}
        return Wish(held, motions | dict.fromkeys(self._orders, 1.0))
