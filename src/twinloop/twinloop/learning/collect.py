# SPDX-License-Identifier: Apache-2.0
"""Episodes from several processes at once, each with a cell of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from twinloop import planners
from twinloop.learning.rollout import (
    Actor,
    EpisodeRecord,
    PlannedActor,
    ProposalActor,
    RandomActor,
    roll_out,
)
from twinloop.models import from_tensors
from twinloop.models.proposal import Proposal, ProposalConfig
from twinloop.robots.hand24 import HAND24
from twinloop.tasks.baoding import Baoding

# Random motion: standard deviation of targets about the cup, as a share of half the joint range.
_RANDOM_SPREAD = 0.35


Source = Literal["random", "oracle", "proposal", "model"]
Packed = tuple[dict[str, Any], dict[str, Tensor]]  # config and tensors of a network


def packed(proposal: Proposal) -> Packed:
    """Return a proposal as what another process can build it from."""
    return proposal.config.model_dump(mode="json"), dict(proposal.state_dict())


@dataclass(frozen=True)
class Job:
    """Episodes for one process to run.

    Attributes:
        source: `random` motion, the `oracle` that plans on the twin's true dynamics, the
            `proposal` policy alone, or planning with the `model`.
        seeds: one an episode.
        hands: how many run side by side.
        noises: disturbances of the actions, as shares of the largest change in a step; an episode
            takes the one at its seed modulo their number.
        planner: changes to the settings of the planner.
        planner_name: one of twinloop.planners.
        model: config and tensors of the model, for source `model`.
        proposal: config and tensors of the policy, for source `proposal`.
    """

    source: Source
    seeds: tuple[int, ...]
    steps: int
    goal: str = ""
    hands: int = 1
    noises: tuple[float, ...] = (0.0,)
    engine: str = "mujoco"
    planner: dict[str, Any] = field(default_factory=dict)
    planner_name: str = planners.DEFAULT
    model: Packed | None = None
    proposal: Packed | None = None
    model_name: str = ""


def run_job(job: Job) -> list[EpisodeRecord]:
    """Run a job in this process, on one thread.

    Raises:
        ValueError: a source without its model, or an unknown source, engine or goal.
    """
    from twinloop_sim.cell import Cell

    torch.set_num_threads(1)
    task = Baoding(job.goal)
    hands = min(job.hands, len(job.seeds))
    cell = Cell(hands, job.engine)
    try:
        meta = {"source": job.source, "model": job.model_name or job.source}
        return roll_out(cell, _actor(job, cell, task, hands), task, job.seeds, job.steps, meta)
    finally:
        cell.close()


def _actor(job: Job, cell: Any, task: Baoding, hands: int) -> Actor:
    if job.source == "random":
        spread = _RANDOM_SPREAD * 0.5 * (HAND24.upper - HAND24.lower)
        speed = planners.action_space(task).largest_change
        return RandomActor(HAND24.poses["cup"], spread, task.command, speed, hands)
    if job.source == "oracle":
        from twinloop_sim.oracle import TrueDynamics

        truth = TrueDynamics(cell)
        planner = planners.make(job.planner_name, truth, task, 0, **job.planner)
        return PlannedActor(planner, task, hands, job.noises, see=truth.observe)
    if job.source == "proposal":
        if job.proposal is None:
            raise ValueError("a job with source 'proposal' needs a proposal")
        proposal = Proposal(ProposalConfig.model_validate(job.proposal[0]))
        proposal.load_state_dict(job.proposal[1])
        return ProposalActor(proposal, task, hands, job.noises)
    if job.model is None:
        raise ValueError("a job with source 'model' needs a model")
    planner = planners.make(job.planner_name, from_tensors(*job.model), task, 0, **job.planner)
    return PlannedActor(planner, task, hands, job.noises)


class Collector:
    """Deals jobs to worker processes; with one worker, works in this process."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}, expected at least 1")
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.workers > 1:
            # Forking a process with threads, as torch and MuJoCo have, can hang the child.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, jobs: Iterable[Job]) -> Iterator[list[EpisodeRecord]]:
        """Yield each job's episodes as it ends; the order is that of the end."""
        if self._pool is None:
            yield from map(run_job, jobs)
            return
        pending = {self._pool.submit(run_job, job) for job in jobs}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def mean_transitions(records: Sequence[EpisodeRecord]) -> float:
    """Return how many transitions an episode had on average."""
    return float(np.mean([len(record.episode) for record in records]))
