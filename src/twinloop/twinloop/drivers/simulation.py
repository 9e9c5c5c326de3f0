# SPDX-License-Identifier: Apache-2.0
"""Runs a driver's node on what simulates its device's protocol, in the place of a device."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinloop.drivers.choice import driver_node, simulators, simulators_driver
from twinloop.drivers.hardware import HardwareRefused
from twinloop.launching.substitution_calls import package_prefix

_LOOK_S = 0.1


def run_on_simulator(robot: str, name: str, namespace: str, switches: Mapping[str, bool]) -> int:
    """Run the simulator, and the node until it ends; returns the node's exit code.

    Args:
        robot: whose simulator.
        name: of the node.
        namespace: of its topics.
        switches: further parameters of the node.

    Raises:
        HardwareRefused: there is no simulator, or it cannot be had here.
    """
    driver = simulators_driver(robot)
    module = _load(simulators()[robot])
    if why := getattr(module, "SKIP", ""):
        raise HardwareRefused(f"{robot} cannot be simulated here: {why}")
    node = Path(package_prefix("twinloop")) / "lib" / "twinloop" / driver_node(driver)
    begin = getattr(module, "simulator", module.PEER)
    # Ctrl-C reaches all processes of a terminal: a simulator outlives the node that holds by it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        simulator = begin()
    except AssertionError as error:
        raise HardwareRefused(f"{robot} cannot be simulated here: {error}") from error
    with simulator as peer, tempfile.TemporaryDirectory() as folder:
        hardware = Path(folder) / "simulated.yaml"
        hardware.write_text(json.dumps({robot: peer.settings()}), "utf-8")
        parameters = {"hardware": str(hardware), "robot": robot}
        parameters |= {key: str(value).lower() for key, value in switches.items()}
        words = [f"__node:={name}", f"__ns:=/{namespace.strip('/')}"]
        command = [str(node), "--ros-args"]
        command += [part for word in words for part in ("-r", word)]
        command += [part for key, value in parameters.items() for part in ("-p", f"{key}:={value}")]
        return _run(command)


def _run(command: list[str]) -> int:
    """Run a process to its end, which the signals that come here ask for."""
    ends: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: ends.append(received))
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None:
        while ends:
            process.send_signal(ends.pop())
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_S)
    return process.returncode


def _load(path: Path) -> Any:
    sys.path.insert(0, os.fspath(path.parent))
    spec = importlib.util.spec_from_file_location(f"simulator_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
