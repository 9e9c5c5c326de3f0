# SPDX-License-Identifier: Apache-2.0
"""`twinloop train`: a model from nothing, or from demonstrations, in a fleet of twins."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from twinloop.cli.errors import CommandError
from twinloop.cli.options import (
    AsJson,
    Goal,
    Task,
    Workers,
    command_line,
    require_goal,
    require_task,
    run_folder,
)
from twinloop.cli.train_policy import Algorithm, train_policy
from twinloop.reporting.progress import WorkProgress

if TYPE_CHECKING:
    from twinloop.learning.episode import Episode
    from twinloop.learning.registry import Registry

# A run's seeds go up to a million times the next seed; those of its evaluation come last.
_SEEDS_PER_RUN, _EVALUATION_SEEDS = 1_000_000, 900_000


def train(
    task: Task,
    transitions: Annotated[int, typer.Option(help="To collect in all.", min=200)] = 15_000,
    seed: Annotated[int, typer.Option(help="Of starts, noise and weights.", min=0)] = 0,
    pretrain: Annotated[
        bool,
        typer.Option("--pretrain", help="Use what only twins offer, such as demonstrations."),
    ] = False,
    goal: Goal = "",
    evaluate: Annotated[int, typer.Option(help="Fresh episodes at the end.", min=1)] = 20,
    workers: Workers = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Collect on the Ray cluster at this address; 'auto' finds the one of this "
            "machine, 'local' starts one.",
            show_default=False,
        ),
    ] = None,
    from_bags: Annotated[
        Path | None,
        typer.Option(help="Collect nothing: learn from these bags, or those of this run."),
    ] = None,
    algorithm: Annotated[
        Algorithm,
        typer.Option(
            help="A model to plan with, or a policy: sac in a twin; bc, iql or bear from bags."
        ),
    ] = Algorithm.model,
    asynchronous: Annotated[
        bool,
        typer.Option(
            "--asynchronous", help="With sac: the twin keeps real time, and waits for no learner."
        ),
    ] = False,
    updates: Annotated[
        int | None,
        typer.Option(help="Gradient steps from bags.", min=1, show_default=False),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard logs beside the report.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; runs/train-<time> by default.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Carry on with the run in --out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model, and measure it on fresh episodes.

    --out becomes a registry with the model as its current one, beside the bags, the report and
    what an interrupted run needs to carry on. Every episode is kept as a bag. The result does not
    depend on how many processes collect, nor where.
    """
    require_task(task)
    if resume and (out is None or not out.is_dir()):
        raise CommandError("--resume carries on with the run in --out, which names no folder")
    folder = out.absolute() if resume and out is not None else run_folder(out, "train")
    console = Console(stderr=as_json)
    if algorithm is not Algorithm.model:
        train_policy(
            task,
            algorithm,
            folder,
            goal=goal,
            transitions=transitions,
            updates=updates,
            seed=seed,
            from_bags=from_bags,
            asynchronous=asynchronous,
            evaluate=evaluate,
            console=console,
            as_json=as_json,
        )
        return
    # Late, because these imports take seconds.
    from twinloop import contract as contracts
    from twinloop import tasks
    from twinloop.cli.evaluation import load_or_refuse, run_episodes
    from twinloop.cli.reports import finish
    from twinloop.learning.registry import Registry
    from twinloop.reporting.models import of_model
    from twinloop.reporting.report import Run

    require_goal(task, goal)
    began_s = time.monotonic()
    contract = contracts.load(task)
    registry = Registry(folder, contract)
    settings: dict[str, Any] = {"seed": seed, "transitions": transitions}
    settings |= {"pretrain": pretrain, "goal": goal, "from_bags": from_bags}
    settings |= {"workers": workers, "ray": ray}
    unit = tasks.make(task, goal).progress_unit
    training: dict[str, Any] = {"transitions": transitions, "pretrain": pretrain, "unit": unit}
    # A run whose training had ended is read again: the report tells of its rounds too.
    training["rounds"] = _train(folder, registry, task, settings, tensorboard, console)
    version = registry.current() or ""
    loaded, _ = load_or_refuse(registry.path(version), task)
    first = seed * _SEEDS_PER_RUN + _EVALUATION_SEEDS
    figures = run_episodes(
        loaded,
        contract,
        range(first, first + evaluate),
        steps=tasks.make(task, goal).episode_steps,
        engine="mujoco",
        goal=goal,
        hands=1,
        workers=None,
        bags=folder / "bags" / "evaluation",
        console=console,
    )
    run = Run(command_line(), seed, folder, time.monotonic() - began_s)
    models = of_model(registry.path(version), figures, contract)
    finish(run, figures, models, contract, console, as_json, training=training)


def _train(
    folder: Path,
    registry: Registry,
    task: str,
    settings: dict[str, Any],
    tensorboard: bool,
    console: Console,
) -> list[dict[str, float]]:
    """Train, and let the result be the registry's current model; returns a row a round."""
    from twinloop.bags.errors import BagError
    from twinloop.fleet import FleetError
    from twinloop.learning.checkpoint import CheckpointInvalid
    from twinloop.learning.fit import FitDiverged
    from twinloop.learning.tensorboard import Board, TensorBoardMissing
    from twinloop.learning.train import train as run_training
    from twinloop.learning.training_run import Listener, ProtocolImpossible

    done = 0
    with (
        contextlib.ExitStack() as stack,
        WorkProgress(console, int(settings["transitions"]), "transitions") as progress,
    ):

        def count(episode: Episode, is_new: bool) -> None:
            nonlocal done
            done += len(episode)
            if not is_new:
                progress.find(done)
            progress.update(done)

        try:
            board = Board(folder / "tensorboard") if tensorboard else None
            if board is not None:
                stack.callback(board.close)
            result = run_training(
                folder,
                task,
                **settings,
                evaluate=0,
                command=command_line(),
                listener=Listener(
                    progress.say,
                    count,
                    lambda row: board.write(row, row["transitions"]) if board else None,
                ),
            )
            if board is not None:
                board.write(result.metrics, result.lineage.total_transitions)
        except (
            BagError,
            CheckpointInvalid,
            FitDiverged,
            FleetError,
            ProtocolImpossible,
            TensorBoardMissing,
        ) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            progress.say(f"interrupted; --resume --out {folder} carries on")
            raise
    if registry.current() != result.version:
        registry.promote(result.version, "trained")
    return result.rounds
