# SPDX-License-Identifier: Apache-2.0
"""`twinloop launch`: run a ROS 2 XML launch file without `ros2 launch`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from twinloop import paths
from twinloop.cli.errors import CommandError
from twinloop.launching import (
    Argument,
    LaunchError,
    LaunchRunner,
    load_launch_file,
    parse_assignments,
    read_arguments,
)

_SUFFIX = ".launch.xml"


def launch(
    name: Annotated[
        str, typer.Argument(help="A launch file of this stack, such as baoding, or a path.")
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Launch arguments as name:=value.")
    ] = None,
    show_args: Annotated[
        bool, typer.Option("--show-args", "-s", help="List the arguments of the launch file.")
    ] = False,
) -> None:
    """Run a launch file; Ctrl-C stops everything within 5 s."""
    try:
        path = find_launch_file(name)
        if show_args:
            print(format_arguments(read_arguments(path)))
            return
        description = load_launch_file(path, parse_assignments(arguments or []))
    except LaunchError as error:
        raise CommandError(str(error)) from error
    result = LaunchRunner(description, log_path=new_log_path()).run()
    for failure in result.failures:
        typer.echo(failure, err=True)
    raise typer.Exit(result.exit_code)


def find_launch_file(name: str) -> Path:
    """Return the path of a launch file named `baoding`, or given as a path.

    Raises:
        LaunchError: there is no such file.
    """
    given = Path(name)
    if given.suffix in (".xml", ".launch") or len(given.parts) > 1:
        if not given.is_file():
            raise LaunchError(f"the launch file '{name}' does not exist")
        return given
    try:
        return paths.share("launch", f"{name}{_SUFFIX}")
    except FileNotFoundError:
        folder = paths.share("launch")
        known = sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
        raise LaunchError(
            f"there is no launch file '{name}'; known: {', '.join(known) or 'none'}"
        ) from None


def format_arguments(arguments: list[Argument]) -> str:
    """Return the list that `--show-args` prints."""
    if not arguments:
        return "No arguments."
    lines = ["Arguments (pass them as name:=value):"]
    for argument in arguments:
        star = "*" if argument.is_conditional else ""
        lines += ["", f"  {argument.name}{star}"]
        if argument.description:
            lines.append(f"      {argument.description}")
        if argument.choices:
            lines.append(f"      one of: {', '.join(argument.choices)}")
        lines.append(
            "      (required)"
            if argument.default is None
            else f"      default: '{argument.default}'"
        )
    if any(argument.is_conditional for argument in arguments):
        lines += ["", "* used only under a condition"]
    return "\n".join(lines)


def new_log_path() -> Path | None:
    """Return a new file beside ROS's own logs; None where that folder cannot be written."""
    home = Path(os.environ.get("ROS_HOME", Path.home() / ".ros"))
    folder = Path(os.environ.get("ROS_LOG_DIR", home / "log"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    return folder / f"{time.strftime('%Y-%m-%d-%H-%M-%S')}-{os.getpid()}-launch.log"
