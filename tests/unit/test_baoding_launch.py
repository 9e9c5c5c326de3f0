# SPDX-License-Identifier: Apache-2.0
"""What the cell's launch file makes of its arguments."""

from __future__ import annotations

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
    text = launched()
    assert "'reset_action': 'reset_scene'" in text
    assert "reset_node" not in text
    assert "'arm': True" not in text
