# SPDX-License-Identifier: Apache-2.0
"""`twinloop train`: a model from nothing, or from demonstrations, in twins on this machine."""

from __future__ import annotations

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
    command_line,
    require_goal,
    require_task,
    run_folder,
)
from twinloop.reporting.progress import WorkProgress

if TYPE_CHECKING:
    from twinloop.contract import Contract
    from twinloop.learning.registry import Registry
    from twinloop.learning.rollout import EpisodeRecord

_WORKERS = 2
# A run's seeds go up to a million times the next seed; those of its evaluation come last.
_SEEDS_PER_RUN, _EVALUATION_SEEDS = 1_000_000, 900_000


def train(
    task: Task,
    transitions: Annotated[int, typer.Option(help="To collect in all.", min=200)] = 15_000,
    seed: Annotated[int, typer.Option(help="Of starts, noise and weights.", min=0)] = 0,
    pretrain: Annotated[
        bool, typer.Option("--pretrain", help="Begin with episodes planned on true dynamics.")
    ] = False,
    goal: Goal = "",
    evaluate: Annotated[int, typer.Option(help="Fresh episodes at the end.", min=1)] = 20,
    workers: Annotated[
        int, typer.Option(help="Processes that collect; the result depends on it.", min=1, max=256)
    ] = _WORKERS,
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
    what an interrupted run needs to carry on. Every episode is kept as a bag.
    """
    require_task(task)
    if resume and (out is None or not out.is_dir()):
        raise CommandError("--resume carries on with the run in --out, which names no folder")
    folder = out.absolute() if resume and out is not None else run_folder(out, "train")
    console = Console(stderr=as_json)
    # Late, because these imports take seconds.
    from twinloop import contract as contracts
    from twinloop.cli.evaluation import load_or_refuse, run_episodes
    from twinloop.cli.reports import finish
    from twinloop.learning.registry import Registry
    from twinloop.reporting.models import of_model
    from twinloop.reporting.report import Run

    require_goal(task, goal)
    began_s = time.monotonic()
    contract = contracts.load(task)
    registry = Registry(folder, contract)
    training: dict[str, Any] = {"transitions": transitions, "pretrain": pretrain}
    if registry.current() is None:
        settings: dict[str, Any] = {"seed": seed, "transitions": transitions}
        settings |= {"pretrain": pretrain, "workers": workers, "goal": goal}
        training["rounds"] = _train(folder, registry, contract, settings, console)
    version = registry.current() or ""
    loaded, _ = load_or_refuse(registry.path(version), task)
    first = seed * _SEEDS_PER_RUN + _EVALUATION_SEEDS
    figures = run_episodes(
        loaded,
        contract,
        range(first, first + evaluate),
        steps=100,
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
    folder: Path, registry: Registry, contract: Contract, settings: dict[str, Any], console: Console
) -> list[dict[str, float]]:
    """Train, and let the result be the registry's current model; returns a row a round."""
    from twinloop.bags.read import complete_bags, metadata
    from twinloop.cli.evaluation import write_record
    from twinloop.learning.checkpoint import CheckpointInvalid
    from twinloop.learning.fit import FitDiverged
    from twinloop.learning.train import train as run_training

    bags = folder / "bags" / "training"
    # An interrupted run repeats the episodes of the round it was in.
    lengths: dict[str, int] = {}
    for about in (metadata(path).episode for path in complete_bags(bags)):
        if about is not None:
            lengths[about.episode_id] = about.steps or 0

    def keep(record: EpisodeRecord) -> None:
        name = str(record.episode.meta["episode_id"])
        index = int(record.episode.meta["seed"]) % _SEEDS_PER_RUN
        write_record(record, contract, bags, index, "mujoco", str(record.episode.meta["model"]))
        lengths[name] = len(record.episode)
        progress.update(sum(lengths.values()), f"last {record.rotation_deg:.0f} deg")

    with WorkProgress(console, int(settings["transitions"]), "transitions") as progress:
        progress.update(sum(lengths.values()))
        try:
            result = run_training(
                folder,
                **settings,
                evaluate=0,
                command=command_line(),
                sink=keep,
                progress=progress.say,
            )
        except (CheckpointInvalid, FitDiverged) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            progress.say(f"interrupted; --resume --out {folder} carries on")
            raise
    registry.promote(result.version, "trained")
    return result.rounds
