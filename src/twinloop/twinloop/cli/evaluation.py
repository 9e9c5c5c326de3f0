# SPDX-License-Identifier: Apache-2.0
"""Episodes of a model in in-process twins, each kept as a bag."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from twinloop import contract as contracts
from twinloop import planners, tasks
from twinloop.cli.errors import CommandError
from twinloop.contract import Contract
from twinloop.fleet import Job, deal, open_fleet, packed
from twinloop.learning.episode_bags import write_record
from twinloop.learning.model_file import LoadedModel, load_model
from twinloop.models import ModelInvalid
from twinloop.reporting.episodes import EpisodeFigures, read_run
from twinloop.reporting.progress import WorkProgress


def load_or_refuse(folder: Path, task: str) -> tuple[LoadedModel, Contract]:
    """Return a model and the contract of its task; raises CommandError where it is not usable."""
    contract = contracts.load(task)
    try:
        return load_model(folder, contract), contract
    except ModelInvalid as error:
        raise CommandError(str(error)) from error


def run_episodes(
    model: LoadedModel,
    contract: Contract,
    seeds: Sequence[int],
    *,
    steps: int,
    engine: str,
    goal: str,
    planner: str | None = None,
    hands: int,
    workers: int | None,
    bags: Path,
    console: Console,
    cell: dict[str, Any] | None = None,
) -> list[EpisodeFigures]:
    """Run one episode a seed with a model, write a bag of each, and return what the bags tell.

    Args:
        model: what is planned with.
        contract: of its task.
        seeds: of starts, sensor noise and planner noise.
        steps: control steps of an episode.
        engine: `mujoco` or `pybullet`.
        goal: of the task.
        planner: one of twinloop.planners; None for the default one.
        hands: planned as one batch in each process.
        workers: processes; None for one a core, but no more than there is work for.
        bags: folder for the bags.
        console: where progress is shown.
        cell: further options of the task's cell.
    """
    job = Job(
        contract.name,
        "model",
        tuple(seeds),
        steps,
        goal,
        hands,
        engine=engine,
        model=packed(model.model),
        planner_name=planner or planners.DEFAULT,
        cell=cell or {},
    )
    jobs = deal(job)
    workers = min(workers or len(os.sched_getaffinity(0)), len(jobs))
    done = taken = 0
    unit = tasks.make(contract.name, goal).progress_unit
    with (
        WorkProgress(console, len(seeds), "episodes") as progress,
        open_fleet(workers, say=progress.say) as fleet,
    ):
        progress.update(0, f"{workers} processes with {hands} hands each")
        for record in fleet.run(jobs):
            index = int(record.episode.meta["seed"]) - seeds[0]
            # A batch is planned in one call, whose time is not what a single hand would take.
            plan_ms = record.plan_ms if hands == 1 else ()
            write_record(record, contract, bags, index, engine, model.version, plan_ms)
            done, taken = done + 1, taken + len(record.episode)
            progress.update(done, f"{taken} steps, last {record.score:.3g} {unit}")
    return read_run(bags, contract)
