# SPDX-License-Identifier: Apache-2.0
"""Deals jobs to workers, whatever they are, and lets no episode be lost with one of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self

from twinloop.fleet.job import Job, Networks
from twinloop.learning.rollout import EpisodeRecord

# A job that takes worker after worker with it is at fault itself.
_MOST_LOSSES = 3


class FleetError(RuntimeError):
    """The fleet cannot do its work; the message says what is missing."""


@dataclass(frozen=True)
class Delivered:
    """An episode of the worker's job has ended."""

    record: EpisodeRecord


@dataclass(frozen=True)
class Done:
    """The worker's job is done, and the worker is free."""


@dataclass(frozen=True)
class Failed:
    """The worker's job raised an error."""

    error: Exception


@dataclass(frozen=True)
class Lost:
    """The worker is gone, whatever it was doing."""

    reason: str


Event = Delivered | Done | Failed | Lost


class Worker(Protocol):
    """Runs one job at a time."""

    def send(self, job: Job, networks: Networks) -> None:
        """Start a job; its networks come apart, as workers keep those they have already. A worker
        that is gone says so by its next event."""
        ...

    def next_event(self) -> Event:
        """Return the next event of the job, waiting for it; `Done`, `Failed` or `Lost` is its
        last."""
        ...

    def stop(self) -> None:
        """End the worker at once; a worker that is lost has been stopped."""
        ...


class Workers(Protocol):
    """Makes workers of one kind."""

    def start(self) -> Worker:
        """Start a worker; it may not be ready yet."""
        ...

    def wait(self, busy: Sequence[Any]) -> Sequence[Any]:
        """Wait until one or more of the busy workers have an event, and return those."""
        ...

    def close(self) -> None:
        """Free what is left once the workers were stopped."""
        ...


@dataclass
class _Assignment:
    job: Job
    delivered: set[int] = field(default_factory=set)  # seeds
    losses: int = 0
    is_sent: bool = False


class Fleet:
    """Workers that run jobs. Those that are lost are replaced, and their jobs are run again.

    Attributes:
        count: how many workers at most.
        losses: how many were lost so far.
    """

    def __init__(
        self, workers: Workers, count: int, say: Callable[[str], None] | None = None
    ) -> None:
        self.count = count
        self.losses = 0
        self._workers = workers
        self._idle: list[Worker] = []
        self._say = say or (lambda text: None)
        self._networks: deque[Networks] = deque(maxlen=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._idle:
            worker.stop()
        self._idle.clear()
        self._workers.close()

    def run(self, jobs: Iterable[Job]) -> Iterator[EpisodeRecord]:
        """Yield the episodes of all jobs, each once and as soon as it has ended, in any order.

        Raises:
            FleetError: a job took several workers with it.
            Exception: what a job raised.
        """
        waiting = deque(_Assignment(job) for job in jobs)
        busy: dict[Worker, _Assignment] = {}
        try:
            while waiting or busy:
                self._dispatch(waiting, busy)
                for worker in self._workers.wait(list(busy)):
                    assignment, event = busy[worker], worker.next_event()
                    if isinstance(event, Delivered):
                        seed = int(event.record.episode.meta["seed"])
                        if seed not in assignment.delivered:
                            assignment.delivered.add(seed)
                            yield event.record
                        continue
                    del busy[worker]
                    if isinstance(event, Failed):
                        worker.stop()
                        raise event.error
                    if isinstance(event, Done):
                        self._idle.append(worker)
                    else:
                        self._note_loss(assignment, event.reason)
                        waiting.appendleft(assignment)
        finally:
            for worker in busy:
                worker.stop()

    def _dispatch(self, waiting: deque[_Assignment], busy: dict[Worker, _Assignment]) -> None:
        while waiting and len(busy) < self.count:
            worker = self._idle.pop() if self._idle else self._workers.start()
            busy[worker] = waiting.popleft()
        # All of them start before the first is waited for: starting takes seconds.
        for worker, assignment in busy.items():
            if not assignment.is_sent:
                assignment.is_sent = True
                worker.send(*self._light(assignment.job))

    def _light(self, job: Job) -> tuple[Job, Networks]:
        """Return a job without its networks, and those as one object for all jobs that share
        them."""
        for known in self._networks:
            if known.model is job.model and known.proposal is job.proposal:
                break
        else:
            known = Networks(job.model, job.proposal)
            self._networks.append(known)
        return replace(job, model=None, proposal=None), known

    def _note_loss(self, assignment: _Assignment, reason: str) -> None:
        self.losses += 1
        assignment.losses += 1
        assignment.is_sent = False
        seeds = assignment.job.seeds
        span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        if assignment.losses >= _MOST_LOSSES:
            raise FleetError(
                f"{assignment.losses} workers were lost amid the episodes with seeds {span}, the "
                f"last one by {reason}"
            )
        self._say(f"a worker was lost ({reason}); its episodes with seeds {span} run again")
