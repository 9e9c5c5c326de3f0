# SPDX-License-Identifier: Apache-2.0
"""A lab's hardware file: which devices there are, and where. `config/hardware/example.yaml`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from twinloop.drivers.base import DriverSettings, JointDriver
from twinloop.robots.base import Robot
from twinloop.yaml_files import YamlRefused, read_yaml


class HardwareRefused(ValueError):
    """A hardware file cannot be read, or something in it is wrong."""


def driver_names() -> list[str]:
    """Return the names of the drivers whose devices a hardware file may name."""
    folder = Path(__file__).parent
    return sorted(
        path.stem for path in folder.glob("*.py") if "\nSETTINGS = " in path.read_text("utf-8")
    )


def driver_module(name: str) -> ModuleType:
    """Import a driver by its name.

    Raises:
        HardwareRefused: there is none of that name, or what it needs is not installed.
    """
    if name not in driver_names():
        raise HardwareRefused(f"driver is {name!r}, expected one of {', '.join(driver_names())}")
    try:
        return importlib.import_module(f"twinloop.drivers.{name}")
    except ImportError as error:
        raise HardwareRefused(f"driver {name!r} cannot be loaded: {error}") from error


def load_hardware(path: Path) -> dict[str, DriverSettings]:
    """Read a hardware file: settings of each device, by its name.

    Raises:
        HardwareRefused: naming the file, the entry, what was found and what was expected.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise HardwareRefused(f"{path}: cannot be read: {error.strerror}") from error
    except YamlRefused as error:
        raise HardwareRefused(str(error)) from error
    if not isinstance(content, dict) or not content:
        raise HardwareRefused(f"{path}: holds {content!r:.60}, expected a device or more by name")
    return {str(name): _settings(path, str(name), entry) for name, entry in content.items()}


def make_driver(robot: str, settings: DriverSettings, **parts: Any) -> JointDriver:
    """Make the driver of a robot's joints.

    Args:
        robot: name of the robot.
        settings: of its driver.
        parts: what the driver needs from its node.

    Raises:
        HardwareRefused: the robot is not known, the driver is not one of joints, or the settings do
            not fit the robot.
    """
    module = driver_module(settings.driver)
    if not hasattr(module, "DRIVER"):
        raise HardwareRefused(f"{robot}: driver {settings.driver!r} has no joints")
    try:
        driver: JointDriver = module.DRIVER(robot_named(robot), settings, **parts)
    except ValueError as error:
        raise HardwareRefused(f"{robot}: {error}") from error
    return driver


def robot_named(name: str) -> Robot:
    """Return a robot of `robots/` by its name.

    Raises:
        HardwareRefused: there is none.
    """
    known = sorted(
        path.stem
        for path in (Path(__file__).parents[1] / "robots").glob("*.py")
        if f"\n{path.stem.upper()} = Robot(" in path.read_text("utf-8")
    )
    if name not in known:
        raise HardwareRefused(f"robot is {name!r}, expected one of {', '.join(known)}")
    robot: Robot = getattr(importlib.import_module(f"twinloop.robots.{name}"), name.upper())
    return robot


def _settings(path: Path, name: str, entry: Any) -> DriverSettings:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("driver"), str):
        raise HardwareRefused(
            f"{path}: {name} is {entry!r:.60}, expected a mapping with a `driver`, one of "
            f"{', '.join(driver_names())}"
        )
    try:
        kind: type[DriverSettings] = driver_module(entry["driver"]).SETTINGS
        return kind.model_validate(dict(entry))
    except ValidationError as error:
        raise HardwareRefused("; ".join(_complaints(path, name, error))) from error
    except HardwareRefused as error:
        raise HardwareRefused(f"{path}: {name}: {error}") from error


def _complaints(path: Path, name: str, error: ValidationError) -> list[str]:
    found = []
    for each in error.errors():
        where = ".".join([name, *(str(part) for part in each["loc"])])
        text = each["msg"].removeprefix("Value error, ")
        text = {
            "missing": "is missing",
            "extra_forbidden": f"is {each['input']!r:.60}, and there is no such setting",
            "value_error": f": {text}",
        }.get(each["type"], f"is {each['input']!r:.60}: {text[0].lower()}{text[1:]}")
        found.append(f"{path}: {where} {text}".replace(" : ", ": "))
    return found
