# SPDX-License-Identifier: Apache-2.0
"""Bad messages from pilots' devices, planners and guards: teleop and steering stay at work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph import hear, running
from hypothesis import given
from hypothesis import strategies as st
from messages import FLOATS, TEXTS, broken
from sensor_msgs.msg import Joy
from tally import TALLY, examples
from twin_station import CUP, NAMES, command
from twinloop.nodes.joint_messages import joint_state
from twinloop.nodes.steering import SteeringNode
from twinloop.nodes.teleop import TeleopNode
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop.teleop.arbiter import Who
from twinloop.teleop.settings import load_settings

from twinloop_interfaces.msg import ControlStatus, GuardStatus, PilotInput, PilotStatus

STAMP_NS = 1_700_000_000 * 10**9
DEAD_MAN = load_settings().joystick.dead_man
BUTTONS = [int(number == DEAD_MAN) for number in range(12)]


def joints() -> Any:
    return joint_state(NAMES, STAMP_NS, CUP, np.zeros(24))


TO_TELEOP = {
    "joy": lambda: Joy(axes=[0.5] * 8, buttons=BUTTONS),
    "pilot_input": lambda: PilotInput(
        source="page", dead_man=True, names=["hand/close", "arm/x"], values=[1.0, -0.5]
    ),
    "applied_command": lambda: command(CUP, STAMP_NS, "guard"),
    "guard_status": GuardStatus,
    "control_status": ControlStatus,
}
TO_STEERING = {
    "autonomy/command": lambda: command(CUP, STAMP_NS, "planner"),
    "pilot_command": lambda: command(CUP, STAMP_NS, "teleop"),
    "applied_command": lambda: command(CUP, STAMP_NS, "guard"),
    "pilot_status": lambda: PilotStatus(state=PilotStatus.HELD, source="page"),
    "joint_states": joints,
}


class Sent:
    """What a node publishes in place of its publisher."""

    def __init__(self) -> None:
        self.goals: list[np.ndarray] = []

    def publish(self, message: Any) -> None:
        if message.points:  # without one, it asks for a hold
            self.goals.append(np.array(message.points[0].positions))


@pytest.fixture
def teleop() -> Iterator[TeleopNode]:
    with running(TeleopNode) as node:
        node._command = Sent()
        yield node


@pytest.fixture
def steering() -> Iterator[SteeringNode]:
    with running(SteeringNode) as node:
        node._command = Sent()
        yield node


def are_within(goals: list[np.ndarray]) -> bool:
    return all(
        np.isfinite(goal).all() and (goal >= HAND24.lower).all() and (goal <= HAND24.upper).all()
        for goal in goals
    )


@examples(300)
@given(data=st.data())
def test_teleop_lives_through_bad_messages(teleop: TeleopNode, data: st.DataObject) -> None:
    # As after a release, with a goal to start from: bad messages meet a node at work.
    hear(teleop, "applied_command", TO_TELEOP["applied_command"]())
    hear(teleop, "guard_status", GuardStatus())
    hear(teleop, "joy", Joy(axes=[0.0] * 8, buttons=[0] * 12))
    topic = data.draw(st.sampled_from(sorted(TO_TELEOP)))
    message = data.draw(broken(TO_TELEOP[topic]))
    before = teleop.health().values["malformed"]
    teleop._command.goals.clear()

    def reason() -> str:
        hear(teleop, topic, message)
        hear(teleop, "joy", TO_TELEOP["joy"]())
        teleop._tick()
        health = teleop.health()
        return health.message if health.values["malformed"] != before else ""

    TALLY.ask(f"message on {topic} to teleop", reason)
    assert teleop.is_active
    assert are_within(teleop._command.goals)


@examples(300)
@given(data=st.data())
def test_steering_lives_through_bad_messages(steering: SteeringNode, data: st.DataObject) -> None:
    topic = data.draw(st.sampled_from(sorted(TO_STEERING)))
    message = data.draw(broken(TO_STEERING[topic]))
    before = steering.health().values["malformed"]
    steering._command.goals.clear()

    def reason() -> str:
        for name, make in TO_STEERING.items():
            hear(steering, name, message if name == topic else make())
        steering._watch()
        health = steering.health()
        return health.message if health.values["malformed"] != before else ""

    TALLY.ask(f"message on {topic} to steering", reason)
    assert steering._arbiter.who in Who
    # Of autonomy it passes on what is finite: limits are the guard's.
    assert all(np.isfinite(goal).all() for goal in steering._command.goals)


@examples(150)
@given(line=st.integers(0, 200), value=FLOATS.map(repr) | TEXTS)
def test_files_of_keys_and_speeds_that_are_wrong_say_so(
    tmp_path_factory: pytest.TempPathFactory, line: int, value: str
) -> None:
    lines = share("config", "teleop", "cell.yaml").read_text().splitlines()
    place = line % len(lines)
    name = lines[place].partition(":")[0]
    lines[place] = f"{name}: {value}"
    path = _FOLDER.setdefault("path", tmp_path_factory.mktemp("teleop")) / "cell.yaml"
    path.write_text("\n".join(lines))
    TALLY.read("teleop settings", lambda: load_settings(path), (ValueError, OSError), (str(path),))


_FOLDER: dict[str, Path] = {}
