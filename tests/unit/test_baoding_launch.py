# SPDX-License-Identifier: Apache-2.0
"""What the cell's launch file makes of its arguments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from twinloop.cli.launch import find_launch_file
from twinloop.launching.reading import load_launch_file


def launched(**arguments: str) -> str:
    """Return all that would be run, as text."""
    return str(load_launch_file(find_launch_file("baoding"), arguments))


@pytest.mark.parametrize(
    ("arguments", "is_patient"),
    [
        ({}, False),
        ({"busy": "true"}, False),
        ({"busy": "true", "lockstep": "true"}, True),
        ({"busy": "true", "lockstep": "true", "twin": "none"}, False),
    ],
)
def test_only_a_twin_whose_time_waits_is_watched_patiently(
    arguments: dict[str, str], is_patient: bool
) -> None:
    text = launched(**arguments)
    assert ("'heartbeat_timeout_s': 30.0" in text) == is_patient
    assert ("'heartbeat_timeout_s': 0.7" in text) != is_patient
    assert ("'silence_s': 60.0" in text) == is_patient


def test_the_twin_is_told_which_robot_to_play_and_the_episodes_what_is_wanted() -> None:
    text = launched(variation="gap", variation_seed="2", goal="hold")
    assert "'variation': 'gap'" in text
    assert "'variation_seed': 2" in text
    assert "'goal': 'hold'" in text


def test_the_arm_brings_balls_back_where_that_is_wanted() -> None:
    text = launched(reset="arm")
    assert "'reset_action': 'bring_back'" in text
    assert "reset_node" in text
    assert "'arm': True" in text
    assert "episode: twin, reset, planner" in text
    # What viewers draw is all that is there.
    assert text.count("'description': 'cell'") == 2
    text = launched()
    assert text.count("'description': 'hand'") == 2
    assert "'reset_action': 'reset_scene'" in text
    assert "reset_node" not in text
    assert "'arm': True" not in text


def test_a_pilot_stands_between_autonomy_and_the_robot_where_that_is_wanted() -> None:
    text = launched(
        teleop="true", joystick="/dev/input/js0", reset="arm", shared="true", alpha="0.3"
    )
    for node in ("planner", "reset", "web"):
        assert commands_on(node, text) == "autonomy/command"
    assert commands_on("steering", text) is None
    assert "'device': '/dev/input/js0'" in text
    assert "'device': 'cpu'" in text
    assert "planner: twin, tracker, recorder, steering, " in text
    assert "'sharing': True" in text
    assert "'alpha': 0.3" in text
    text = launched()
    assert commands_on("planner", text) == "command"
    for word in ("steering", "teleop_node", "joystick_node"):
        assert word not in text


def process_of(node: str, text: str) -> str:
    """What is said of the process of a node."""
    [process] = [part for part in text.split("ProcessSpec(") if f"{node}_node-" in part[:40]]
    return process


def commands_on(node: str, text: str) -> str | None:
    """The topic that a node's `command` is called, where it has another name."""
    found = re.search(r"command:=([\w/]+)", process_of(node, text))
    return found and found[1]


def test_the_planner_is_told_whether_it_shares_and_how_much() -> None:
    assert "'shared': False" in launched()
    text = launched(shared="true", alpha="0.3")
    assert "'shared': True" in text
    assert "'alpha': 0.3" in text
    assert "'alpha': 1.0" in launched(shared="true", alpha="1")


def test_a_policy_acts_with_its_noise_where_it_is_learned_and_is_learned_for_the_goal() -> None:
    text = launched(planner="policy", goal="cw", first_transitions="200")
    assert "'sampled': True" in text
    assert "'episodes_per_candidate': 5" in text
    assert "'first_transitions': 200" in text
    assert "'goal': 'cw'" in process_of("learner", text)
    for arguments in ({"planner": "policy", "learn": "false"}, {"planner": "mppi"}):
        assert "'sampled': False" in launched(**arguments)
    assert "'sampled': False" in launched(planner="policy", sampled="false")
    assert "'episodes_per_candidate': 2" in launched()


DOCS = Path(__file__).parents[2] / "docs"
COMMAND = re.compile(r"twinloop launch (baoding|teleop)((?: +[a-z_]+:=[^\s`]+)+)")


def told_commands() -> list[tuple[str, str, str]]:
    found = [
        (name, *command)
        for name in (
            "teleop.md",
            "shared_autonomy.md",
            "watching.md",
            "goals.md",
            "resets.md",
            "policy.md",
            "policy_learning.md",
        )
        for command in COMMAND.findall((DOCS / name).read_text())
    ]
    assert len(found) > 5
    return found


@pytest.mark.parametrize(("document", "name", "arguments"), told_commands())
def test_the_launches_that_documents_tell_of_can_be_launched(
    document: str, name: str, arguments: str
) -> None:
    given = dict(one.split(":=", 1) for one in arguments.split())
    assert "_node" in str(load_launch_file(find_launch_file(name), given)), document
