# SPDX-License-Identifier: Apache-2.0
"""Episodes of a model in in-process twins, each kept as a bag."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from twinloop import contract as contracts
from twinloop.bags.metadata import METADATA_FILE, EpisodeMetadata
from twinloop.bags.rollouts import write_rollout
from twinloop.cli.errors import CommandError
from twinloop.contract import Contract
from twinloop.learning.collect import Collector, Job
from twinloop.learning.model_file import LoadedModel, load_model
from twinloop.learning.rollout import EpisodeRecord
from twinloop.models import ModelInvalid
from twinloop.reporting import machine
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
    """
    hands = min(hands, len(seeds))
    parts = [tuple(seeds[start : start + hands]) for start in range(0, len(seeds), hands)]
    workers = min(workers or len(os.sched_getaffinity(0)), len(parts))
    tensors = (model.model.config_json(), model.model.state_tensors())
    job = Job("model", (), steps, goal, hands, engine=engine, model=tensors)
    job = replace(job, planner_name=planner or job.planner_name)
    jobs = [replace(job, seeds=part) for part in parts]
    done = taken = 0
    with (
        WorkProgress(console, len(seeds), "episodes") as progress,
        Collector(workers) as collector,
    ):
        progress.update(0, f"{workers} processes with {hands} hands each")
        for records in collector.run(jobs):
            for record in records:
                index = int(record.episode.meta["seed"]) - seeds[0]
                # A batch is planned in one call, whose time is not what a single hand would take.
                plan_ms = record.plan_ms if hands == 1 else ()
                write_record(record, contract, bags, index, engine, model.version, plan_ms)
                done, taken = done + 1, taken + len(record.episode)
            progress.update(done, f"{taken} steps, last {records[-1].rotation_deg:.0f} deg")
    return read_run(bags, contract)


def write_record(
    record: EpisodeRecord,
    contract: Contract,
    bags: Path,
    index: int,
    source: str,
    model_version: str,
    plan_ms: Sequence[float] = (),
) -> Path:
    """Write an in-process episode as a bag; one that is there already whole is left as it is."""
    meta = record.episode.meta
    about = EpisodeMetadata(
        episode_id=str(meta["episode_id"]),
        index=index,
        task=contract.name,
        goal=str(meta["goal"]),
        robot=contract.robot,
        source=source,
        seed=int(meta["seed"]),
        model_version=model_version,
        versions=machine.versions(),
        dropped=record.stop_reason == "dropped",
        rotation_deg=record.rotation_deg,
        stop_reason=record.stop_reason,
    )
    path = bags / f"episode_{index:06d}_{about.episode_id}"
    if (path / METADATA_FILE).is_file():
        return path
    shutil.rmtree(path, ignore_errors=True)
    return write_rollout(path, record.episode, contract, about, plan_ms=plan_ms)
