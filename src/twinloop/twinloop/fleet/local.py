# SPDX-License-Identifier: Apache-2.0
"""Workers on this machine: this process itself, or processes of their own.

`concurrent.futures` gives up as a whole when one of its processes dies; here each is on its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait

from twinloop.fleet.base import Delivered, Done, Event, Failed, Lost
from twinloop.fleet.job import Job, Networks
from twinloop.fleet.runner import Runner
from twinloop.learning.rollout import EpisodeRecord

# Forking a process with threads, as torch and MuJoCo have, can hang the child.
_SPAWN = multiprocessing.get_context("spawn")


class InlineWorker:
    """This process. It works while it is waited for."""

    def __init__(self) -> None:
        self._runner = Runner()
        self._episodes: Iterator[EpisodeRecord] = iter(())

    def send(self, job: Job, networks: Networks) -> None:
        self._episodes = self._runner.run(networks.into(job))

    def next_event(self) -> Event:
        try:
            return Delivered(next(self._episodes))
        except StopIteration:
            return Done()
        except Exception as error:
            return Failed(error)

    def stop(self) -> None:
        self._runner.close()


class InlineWorkers:
    """A fleet of one, in this process."""

    def start(self) -> InlineWorker:
        return InlineWorker()

    def wait(self, busy: Sequence[InlineWorker]) -> Sequence[InlineWorker]:
        return busy

    def close(self) -> None:
        """Nothing is left: the worker frees its cells itself."""


class LocalWorker:
    """A process on this machine."""

    def __init__(self) -> None:
        self.connection, far_end = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(far_end,), daemon=True)
        self._process.start()
        # Open in the worker alone: its end is the end of the connection.
        far_end.close()
        self._holds: Networks | None = None

    def send(self, job: Job, networks: Networks) -> None:
        news = None if networks is self._holds else networks
        self._holds = networks
        # Where it has died, reading from it tells so.
        with contextlib.suppress(OSError):
            self.connection.send_bytes(pickle.dumps((job, news)))

    def next_event(self) -> Event:
        try:
            event: Event = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.stop()
            return Lost(_cause(self._process.exitcode))
        return event

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


class LocalWorkers:
    """Processes on this machine."""

    def start(self) -> LocalWorker:
        return LocalWorker()

    def wait(self, busy: Sequence[LocalWorker]) -> Sequence[LocalWorker]:
        ready = wait([worker.connection for worker in busy])
        return [worker for worker in busy if worker.connection in ready]

    def close(self) -> None:
        """Nothing is left: workers take their pipes with them."""


def _serve(connection: Connection) -> None:
    """Run jobs until nobody wants more."""
    # Ctrl-C reaches the whole group; the process that owns the fleet ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runner, networks = Runner(), Networks()
    while True:
        try:
            job, news = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        networks = news or networks
        try:
            for record in runner.run(networks.into(job)):
                connection.send_bytes(pickle.dumps(Delivered(record)))
            end: Event = Done()
        except Exception as error:
            end = Failed(portable(error))
        connection.send_bytes(pickle.dumps(end))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def portable(error: Exception) -> Exception:
    """Return an error that can go to another process, with where it came from as a note."""
    error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit status {exit_code}"
