# SPDX-License-Identifier: Apache-2.0
"""A joystick through Linux's joystick device, or its event device where `evdev` is installed."""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from twinloop.drivers.base import DriverSettings
from twinloop.drivers.faults import DeviceLost, DeviceMissing

_RECORD = struct.Struct("IhBB")  # time [ms], value, type, number: linux/joystick.h
_BUTTON, _AXIS, _INITIAL = 0x01, 0x02, 0x80
_FULL = 32767
_MOST = 64  # axes or buttons; a record that names more is damaged


class JoystickSettings(DriverSettings):
    """A joystick, and the button without which nothing moves."""

    driver: Literal["joystick"] = "joystick"
    device: str = Field(min_length=1)
    dead_man_button: int = Field(4, ge=-1, lt=_MOST, description="-1: none")
    dead_zone: float = Field(0.05, ge=0.0, lt=1.0)


@dataclass(frozen=True)
class JoyState:
    """Where the sticks stand.

    Attributes:
        axes: -1 to 1, left and up positive as ROS has it.
        buttons: 1 where pressed.
    """

    axes: tuple[float, ...]
    buttons: tuple[int, ...]


class Events(Protocol):
    """An open device."""

    def take(self) -> Iterable[tuple[Literal["axis", "button"], int, float]]:
        """Return what happened since the last call: number and value; raises DeviceLost."""

    def close(self) -> None:
        """Let go of it."""


class Joystick:
    """Reads a joystick without ever waiting for it.

    While the dead-man button is not pressed, all axes and all other buttons are told as released;
    so they are when the device is lost.

    Args:
        settings: device and dead-man button.
    """

    def __init__(self, settings: JoystickSettings) -> None:
        self.settings = settings
        self.name = f"joystick {settings.device}"
        self._events: Events | None = None
        self._axes: list[float] = []
        self._buttons: list[int] = []

    @property
    def is_open(self) -> bool:
        return self._events is not None

    def open(self) -> None:
        """Open the device.

        Raises:
            DeviceMissing: it is not there, cannot be read, or needs `evdev`.
        """
        self.close()
        device = self.settings.device
        try:
            if Path(device).name.startswith("event"):
                self._events = EventDevice(device)
            else:
                self._events = JoystickDevice(device)
        except OSError as error:
            raise DeviceMissing(f"{self.name} cannot be opened: {error.strerror}") from error

    def read(self) -> JoyState:
        """Take what happened, and return how it stands now.

        Raises:
            DeviceLost: the device is gone; everything counts as released from now on.
        """
        if self._events is None:
            raise DeviceLost(f"{self.name} is not open")
        try:
            for kind, number, value in self._events.take():
                if kind == "axis":
                    _put(self._axes, number, self._rested(value), 0.0)
                else:
                    _put(self._buttons, number, int(value != 0), 0)
        except (DeviceLost, OSError) as error:
            self.close()
            raise DeviceLost(f"{self.name} is gone: {error}") from error
        return self.state

    @property
    def is_allowed(self) -> bool:
        """Whether the dead-man button is pressed, or none is needed."""
        number = self.settings.dead_man_button
        return self.is_open and (number < 0 or self._is_pressed(number))

    @property
    def state(self) -> JoyState:
        """What may be told of it."""
        if self.is_allowed:
            return JoyState(tuple(self._axes), tuple(self._buttons))
        return JoyState((0.0,) * len(self._axes), (0,) * len(self._buttons))

    def close(self) -> None:
        """Let go of the device; everything counts as released."""
        if self._events is not None:
            self._events.close()
            self._events = None
        self._axes = [0.0] * len(self._axes)
        self._buttons = [0] * len(self._buttons)

    def _is_pressed(self, number: int) -> bool:
        return number < len(self._buttons) and self._buttons[number] == 1

    def _rested(self, value: float) -> float:
        zone = self.settings.dead_zone
        size = max(0.0, min(1.0, abs(value)) - zone) / (1.0 - zone)
        return size if value > 0.0 else -size


class JoystickDevice:
    """Linux's joystick device, `/dev/input/js0`: records of eight bytes.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, device: str) -> None:
        self._descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
        self._rest = b""

    def take(self) -> list[tuple[Literal["axis", "button"], int, float]]:
        data = self._rest
        while True:
            try:
                chunk = os.read(self._descriptor, 64 * _RECORD.size)
            except BlockingIOError:
                break
            if not chunk:
                raise DeviceLost("it has ended")
            data += chunk
        whole = len(data) // _RECORD.size * _RECORD.size
        self._rest = data[whole:]
        found: list[tuple[Literal["axis", "button"], int, float]] = []
        for _, value, kind, number in _RECORD.iter_unpack(data[:whole]):
            if number >= _MOST:
                continue
            if kind & ~_INITIAL == _AXIS:
                # To the right and down count up there.
                found.append(("axis", number, -value / _FULL))
            elif kind & ~_INITIAL == _BUTTON:
                found.append(("button", number, value))
        return found

    def close(self) -> None:
        os.close(self._descriptor)


class EventDevice:
    """Linux's event device, `/dev/input/event0`, through `evdev`; numbered as the joystick's.

    Args:
        device: its path.
        library: in the place of `evdev`.

    Raises:
        DeviceMissing: `evdev` is not installed.
        OSError: it cannot be opened.
    """

    def __init__(self, device: str, library: Any = None) -> None:
        if library is None:
            try:
                library = importlib.import_module("evdev")
            except ImportError as error:
                raise DeviceMissing(
                    f"{device} needs the package evdev: pip install evdev, or name the joystick "
                    "device /dev/input/js…"
                ) from error
        self._codes = library.ecodes
        self._device = library.InputDevice(device)
        able = self._device.capabilities()
        self._axes = {code: i for i, (code, _) in enumerate(able.get(self._codes.EV_ABS, []))}
        self._ranges = {code: (a.min, a.max) for code, a in able.get(self._codes.EV_ABS, [])}
        self._buttons = {code: i for i, code in enumerate(able.get(self._codes.EV_KEY, []))}

    def take(self) -> list[tuple[Literal["axis", "button"], int, float]]:
        found: list[tuple[Literal["axis", "button"], int, float]] = []
        try:
            events = list(self._device.read())
        except BlockingIOError:
            return found
        for event in events:
            if event.type == self._codes.EV_ABS and event.code in self._axes:
                low, high = self._ranges[event.code]
                value = 1.0 - 2.0 * (event.value - low) / max(1, high - low)
                found.append(("axis", self._axes[event.code], value))
            elif event.type == self._codes.EV_KEY and event.code in self._buttons:
                found.append(("button", self._buttons[event.code], event.value))
        return found

    def close(self) -> None:
        self._device.close()


def _put(values: list[Any], number: int, value: Any, rest: Any) -> None:
    values.extend([rest] * (number + 1 - len(values)))
    values[number] = value


SETTINGS = JoystickSettings
