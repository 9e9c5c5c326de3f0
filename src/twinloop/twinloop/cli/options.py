# SPDX-License-Identifier: Apache-2.0
"""Options and places that several commands share."""

from __future__ import annotations

import enum
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from twinloop import paths
from twinloop.cli.errors import CommandError

SHIPPED = "shipped"
RUNS = Path("runs")

AsJson = Annotated[bool, typer.Option("--json", help="Print the report to stdout, only that.")]
Task = Annotated[str, typer.Argument(help="The task, such as baoding.", show_default=False)]
Hands = Annotated[
    int, typer.Option(help="Hands that each process plans as one batch.", min=1, max=256)
]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes; one a core by default.", min=1, max=256, show_default=False),
]


Goal = Annotated[
    str,
    typer.Option(
        help="What is wanted of the task, such as ccw or cw of baoding; its default if left out.",
        show_default=False,
    ),
]


class Engine(enum.StrEnum):
    """Engines of the simulated twin."""

    mujoco = "mujoco"
    pybullet = "pybullet"


class Eyes(enum.StrEnum):
    """What tells where the balls are."""

    cameras = "cameras"
    standin = "standin"


def require_task(name: str) -> None:
    """Refuse the name of a task that is not there; raises CommandError."""
    from twinloop import contract

    if name not in contract.available():
        raise CommandError(f"no task {name!r}; there are {', '.join(contract.available())}")


def require_goal(task: str, goal: str) -> None:
    """Refuse a goal that a task does not know; raises CommandError."""
    from twinloop import tasks

    try:
        tasks.make(task, goal)
    except ValueError as error:
        raise CommandError(str(error)) from error


def require_planner(name: str | None) -> None:
    """Refuse the name of a planner that is not there; raises CommandError."""
    from twinloop import planners

    if name is not None and name not in planners.available():
        raise CommandError(f"no planner {name!r}; there are {', '.join(planners.available())}")


def command_line() -> str:
    """Return what the user typed, as reports and lineages name it."""
    return shlex.join(["twinloop", *sys.argv[1:]])


def run_folder(given: Path | None, kind: str) -> Path:
    """Make the folder of a new run: the one that is given, or one named by kind and time.

    Raises:
        CommandError: it holds something already, or cannot be made.
    """
    folder = given or RUNS / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise CommandError(f"{folder} cannot be made: {error.strerror}") from error
    if occupied:
        raise CommandError(f"{folder} is not empty; name a new folder, so that runs do not mix")
    return folder


def model_folder(given: str, task: str) -> Path:
    """Return the folder of a model that is named `shipped`, by its folder, or by a registry's
    folder of the task, whose current version counts.

    Raises:
        CommandError: there is none.
    """
    try:
        folder = paths.share("models", task) if given == SHIPPED else Path(given).expanduser()
    except FileNotFoundError as error:
        raise CommandError(f"no model ships with task {task!r}: {error}") from error
    for registry in (folder, folder / task):
        pointer = registry / "current"
        if pointer.is_file():
            return registry / pointer.read_text(errors="replace").strip()
    if not (folder / "model.json").is_file():
        raise CommandError(
            f"{folder} holds no model: expected model.json, or a registry's file 'current'"
        )
    return folder
