# SPDX-License-Identifier: Apache-2.0
"""Steering and teleop, called by hand: what a loss makes of commands, and what is told of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import Joy
from twinloop.nodes.base import OK, WARN
from twinloop.nodes.joint_messages import joint_state, time_message, trajectory
from twinloop.nodes.steering import SteeringNode
from twinloop.nodes.teleop import TeleopNode
from twinloop.robots.hand24 import HAND24
from twinloop.teleop.arbiter import Who

from twinloop_interfaces.msg import PilotStatus

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from graph import hear, running

NAMES = list(HAND24.joint_names)
CUP = HAND24.poses["cup"]
START_NS = 1_000 * 10**9
STEP_NS = 100_000_000


class Sent:
    """What a node publishes, in place of its publisher."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        self.messages.append(message)


def test_a_lost_pilot_makes_a_hold_and_then_commands_of_where_the_hand_stands() -> None:
    with running(SteeringNode) as node:
        sent = node._command = Sent()

        def joints(stamp_ns: int) -> None:
            hear(node, "joint_states", joint_state(NAMES, stamp_ns, CUP, np.zeros(24)))

        joints(START_NS)
        hear(node, "applied_command", trajectory(NAMES, START_NS, "guard", CUP))
        hear(node, "pilot_command", trajectory(NAMES, START_NS, "teleop", CUP + 0.05))
        joints(START_NS + STEP_NS)
        assert node._arbiter.who is Who.PILOT
        given = sent.messages[-1]
        hear(node, "applied_command", given)
        lost = PilotStatus(state=PilotStatus.LOST, reason="gone")
        lost.stamp = time_message(START_NS + STEP_NS)
        hear(node, "pilot_status", lost)
        assert node._arbiter.who is Who.NOBODY
        assert len(sent.messages[-1].points) == 0
        assert sent.messages[-1].header.frame_id == given.header.frame_id
        count = len(sent.messages)
        # Until the guard has told where it stands, the goal is one that was taken back.
        joints(START_NS + 2 * STEP_NS)
        assert len(sent.messages) == count
        hear(node, "applied_command", trajectory(NAMES, START_NS + STEP_NS, "guard", CUP + 0.01))
        joints(START_NS + 2 * STEP_NS)
        np.testing.assert_array_equal(sent.messages[-1].points[0].positions, CUP + 0.01)
        assert node.health().level == WARN


def test_a_joystick_that_falls_silent_while_released_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now_s=50.0)
    steady = SimpleNamespace(monotonic=lambda: clock.now_s)
    monkeypatch.setattr("twinloop.nodes.teleop.time", steady)
    with running(TeleopNode) as node:

        def speak(pause_s: float, count: int = 3) -> None:
            for _ in range(count):
                clock.now_s += pause_s
                hear(node, "joy", Joy(axes=[0.0] * 8, buttons=[0] * 12))

        assert node.health().level == OK  # nobody misses a joystick that never was there
        speak(0.02)
        assert node.health().level == OK
        clock.now_s += 3.0
        health = node.health()
        assert health.level == WARN
        assert health.message.startswith("no joystick messages for 3 s")
        assert node._pilot.hold.name == "RELEASED"
        # A driver that looks for its device speaks now and then.
        speak(2.0)
        assert node.health().level == WARN
        speak(0.02)
        assert node.health().level == OK
