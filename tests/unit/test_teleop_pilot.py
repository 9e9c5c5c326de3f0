# SPDX-License-Identifier: Apache-2.0
"""The dead-man over several devices, and what joysticks and keys come to."""

from __future__ import annotations

import math

import pytest
from twinloop.teleop.joy import JoyMap, MalformedJoy
from twinloop.teleop.keys import HeldKeys
from twinloop.teleop.pilot import Hold, Pilot, Wish
from twinloop.teleop.settings import load_settings

SETTINGS = load_settings()
DEAD_MAN = SETTINGS.joystick.dead_man
CLOSE = {"hand/close": 0.5}


def made() -> Pilot:
    return Pilot(0.08, SETTINGS.names())


def buttons(*pressed: int) -> list[int]:
    return [int(number in pressed) for number in range(12)]


def axes(**values: float) -> list[float]:
    return [values.get(f"a{number}", 0.0) for number in range(8)]


def test_only_a_press_after_a_release_takes_over() -> None:
    pilot = made()
    pilot.hear("joystick", Wish(True, CLOSE), 0.0)
    assert pilot.hold is Hold.RELEASED
    assert not pilot.motions
    pilot.hear("joystick", Wish(False), 0.02)
    pilot.hear("joystick", Wish(True, CLOSE), 0.04)
    assert pilot.hold is Hold.HELD
    assert pilot.motions == CLOSE
    pilot.hear("joystick", Wish(False, CLOSE), 0.06)
    assert pilot.hold is Hold.RELEASED
    assert not pilot.motions


def test_silence_while_held_is_a_loss_and_wants_a_new_press() -> None:
    pilot = made()
    pilot.hear("joystick", Wish(False), 0.0)
    pilot.hear("joystick", Wish(True, CLOSE), 0.02)
    assert pilot.watch(0.1) is Hold.HELD
    assert pilot.watch(0.11) is Hold.LOST
    assert "joystick was silent for 90 ms" in pilot.reason
    assert not pilot.motions
    pilot.hear("joystick", Wish(True, CLOSE), 0.12)
    assert pilot.hold is Hold.LOST
    pilot.hear("joystick", Wish(False), 0.14)
    assert pilot.hold is Hold.LOST
    pilot.hear("joystick", Wish(True, CLOSE), 0.16)
    assert pilot.hold is Hold.HELD
    pilot.hear("joystick", Wish(False), 0.18)
    assert pilot.watch(9.0) is Hold.RELEASED


def test_the_time_in_which_nobody_listened_is_not_the_devices_silence() -> None:
    pilot = made()
    pilot.hear("joystick", Wish(False), 0.0)
    pilot.hear("joystick", Wish(True), 0.0)
    pilot.excuse(0.5)
    assert pilot.watch(0.55) is Hold.HELD


def test_one_device_at_a_time_has_the_dead_man() -> None:
    pilot = made()
    for source in ("joystick", "keyboard"):
        pilot.hear(source, Wish(False), 0.0)
    pilot.hear("keyboard", Wish(True, CLOSE), 0.0)
    pilot.hear("joystick", Wish(True, {"hand/spread": 1.0}), 0.01)
    assert pilot.source == "keyboard"
    assert pilot.motions == CLOSE
    pilot.hear("joystick", Wish(False), 0.02)
    assert pilot.hold is Hold.HELD
    pilot.hear("keyboard", Wish(False), 0.03)
    pilot.hear("joystick", Wish(True), 0.04)
    assert pilot.source == "joystick"


def test_names_and_values_that_mean_nothing_are_counted_and_do_nothing() -> None:
    pilot = made()
    pilot.hear("page", Wish(False), 0.0)
    pilot.hear("page", Wish(True, {"hand/fly": 1.0, "arm/x": math.nan, "arm/y": 7.0}), 0.0)
    assert pilot.motions == {"arm/y": 1.0}
    assert pilot.malformed == 2


def test_orders_are_given_once_a_press_and_need_no_dead_man() -> None:
    pilot = made()
    for value in (1.0, 1.0, 0.0, 1.0):
        pilot.hear("page", Wish(False, {"alpha/up": value, "hand/close": 1.0}), 0.0)
    assert pilot.take_orders() == ["alpha/up", "alpha/up"]
    assert pilot.take_orders() == []


def test_a_joystick_moves_what_its_mode_says() -> None:
    joy = JoyMap(SETTINGS.joystick)
    wish = joy.read(axes(a1=0.5), buttons(DEAD_MAN))
    assert wish.dead_man
    assert wish.motions["hand/close"] == -0.5
    assert not joy.read(axes(a1=0.5), buttons()).dead_man
    joy.next_mode()
    joy.next_mode()
    assert joy.mode == "arm"
    moved = {n: v for n, v in joy.read(axes(a1=0.5), buttons(DEAD_MAN)).motions.items() if v}
    assert moved == {"arm/x": 0.5}
    assert joy.read([], []).motions["arm/x"] == 0.0
    joy.next_mode()
    assert joy.mode == "hand"


def test_axes_that_are_no_numbers_are_refused() -> None:
    joy = JoyMap(SETTINGS.joystick)
    with pytest.raises(MalformedJoy, match="expected finite numbers"):
        joy.read([math.nan], buttons(DEAD_MAN))


def test_a_key_that_is_held_moves_on_and_one_that_is_lifted_stops_within_100_ms() -> None:
    keys = HeldKeys(SETTINGS.keyboard)
    assert keys.is_idle
    keys.press("hand/close", 1.0, 0.0)
    assert keys.wish(0.05) == Wish(True, {"hand/close": 1.0})
    # The pause before a terminal repeats a key: nothing moves, and nobody else takes over.
    assert keys.wish(0.2) == Wish(True, {})
    for step in range(10):
        keys.press("hand/close", 1.0, 0.5 + 0.033 * step)
        assert keys.wish(0.52 + 0.033 * step).motions
    assert keys.wish(0.5 + 0.033 * 9 + 0.1) == Wish(True, {})
    assert keys.wish(0.5 + 0.033 * 9 + 0.8) == Wish(False, {})
    assert keys.is_idle


def test_orders_of_a_keyboard_do_not_hold_the_dead_man() -> None:
    keys = HeldKeys(SETTINGS.keyboard)
    keys.press("stop", 1.0, 0.0)
    assert keys.wish(0.01) == Wish(False, {"stop": 1.0})
    keys.press("arm/x", -1.0, 0.1)
    keys.release()
    assert not keys.wish(0.11).dead_man
