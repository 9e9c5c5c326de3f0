# SPDX-License-Identifier: Apache-2.0
"""`twinloop demo`: the Baoding cell runs, learns meanwhile, and tells at the end how it went."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twinloop.cli.errors import FAILED, CommandError
from twinloop.cli.launch import find_launch_file
from twinloop.cli.options import (
    SHIPPED,
    AsJson,
    Engine,
    Eyes,
    Goal,
    command_line,
    model_folder,
    require_goal,
    run_folder,
)
from twinloop.dds import own_domain
from twinloop.launching import LaunchDescription, LaunchError, LaunchLine, LaunchRunner
from twinloop.launching.reading import load_launch_file
from twinloop.reporting.live import CellState, LiveDisplay

_TASK = "baoding"
_ROS_LOG = re.compile(r"\[(DEBUG|INFO|WARN|ERROR|FATAL)\] \[[\d.]+\] \[([^\]]+)\]: (.*)")
_STALL_S = 60.0
_SHORTEST_LIMIT_S = 660.0
_RESET_S = 20.0  # what an episode may take beside its steps


def demo(
    episodes: Annotated[int, typer.Option(help="Episodes to run.", min=1)] = 8,
    steps: Annotated[int, typer.Option(help="Control steps of an episode.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the first episode; the next count up.", min=0)] = 0,
    twin: Annotated[Engine, typer.Option(help="Engine of the simulated twin.")] = Engine.mujoco,
    goal: Goal = "",
    eyes: Annotated[
        Eyes, typer.Option(help="Track the balls in images, or let the twin make up what is told.")
    ] = Eyes.cameras,
    rtf: Annotated[
        float, typer.Option(help="Simulated seconds in a second; 0: as fast as possible.", min=0.0)
    ] = 1.0,
    model: Annotated[str, typer.Option(help="Folder of the model, or 'shipped'.")] = SHIPPED,
    learn: Annotated[bool, typer.Option(help="Learn from the bags meanwhile.")] = True,
    web: Annotated[
        bool, typer.Option(help="Show the cell on a page, by default at http://127.0.0.1:8080.")
    ] = True,
    web_control: Annotated[bool, typer.Option(help="Let the page steer too.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; runs/demo-<time> by default.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the Baoding cell: nodes over DDS, the learner on; at the end report, plots and bags.

    Ctrl-C ends it early and still reports. Ends with 0 only if all episodes ran.
    """
    console = Console(stderr=as_json)
    chosen = model_folder(model, _TASK).absolute()
    if model != SHIPPED:
        # Takes a second or two, and saves a start of all nodes in vain.
        from twinloop.cli.evaluation import load_or_refuse

        load_or_refuse(chosen, _TASK)
    require_goal(_TASK, goal)
    folder = run_folder(out, "demo")
    os.environ.update(own_domain())
    arguments = {
        "twin": twin.value,
        "eyes": eyes.value,
        "model": SHIPPED if model == SHIPPED else str(chosen),
        "episodes": str(episodes),
        "steps": str(steps),
        "goal": goal,
        "seed": str(seed),
        "rtf": str(rtf),
        "learn": str(learn).lower(),
        "web": str(web).lower(),
        "web_control": str(web_control).lower(),
        "record_dir": str(folder / "bags"),
        "registry": str(folder / "registry"),
    }
    try:
        description = load_launch_file(find_launch_file(_TASK), arguments)
    except LaunchError as error:
        raise CommandError(str(error)) from error
    began_s = time.monotonic()
    state = CellState(episodes=episodes, steps=steps)
    pace = rtf or 1.0
    limit_s = max(_SHORTEST_LIMIT_S, 2.0 * episodes * (0.1 * steps + _RESET_S) / pace)
    fault = _run(description, state, console, folder, limit_s)
    wall_s = time.monotonic() - began_s
    ran = _report(folder, seed, wall_s, chosen, console, as_json)
    if ran < episodes:
        typer.echo(f"error: {ran} of {episodes} episodes ran; {fault}", err=True)
        raise typer.Exit(FAILED)


def _run(
    description: LaunchDescription,
    state: CellState,
    console: Console,
    folder: Path,
    limit_s: float,
) -> str:
    """Run the launch to its end and show it; returns why it ended."""
    from twinloop.cli.monitor import Monitor

    log = folder / "log.txt"
    with LiveDisplay(console, state) as display:
        display.say(f"twinloop demo: {state.episodes} episodes of {state.steps} steps in {folder}")
        runner = LaunchRunner(description, lambda line: _show(line, display, state), log)
        with Monitor(state, display, runner.stop, stall_s=_STALL_S, limit_s=limit_s):
            result = runner.run()
    reasons = [result.reason, *result.failures, f"see {log}"]
    return "; ".join(dict.fromkeys(reasons))


def _show(line: LaunchLine, display: LiveDisplay, state: CellState) -> None:
    """Show warnings and errors while episodes run; all else is in the log only."""
    if state.phase == "finished":
        return
    matched = _ROS_LOG.match(line.text)
    if matched:
        level, node, text = matched.groups()
        if node == "web" and text.startswith("page at "):
            display.say(text)
            return
        # How episodes end is on the screen already.
        is_known = node == "episode" and " ended: " in text
        if level not in ("DEBUG", "INFO") and not is_known:
            display.say(f"{node}: {text}", "yellow" if level == "WARN" else "red")
    elif line.stream in ("stderr", "error"):
        display.say(f"{line.source}: {line.text}", "red")


def _report(
    folder: Path, seed: int, wall_s: float, model: Path, console: Console, as_json: bool
) -> int:
    """Report from the bags; returns how many episodes ran to an end of their own."""
    from twinloop import contract as contracts
    from twinloop.cli.reports import finish
    from twinloop.learning.registry import Registry
    from twinloop.planners.control import ENDS
    from twinloop.reporting.episodes import read_run
    from twinloop.reporting.models import of_model, of_registry
    from twinloop.reporting.report import Run

    with console.status("reading the bags ..."):
        contract = contracts.load(_TASK)
        episodes = read_run(folder / "bags", contract)
        registry = Registry(folder / "registry", contract)
        # Without a learner there is none.
        learned = bool(registry.versions())
        models = of_registry(registry, episodes) if learned else of_model(model, episodes, contract)
    run = Run(command_line(), seed, folder, wall_s)
    finish(run, episodes, models, contract, console, as_json)
    return sum(one.stop_reason in ENDS for one in episodes)
