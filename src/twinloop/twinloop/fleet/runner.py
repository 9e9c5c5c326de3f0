# SPDX-License-Identifier: Apache-2.0
"""Runs jobs in one process, one after the other, in cells that are kept between them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from twinloop import tasks
from twinloop.fleet.actors import make_actor
from twinloop.fleet.job import Job
from twinloop.learning.rollout import EpisodeRecord, episodes_as_they_end

_CELLS_KEPT = 4


class Runner:
    """What a worker is, wherever it runs: jobs in, episodes out, on one thread."""

    def __init__(self) -> None:
        self._cells: OrderedDict[str, Any] = OrderedDict()

    def run(self, job: Job) -> Iterator[EpisodeRecord]:
        """Yield a job's episodes as they end.

        Raises:
            ValueError: a source without its model, or an unknown task, source, engine or goal.
        """
        torch.set_num_threads(1)
        task = tasks.make(job.task, job.goal)
        cell = self._cell(job)
        actor = make_actor(job, cell, task)
        meta = {"source": job.source, "model": job.model_name or job.source}
        yield from episodes_as_they_end(cell, actor, task, job.seeds, job.steps, meta)

    def close(self) -> None:
        """Free the cells."""
        while self._cells:
            self._cells.popitem()[1].close()

    def _cell(self, job: Job) -> Any:
        """Return a cell in the state of a new one: building one takes as long as some episodes."""
        from twinloop_sim import cells

        hands = min(job.hands, len(job.seeds))
        key = json.dumps([job.task, hands, job.engine, job.cell], sort_keys=True)
        if key in self._cells:
            self._cells.move_to_end(key)
            self._cells[key].reset(np.zeros(hands, dtype=np.int64))
            return self._cells[key]
        while len(self._cells) >= _CELLS_KEPT:
            self._cells.popitem(last=False)[1].close()
        self._cells[key] = cells.make(job.task, hands, job.engine, **job.cell)
        return self._cells[key]


def run_job(job: Job) -> list[EpisodeRecord]:
    """Run one job in this process; returns its episodes in the order of its seeds.

    Raises:
        ValueError: see `Runner.run`.
    """
    runner = Runner()
    try:
        ended = {int(record.episode.meta["seed"]): record for record in runner.run(job)}
    finally:
        runner.close()
    return [ended[seed] for seed in job.seeds]
