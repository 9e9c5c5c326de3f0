# SPDX-License-Identifier: Apache-2.0
"""Which node drives a robot: the real one, a simulator of its device's protocol, or our twin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from twinloop.drivers.hardware import HardwareRefused, driver_module, load_hardware, robot_named

Hardware = Literal["real", "sim", "twin"]
# Robots whose twin is a node, and the node: the cell's hand, and its arm.
TWINS = {"shadow_hand": "twin_node", "panda": "twin_node"}
_HERE = Path(__file__).resolve()
_NODES = _HERE.parents[1] / "nodes"
_PEERS = _HERE.parents[4] / "tests" / "peers"
_ROBOT = re.compile(r"^ROBOT = ([A-Z0-9_]+)$", re.MULTILINE)


def node_for(robot: str, hardware: Hardware, hardware_file: str = "") -> str:
    """Return the executable of the node that drives a robot.

    Raises:
        HardwareRefused: naming what is wrong, and what was expected: an unknown robot, a hardware
            file that is missing or wrong, or a robot without a simulator or a twin.
    """
    robot_named(robot)
    if hardware == "twin":
        if robot not in TWINS:
            raise HardwareRefused(f"{robot} has no twin that is a node, {_others(list(TWINS))}")
        return TWINS[robot]
    if hardware == "sim":
        return driver_node(simulators_driver(robot))
    if not hardware_file:
        raise HardwareRefused(
            f"hardware:=real needs the lab's hardware file, with an entry {robot!r}: give it as "
            "hardware_file:=PATH, a copy of config/hardware/example.yaml"
        )
    path = Path(hardware_file).expanduser()
    devices = load_hardware(path)
    if robot not in devices:
        raise HardwareRefused(
            f"{path}: has no entry {robot!r}, expected one; it has {', '.join(devices)}"
        )
    driver = devices[robot].driver
    if not hasattr(driver_module(driver), "DRIVER"):
        raise HardwareRefused(f"{path}: {robot}.driver is {driver!r}, which has no joints")
    return driver_node(driver)


def driver_node(driver: str) -> str:
    """Return the executable of a driver's node: its own where it has one."""
    return f"{driver}_node" if (_NODES / f"{driver}.py").exists() else "joint_driver_node"


def simulators() -> dict[str, Path]:
    """Return what simulates the protocol of a robot's device, by robot.

    They stand with the tests, in the sources alone: an installation has none.
    """
    found = {}
    for path in sorted(_PEERS.glob("*.py")):
        named = _ROBOT.search(path.read_text("utf-8"))
        if named is not None and path.stem != "template":
            found[named.group(1).lower()] = path
    return found


def simulators_driver(robot: str) -> str:
    """Return the name of the driver that a robot's simulator is for.

    Raises:
        HardwareRefused: there is no simulator.
    """
    known = simulators()
    if not known:
        raise HardwareRefused(
            f"hardware:=sim: simulators stand in tests/peers of the sources, and {_PEERS} is not "
            "there; expected hardware:=real or hardware:=twin"
        )
    if robot not in known:
        raise HardwareRefused(f"{robot} has no simulator of its protocol, {_others(list(known))}")
    return known[robot].stem


def _others(robots: list[str]) -> str:
    return f"expected one of {', '.join(sorted(robots))}"
