# SPDX-License-Identifier: Apache-2.0
"""`twinloop hardware`: check a lab's hardware file, and what launch files ask about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from twinloop.cli.errors import CommandError
from twinloop.drivers.choice import Hardware, driver_node, node_for
from twinloop.drivers.hardware import HardwareRefused, driver_module, load_hardware

app = typer.Typer(help="Check a lab's hardware file; run a driver on a simulator of its device.")

Robot = Annotated[str, typer.Argument(help="Such as leap.", show_default=False)]


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(help="The lab's hardware file.", show_default=False)],
) -> None:
    """Say what is wrong in a hardware file, or what it has and which nodes drive it."""
    with _errors():
        devices = load_hardware(path)
    table = Table("device", "driver", "node", "joints")
    for name, settings in devices.items():
        has_joints = hasattr(driver_module(settings.driver), "DRIVER")
        row = (settings.driver, driver_node(settings.driver), "yes" if has_joints else "")
        table.add_row(name, *row)
    Console().print(table)


@app.command("node")
def node(
    robot: Robot,
    hardware: Annotated[Hardware, typer.Option(help="What to drive.")] = "real",
    file: Annotated[str, typer.Option(help="The lab's hardware file.")] = "",
) -> None:
    """Print the executable of the node that drives a robot, for launch files."""
    with _errors():
        print(node_for(robot, hardware, file), end="")


@app.command("simulate")
def simulate(
    robot: Robot,
    name: Annotated[str, typer.Option(help="Of the driver's node.")] = "driver",
    namespace: Annotated[str, typer.Option(help="Of its topics.")] = "",
    autostart: Annotated[bool, typer.Option(help="Activate it without a supervisor.")] = True,
    emergency_stop: Annotated[bool, typer.Option(help="Stay stopped until it is heard.")] = True,
) -> None:
    """Run a driver's node on a simulator of its device's protocol; Ctrl-C ends both."""
    from twinloop.drivers.simulation import run_on_simulator

    with _errors():
        parameters = {"autostart": autostart, "require_emergency_stop": emergency_stop}
        raise typer.Exit(run_on_simulator(robot, name, namespace, parameters))


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except HardwareRefused as error:
        raise CommandError(str(error)) from error
