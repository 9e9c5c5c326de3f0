# SPDX-License-Identifier: Apache-2.0
"""The joystick node over DDS, on a FIFO in a joystick's place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bag_processes import Observer, Processes, interrupt, wait_until
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Joy
from twin_station import free_domain
from twinloop.nodes import qos

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from test_joystick import DEAD_MAN, Fifo

NAME = "/joystick"


def test_sticks_are_told_only_while_the_dead_man_button_is_held(tmp_path: Path) -> None:
    domain = free_domain()
    fifo = Fifo(tmp_path / "js0")
    fifo.plug()
    seen: list[Joy] = []
    with Observer(domain) as observer, Processes(domain) as processes:

        def says(level: bytes, text: str) -> bool:
            status = observer.statuses.get(NAME)
            return status is not None and status.level == level and text in status.message

        observer.node.create_subscription(Joy, "joy", seen.append, qos.SENSOR)
        process = processes.node("twinloop.nodes.joystick", device=fifo.path, reconnect_s=0.2)
        fifo.axis(0, -32767)
        wait_until(lambda: seen and len(seen[-1].axes) == 1)
        assert seen[-1].axes[0] == 0.0
        fifo.button(DEAD_MAN, 1)
        wait_until(lambda: seen[-1].axes[0] == pytest.approx(1.0))
        assert seen[-1].buttons[DEAD_MAN] == 1

        fifo.unplug()
        wait_until(lambda: seen[-1].axes[0] == 0.0)
        wait_until(lambda: says(DiagnosticStatus.ERROR, "js0 is gone"))
        fifo.plug()
        fifo.button(DEAD_MAN, 1)
        fifo.axis(0, -32767)
        wait_until(lambda: seen[-1].axes[0] == pytest.approx(1.0))
        wait_until(lambda: says(DiagnosticStatus.OK, "open"))
        assert interrupt(process) == 0
    fifo.unplug()
