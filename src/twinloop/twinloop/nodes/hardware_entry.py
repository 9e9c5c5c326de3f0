# SPDX-License-Identifier: Apache-2.0
"""The entry of a lab's hardware file that a node drives."""

from __future__ import annotations

from pathlib import Path

from twinloop.drivers.base import DriverSettings
from twinloop.drivers.hardware import load_hardware
from twinloop.nodes.base import Node
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec

HARDWARE = ParameterSpec(
    "hardware", "", "The lab's hardware file, see config/hardware/example.yaml"
)


def hardware_entry(node: Node, parameter: str) -> tuple[str, DriverSettings]:
    """Return the name and settings of the entry that a parameter names; empty: the only one.

    Raises:
        HardwareRefused: the file cannot be read, or something in it is wrong.
        ParameterRefused: it has no such entry, or several and none is named.
    """
    devices = load_hardware(Path(node.param("hardware")).expanduser())
    name = node.param(parameter) or (next(iter(devices)) if len(devices) == 1 else "")
    if name not in devices:
        raise ParameterRefused(
            f"parameter {parameter} is {name!r}, expected one of {', '.join(devices)}"
        )
    return name, devices[name]
