# SPDX-License-Identifier: Apache-2.0
"""`twinloop teleop` without ROS: keys, what they are called, what they do, what is shown."""

from __future__ import annotations

import math
import os
import pty
import termios
from types import SimpleNamespace

import pytest
from twinloop.cli.teleop import pressed, status_line, table_of
from twinloop.teleop.keys import HeldKeys
from twinloop.teleop.settings import load_settings
from twinloop.teleop.terminal import NoTerminal, raw, read_keys, split_keys

SETTINGS = load_settings()


def test_keys_come_one_by_one_arrows_by_name() -> None:
    assert split_keys("ww\x1b[A \x1bOD[") == ["w", "w", "up", "space", "left", "["]


def test_keys_move_give_orders_and_end_it() -> None:
    held = HeldKeys(SETTINGS.keyboard)
    assert not pressed(SETTINGS, held, ["w", "l", "?", "space"], 0.0)
    wish = held.wish(0.01)
    assert wish.dead_man
    assert wish.motions == {"hand/close": 1.0, "arm/y": -1.0, "stop": 1.0}
    assert pressed(SETTINGS, held, ["q"], 0.02)


def test_every_key_stands_in_the_table() -> None:
    cells = " ".join(cell for column in table_of(SETTINGS).columns for cell in column._cells)
    assert set(SETTINGS.keyboard.keys) <= set(cells.split())


def test_a_terminal_is_read_key_by_key_and_put_back() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    try:
        with raw(slave):
            os.write(master, b"w\x1b[C")
            assert read_keys(slave, 5.0) == ["w", "right"]
            assert read_keys(slave, 0.0) == []
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_what_is_no_terminal_is_refused() -> None:
    with (
        open(os.devnull) as file,
        pytest.raises(NoTerminal, match="is no terminal"),
        raw(file.fileno()),
    ):
        pass


def test_the_line_says_who_commands() -> None:
    pilot = SimpleNamespace(joint="rh_FFJ3")
    control = SimpleNamespace(who=1, sharing=False, alpha=math.nan)
    assert status_line(None, None).startswith("no teleop node is heard")
    assert status_line(control, pilot) == "you command | joints rh_FFJ3"
    control = SimpleNamespace(who=2, sharing=True, alpha=0.3)
    assert status_line(control, pilot) == "shared | joints rh_FFJ3 | sharing | alpha 0.30"
