# SPDX-License-Identifier: Apache-2.0
"""The joystick driver on a FIFO that holds what Linux's joystick device would."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twinloop.drivers.faults import DeviceLost, DeviceMissing
from twinloop.drivers.joystick import EventDevice, JoyState, Joystick, JoystickSettings

DEAD_MAN = 4


class Fifo:
    """The other end of a joystick device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._end: int | None = None

    def plug(self) -> None:
        self._end = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def unplug(self) -> None:
        if self._end is not None:
            os.close(self._end)
            self._end = None

    def axis(self, number: int, value: int) -> None:
        self.write(struct.pack("IhBB", 0, value, 2, number))

    def button(self, number: int, value: int, kind: int = 1) -> None:
        self.write(struct.pack("IhBB", 0, value, kind, number))

    def write(self, data: bytes) -> None:
        assert self._end is not None
        os.write(self._end, data)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(tmp_path / "js0")
    fifo.plug()
    yield fifo
    fifo.unplug()


def joystick(fifo: Fifo, **settings: Any) -> Joystick:
    made = Joystick(JoystickSettings(device=str(fifo.path), dead_zone=0.0, **settings))
    made.open()
    return made


def test_nothing_is_told_without_the_dead_man_button(fifo: Fifo) -> None:
    stick = joystick(fifo)
    fifo.axis(1, -32767)
    fifo.axis(0, 16384)
    fifo.button(0, 1)
    assert stick.read() == JoyState((0.0, 0.0), (0,))
    fifo.button(DEAD_MAN, 1)
    state = stick.read()
    assert state.axes == pytest.approx((-0.5, 1.0), abs=1e-3)
    assert state.buttons == (1, 0, 0, 0, 1)
    fifo.button(DEAD_MAN, 0)
    assert stick.read() == JoyState((0.0, 0.0), (0,) * 5)


def test_the_initial_state_counts_and_the_dead_man_button_may_be_another(fifo: Fifo) -> None:
    stick = joystick(fifo, dead_man_button=1)
    fifo.button(1, 1, kind=0x81)
    fifo.write(struct.pack("IhBB", 0, 32767, 0x82, 0))
    assert stick.read() == JoyState((-1.0,), (0, 1))
    free = joystick(fifo, dead_man_button=-1)
    fifo.axis(0, 32767)
    assert free.read() == JoyState((-1.0,), ())


def test_records_in_pieces_and_damaged_ones_do_no_harm(fifo: Fifo) -> None:
    stick = joystick(fifo, dead_man_button=-1)
    whole = struct.pack("IhBB", 0, -32767, 2, 0)
    fifo.write(whole[:3])
    assert stick.read() == JoyState((), ())
    fifo.write(whole[3:] + struct.pack("IhBB", 0, 1, 1, 255) + struct.pack("IhBB", 0, 1, 77, 0))
    assert stick.read() == JoyState((1.0,), ())


def test_a_dead_zone_is_left_out_without_a_step(fifo: Fifo) -> None:
    stick = Joystick(JoystickSettings(device=str(fifo.path), dead_zone=0.1, dead_man_button=-1))
    stick.open()
    seen = []
    for value in (3000, 3300, 32767, -32767):
        fifo.axis(0, value)
        seen.append(stick.read().axes[0])
    assert seen == pytest.approx([0.0, 0.0, -1.0, 1.0], abs=2e-3)


def test_an_unplugged_joystick_is_released_and_can_be_opened_again(fifo: Fifo) -> None:
    stick = joystick(fifo)
    fifo.button(DEAD_MAN, 1)
    fifo.axis(0, 32767)
    assert stick.read().axes == (-1.0,)
    fifo.unplug()
    with pytest.raises(DeviceLost, match="js0 is gone"):
        stick.read()
    assert stick.state == JoyState((0.0,), (0,) * 5)
    assert not stick.is_allowed
    fifo.plug()
    stick.open()
    fifo.axis(0, 32767)
    assert stick.read().axes == (0.0,)


def test_a_joystick_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceMissing, match="/dev/input/js99 cannot be opened: No such file"):
        Joystick(JoystickSettings(device="/dev/input/js99")).open()


def test_an_event_device_is_scaled_by_its_ranges() -> None:
    codes = SimpleNamespace(EV_ABS=3, EV_KEY=1)
    events = [(3, 16, 255), (3, 0, 0), (1, 304, 1), (3, 99, 1), (0, 0, 0)]

    class Device:
        def __init__(self, path: str) -> None:
            assert path == "/dev/input/event3"

        def capabilities(self) -> dict[int, Any]:
            sticks = [(code, SimpleNamespace(min=0, max=255)) for code in (0, 16)]
            return {3: sticks, 1: [304, 305]}

        def read(self) -> list[SimpleNamespace]:
            if not events:
                raise BlockingIOError
            taken = [SimpleNamespace(type=t, code=c, value=v) for t, c, v in events]
            events.clear()
            return taken

    device = EventDevice("/dev/input/event3", SimpleNamespace(ecodes=codes, InputDevice=Device))
    assert device.take() == [("axis", 1, -1.0), ("axis", 0, 1.0), ("button", 0, 1)]
    assert device.take() == []
