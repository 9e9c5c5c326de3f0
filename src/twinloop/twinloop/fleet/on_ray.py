# SPDX-License-Identifier: Apache-2.0
"""Workers on a Ray cluster: one actor a CPU, each the same `Runner` as a local worker.

Ray is an option: nothing else imports it. Every node needs this package installed in the same
version; episodes come back to the process that owns the fleet, which alone writes to disk.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from twinloop.fleet.base import Delivered, Done, Event, Failed, FleetError, Lost
from twinloop.fleet.job import Job, Networks
from twinloop.fleet.runner import Runner
from twinloop.learning.rollout import EpisodeRecord


class _Actor:
    """Runs in a process of the cluster."""

    def __init__(self) -> None:
        self._runner = Runner()

    def run(self, job: Job, networks: Networks) -> Iterator[EpisodeRecord]:
        yield from self._runner.run(networks.into(job))


class RayWorker:
    """An actor of the cluster."""

    def __init__(self, cluster: RayWorkers) -> None:
        self._cluster = cluster
        # No restarts: the fleet replaces an actor that is lost, and runs its job again.
        self._actor = cluster.actor.remote()
        self.episodes: Any = None

    def send(self, job: Job, networks: Networks) -> None:
        run = self._actor.run.options(num_returns="streaming")
        self.episodes = run.remote(job, self._cluster.put(networks))

    def next_event(self) -> Event:
        ray = self._cluster.ray
        errors = ray.exceptions
        try:
            return Delivered(ray.get(next(self.episodes)))
        except StopIteration:
            return Done()
        except errors.RayTaskError as error:
            return Failed(error.cause if isinstance(error.cause, Exception) else error)
        except (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            self.stop()
            return Lost(str(error).splitlines()[0])

    def stop(self) -> None:
        self._cluster.ray.kill(self._actor)


class RayWorkers:
    """Actors of a Ray cluster.

    Args:
        address: of the cluster; `auto` for the one of this machine, `local` for a new one.
        count: how many workers; None for as many as the cluster has CPUs.

    Raises:
        FleetError: Ray is not installed, no cluster answers, or it has fewer CPUs than workers.
    """

    def __init__(self, address: str, count: int | None) -> None:
        # Nothing about this run is reported to anybody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray = importlib.import_module("ray")
        except ImportError as error:
            raise FleetError(
                "--ray needs the package ray, which is not installed; "
                ".venv/bin/pip install 'ray>=2.40' adds it"
            ) from error
        self.ray = ray
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except Exception as error:  # Ray raises that very class where its start takes too long
            first = str(error).strip().partition("\n")[0]
            raise FleetError(f"no Ray cluster answers at {address!r}: {first}") from error
        cpus = int(ray.cluster_resources().get("CPU", 0))
        self.count = cpus if count is None else count
        if not 1 <= self.count <= cpus:
            self.close()
            raise FleetError(f"the Ray cluster has {cpus} CPUs, too few for {count or 1} workers")
        self.actor = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._put: tuple[Networks, Any] | None = None

    def start(self) -> RayWorker:
        return RayWorker(self)

    def wait(self, busy: Sequence[RayWorker]) -> Sequence[RayWorker]:
        ready, _ = self.ray.wait([worker.episodes for worker in busy], fetch_local=False)
        return [worker for worker in busy if worker.episodes in ready]

    def put(self, networks: Networks) -> Any:
        """Return networks as an object of the cluster, which each node is sent once."""
        if self._put is None or self._put[0] is not networks:
            self._put = networks, self.ray.put(networks)
        return self._put[1]

    def close(self) -> None:
        self.ray.shutdown()
