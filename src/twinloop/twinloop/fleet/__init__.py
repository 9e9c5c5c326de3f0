# SPDX-License-Identifier: Apache-2.0
"""Episodes from many twins at once: in this process, in local processes, or on a Ray cluster.

    with open_fleet(workers=2) as fleet:
        for record in fleet.run(deal(job)):
            ...

What a job gives depends on the job alone: not on how many workers there are, where they run, which
one takes it, or whether one of them was lost on the way.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twinloop.fleet.base import Fleet, FleetError
from twinloop.fleet.job import Job, Packed, deal, packed
from twinloop.fleet.local import InlineWorkers, LocalWorkers
from twinloop.fleet.runner import run_job

__all__ = ["Fleet", "FleetError", "Job", "Packed", "deal", "open_fleet", "packed", "run_job"]


def open_fleet(
    workers: int | None = None,
    ray: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Fleet:
    """Return a fleet, to be used in a `with` statement.

    Args:
        workers: how many; default: one a core of this machine, or of the Ray cluster. One local
            worker is this process itself.
        ray: address of a Ray cluster, `auto` for the one of this machine, `local` for a new one
            that ends with the fleet; None for local processes.
        say: is told when a worker was lost.

    Raises:
        ValueError: fewer than one worker.
        FleetError: Ray is not installed, no cluster answers, or it has fewer CPUs than workers.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    if ray is not None:
        from twinloop.fleet.on_ray import RayWorkers

        cluster = RayWorkers(ray, workers)
        return Fleet(cluster, cluster.count, say)
    count = workers or len(os.sched_getaffinity(0))
    return Fleet(InlineWorkers() if count == 1 else LocalWorkers(), count, say)
