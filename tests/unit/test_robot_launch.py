# SPDX-License-Identifier: Apache-2.0
"""Which driver a launch file starts, and what it says where it cannot."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from twinloop.cli.launch import find_launch_file
from twinloop.drivers.choice import TWINS, node_for, simulators
from twinloop.drivers.hardware import HardwareRefused, driver_names, robot_named
from twinloop.launching import LaunchError, ProcessSpec, load_launch_file, read_arguments
from twinloop.launching.description import ParameterSet
from twinloop.nodes.base import Node

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "hardware" / "example.yaml"
ROBOTS = next(
    argument.choices
    for argument in read_arguments(find_launch_file("robot"))
    if argument.name == "robot"
)


def launched(name: str = "robot", **arguments: str) -> tuple[ProcessSpec, ...]:
    return load_launch_file(find_launch_file(name), arguments).processes


def test_each_robot_has_an_example_and_a_node() -> None:
    for robot in ROBOTS:
        assert robot_named(robot).name == robot
        assert node_for(robot, "real", str(EXAMPLE)).endswith("_node")


@pytest.mark.parametrize("robot", ["leap", "go1"])
def test_a_real_robot_is_driven_as_its_hardware_file_says(robot: str) -> None:
    (process,) = launched(robot=robot, hardware="real", hardware_file=str(EXAMPLE))
    assert str(process.command[0]).endswith(node_for(robot, "real", str(EXAMPLE)))
    text = str(process)
    assert f"'hardware': '{EXAMPLE}'" in text
    assert f"'robot': '{robot}'" in text
    assert "'require_emergency_stop': True" in text
    assert f"__ns:=/{robot}" in text


def test_each_driver_takes_the_parameters_that_it_is_launched_with() -> None:
    (process,) = launched(robot="leap", hardware="real", hardware_file=str(EXAMPLE))
    (given,) = [word for word in process.command if isinstance(word, ParameterSet)]
    for robot in ROBOTS:
        name = node_for(robot, "real", str(EXAMPLE)).removesuffix("_node")
        module = importlib.import_module(f"twinloop.nodes.{name}")
        (node,) = [
            each
            for each in vars(module).values()
            if isinstance(each, type) and each.__module__ == module.__name__
            if issubclass(each, Node)
        ]
        assert set(given.values) <= {"autostart", *(spec.name for spec in node.parameters)}


def test_a_driver_with_a_node_of_its_own_is_run_by_it() -> None:
    assert node_for("leap", "real", str(EXAMPLE)) == "dynamixel_node"
    assert node_for("shadow_hand", "real", str(EXAMPLE)) == "shadow_hand_node"
    assert node_for("go1", "real", str(EXAMPLE)) == "joint_driver_node"


def test_simulators_and_twins_are_of_robots_that_can_be_launched() -> None:
    assert {path.stem for path in simulators().values()} <= set(driver_names())
    assert {"leap", "shadow_hand", "go1"} <= set(simulators()) <= set(ROBOTS)
    assert set(TWINS) <= set(ROBOTS)


def test_a_simulated_device_and_a_twin_are_started_in_the_same_place() -> None:
    (simulated,) = launched(robot="leap", hardware="sim", namespace="cell")
    words = [str(word) for word in simulated.command]
    assert words[1:4] == ["hardware", "simulate", "leap"]
    assert {"--name=driver", "--namespace=cell", "--autostart", "--emergency-stop"} <= set(words)
    (twin,) = launched(robot="shadow_hand", namespace="cell")
    assert str(twin.command[0]).endswith("/lib/twinloop_sim/twin_node")
    assert "__ns:=/cell" in str(twin.command)
    assert "'arm': False" in str(twin)
    assert "'arm': True" in str(launched(robot="panda"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"robot": "leap", "hardware": "real"}, "hardware:=real needs the lab's hardware file"),
        (
            {"robot": "leap", "hardware": "real", "hardware_file": "/nowhere/lab.yaml"},
            "/nowhere/lab.yaml: cannot be read",
        ),
        ({"robot": "leap"}, "leap has no twin that is a node, expected one of panda, shadow_hand"),
        ({"robot": "cat"}, "'robot' is 'cat'; expected one of shadow_hand, leap"),
        ({"robot": "leap", "hardware": "fake"}, "'hardware' is 'fake'; expected one of real, sim"),
        ({}, "the argument 'robot'"),
    ],
)
def test_what_cannot_be_driven_starts_nothing(arguments: dict[str, str], complaint: str) -> None:
    with pytest.raises(LaunchError, match=complaint):
        launched(**arguments)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"dclaw": {"driver": "dynamixel", "port": "x"}}, "has no entry 'leap'.* it has dclaw"),
        ({"leap": {"driver": "dynamixel"}}, "leap.port is missing"),
        ({"leap": {"driver": "joystick", "device": "x"}}, "'joystick', which has no joints"),
        ({"leap": {"driver": "dynamixel", "port": "x", "baud_rate": 9}}, "baud_rate is 9"),
    ],
)
def test_what_is_wrong_in_a_hardware_file_is_named(
    tmp_path: Path, content: dict, complaint: str
) -> None:
    path = tmp_path / "my lab.yaml"
    path.write_text(json.dumps(content))
    with pytest.raises(HardwareRefused, match=complaint):
        node_for("leap", "real", str(path))


def test_a_wrong_hardware_file_with_a_blank_in_its_name_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "my lab.yaml"
    path.write_text('{"leap": {"driver": "dynamixel"}}')
    with pytest.raises(LaunchError, match="my lab.yaml: leap.port is missing"):
        launched(robot="leap", hardware="real", hardware_file=str(path))


def test_a_robot_without_a_simulator_is_named() -> None:
    with pytest.raises(HardwareRefused, match="dclaw has no simulator of its protocol"):
        node_for("dclaw", "sim")


def test_without_the_sources_there_are_no_simulators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinloop.drivers.choice._PEERS", tmp_path / "peers")
    with pytest.raises(HardwareRefused, match="simulators stand in tests/peers of the sources"):
        node_for("leap", "sim")


@pytest.mark.parametrize("hardware", ["real", "sim"])
def test_the_cell_has_a_driver_in_the_place_of_its_twin(hardware: str) -> None:
    processes = launched(
        "baoding", hardware=hardware, hardware_file=str(EXAMPLE), eyes="none", namespace="cell"
    )
    text = str(processes)
    assert "twin_node" not in text
    assert "'nodes': ['hand', 'recorder', 'planner', 'learner', 'episode']" in text
    assert "'use_sim_time': True" not in text
    command = [str(word) for word in processes[0].command]
    if hardware == "real":
        assert command[0].endswith("shadow_hand_node")
        assert "__node:=hand" in text
        assert "__ns:=/cell/cell" not in text
        assert "'autostart': False" in str(processes[0])
    else:
        assert {"--name=hand", "--namespace=cell", "--no-autostart"} <= set(command)


def test_a_cell_with_a_twin_asks_for_no_hardware() -> None:
    text = str(launched("baoding"))
    assert "twin_node" in text
    assert "hardware" not in text


def test_no_launch_file_compares_with_an_empty_text() -> None:
    """ROS 2's launch takes '' for another text than an empty argument."""
    for path in find_launch_file("robot").parent.glob("*.launch.xml"):
        assert " '')" not in path.read_text(), path
