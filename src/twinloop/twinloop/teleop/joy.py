# SPDX-License-Identifier: Apache-2.0
"""A joystick's axes and buttons to motions and orders, mode by mode."""

from __future__ import annotations

import math
from collections.abc import Sequence

from twinloop.teleop.pilot import Wish
from twinloop.teleop.settings import JoystickSettings


class MalformedJoy(ValueError):
    """A joystick's message has values that are none."""


class JoyMap:
    """Reads `joy`, in the mode that is chosen.

    Args:
        settings: what does what.
    """

    def __init__(self, settings: JoystickSettings) -> None:
        self._settings = settings
        self._modes = list(settings.modes)
        self._index = 0

    @property
    def mode(self) -> str:
        return self._modes[self._index]

    def next_mode(self) -> None:
        self._index = (self._index + 1) % len(self._modes)

    def read(self, axes: Sequence[float], buttons: Sequence[int]) -> Wish:
        """Return what is wanted; axes and buttons that the device has not are at rest.

        Raises:
            MalformedJoy: an axis that is not a number.
        """
        if not all(map(math.isfinite, axes)):
            raise MalformedJoy(f"joy: axes are {list(axes)[:8]}, expected finite numbers")
        mode = self._settings.modes[self.mode]
        motions: dict[str, float] = {}
        for number, names in mode.axes.items():
            _add(motions, names, axes[number] if number < len(axes) else 0.0)
        for number, names in mode.buttons.items():
            _add(motions, names, float(_is_pressed(buttons, number)))
        for number, order in self._settings.buttons.items():
            _add(motions, {order: 1.0}, float(_is_pressed(buttons, number)))
        return Wish(_is_pressed(buttons, self._settings.dead_man), motions)


def _is_pressed(buttons: Sequence[int], number: int) -> bool:
    return number < len(buttons) and buttons[number] == 1


def _add(motions: dict[str, float], names: dict[str, float], value: float) -> None:
    for name, share in names.items():
        motions[name] = motions.get(name, 0.0) + share * value
