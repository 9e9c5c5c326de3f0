# SPDX-License-Identifier: Apache-2.0
"""Hardware files: the example is whole, and what is wrong is named with file and entry."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twinloop.drivers.hardware import (
    HardwareRefused,
    driver_module,
    driver_names,
    load_hardware,
    make_driver,
)

ROOT = Path(__file__).resolve().parents[2]
# What drivers need from their nodes.
PARTS = {"shadow_hand": {"link": SimpleNamespace(name="a link")}}
PORT = {"driver": "dynamixel", "port": "/dev/ttyUSB0"}


def test_the_example_is_valid_and_its_robots_have_drivers() -> None:
    devices = load_hardware(ROOT / "config" / "hardware" / "example.yaml")
    assert {"leap", "dclaw"} <= devices.keys()
    for name, settings in devices.items():
        if hasattr(driver_module(settings.driver), "DRIVER"):
            parts = PARTS.get(settings.driver, {})
            assert make_driver(name, settings, **parts).robot.name == name


def test_every_driver_is_found_by_its_name() -> None:
    assert "dynamixel" in driver_names()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("leap: [", "is not YAML"),
        ("", "holds None, expected a device or more by name"),
        ("[1, 2]", "expected a device or more by name"),
        ({"leap": 5}, "leap is 5, expected a mapping with a `driver`"),
        ({"leap": {"port": "x"}}, "expected a mapping with a `driver`"),
        ({"leap": {"driver": "dynamo"}}, "leap: driver is 'dynamo', expected one of"),
        ({"leap": {"driver": "../base"}}, "leap: driver is '../base', expected one of"),
        ({"leap": {"driver": "dynamixel"}}, "leap.port is missing"),
        ({"leap": {**PORT, "baud": 9600}}, "leap.baud is 9600, and there is no such setting"),
        ({"leap": {**PORT, "baud_rate": 5}}, "leap: baud_rate is 5, expected one of 9600, "),
        ({"leap": {**PORT, "rate_hz": "fast"}}, "leap.rate_hz is 'fast': input should be a valid"),
        ({"leap": {**PORT, "ids": [0, 300]}}, "leap.ids.1 is 300: input should be less than"),
        ({"leap": {**PORT, "gains": {"p": -1}}}, "leap.gains.p is -1: input should be greater"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, complaint: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(HardwareRefused) as refused:
        load_hardware(path)
    assert str(path) in str(refused.value)
    assert complaint in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HardwareRefused, match=r"nowhere\.yaml: cannot be read"):
        load_hardware(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("robot", "complaint"),
    [
        ("hand25", "robot is 'hand25', expected one of dclaw, "),
        ("hand24", "hand24: ids: 0 entries, expected 24, one for each joint of hand24"),
    ],
)
def test_a_robot_that_does_not_fit_is_refused(tmp_path: Path, robot: str, complaint: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(json.dumps({robot: PORT}))
    with pytest.raises(HardwareRefused, match=complaint):
        make_driver(robot, load_hardware(path)[robot])
