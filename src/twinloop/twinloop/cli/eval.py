# SPDX-License-Identifier: Apache-2.0
"""`twinloop eval`: a model at work in an in-process twin, as fast as the machine allows."""

from __future__ import annotations

import enum
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from twinloop.cli.errors import CommandError
from twinloop.cli.options import (
    SHIPPED,
    AsJson,
    Engine,
    Eyes,
    Goal,
    Hands,
    Task,
    Workers,
    command_line,
    model_folder,
    require_goal,
    require_planner,
    require_task,
    run_folder,
)


class Look(enum.StrEnum):
    """Families of light, colours and errors of the cameras' place."""

    nominal = "nominal"
    train = "train"
    tune = "tune"
    test = "test"


# How far off its calibration the rig is where the look is not nominal.
_RIG_ERROR = {"rig_error_m": 0.002, "rig_error_deg": 0.3}


def evaluate(
    task: Task,
    model: Annotated[
        str, typer.Option(help="Folder of a model or of a registry, or 'shipped'.")
    ] = SHIPPED,
    episodes: Annotated[int, typer.Option(help="Episodes to run.", min=1)] = 20,
    steps: Annotated[
        int | None,
        typer.Option(help="Control steps; the task's own.", min=1, show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first episode; the next count up.", min=0)] = 0,
    twin: Annotated[Engine, typer.Option(help="Engine of the simulated twin.")] = Engine.mujoco,
    goal: Goal = "",
    planner: Annotated[
        str | None,
        typer.Option(help="One of twinloop.planners; the default one.", show_default=False),
    ] = None,
    eyes: Annotated[
        Eyes, typer.Option(help="Track the balls in images, or let the twin make up what is told.")
    ] = Eyes.standin,
    look: Annotated[
        Look, typer.Option(help="What the cameras see: nominal, or drawn anew for each episode.")
    ] = Look.nominal,
    hands: Hands = 1,
    workers: Workers = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; runs/eval-<time> by default.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model in a twin: episodes without a learner, in process, from their seeds.

    Every episode is written as a bag, and the report is made from those. What plans sees what
    the cell's sensors give, and no more.
    """
    require_task(task)
    cell = _cell(task, eyes, look)
    chosen = model_folder(model, task)
    console = Console(stderr=as_json)
    # Late, because these imports take seconds.
    from twinloop import tasks
    from twinloop.cli.evaluation import load_or_refuse, run_episodes
    from twinloop.cli.reports import finish
    from twinloop.reporting.models import of_model
    from twinloop.reporting.report import Run

    require_goal(task, goal)
    require_planner(planner)
    loaded, contract = load_or_refuse(chosen, task)
    folder = run_folder(out, "eval")
    began_s = time.monotonic()
    figures = run_episodes(
        loaded,
        contract,
        range(seed, seed + episodes),
        steps=steps or tasks.make(task, goal).episode_steps,
        engine=twin.value,
        goal=goal,
        planner=planner,
        hands=hands,
        workers=workers,
        bags=folder / "bags",
        console=console,
        cell=cell,
    )
    run = Run(command_line(), seed, folder, time.monotonic() - began_s)
    finish(run, figures, of_model(chosen, figures, contract), contract, console, as_json)


def _cell(task: str, eyes: Eyes, look: Look) -> dict[str, Any]:
    """Return the options of the task's cell; raises CommandError where they do not fit."""
    if eyes is not Eyes.cameras:
        if look is not Look.nominal:
            raise CommandError(f"--look {look.value} changes nothing without --eyes cameras")
        return {}
    if task != "baoding":
        raise CommandError(f"--eyes cameras follows the balls of baoding, not the task {task!r}")
    changes = {} if look is Look.nominal else _RIG_ERROR
    return {"eyes": eyes.value, "cameras": {"appearance": look.value, **changes}}
