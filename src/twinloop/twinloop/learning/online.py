# SPDX-License-Identifier: Apache-2.0
"""The online learner: watches a folder of bags and runs one training job after the other.

Jobs run in a child process of the lowest priority, so that training takes nothing from a planner
on the same machine. `poll` never waits; what is known is on disk, and a new OnlineLearner on the
same folders goes on where a killed one was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from twinloop.learning.journal import Journal
from twinloop.learning.online_child import BUSY
from twinloop.learning.online_job import LearnerConfig

_SCAN_PERIOD_S = 1.0
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0
_EXIT_PATIENCE_S = 1.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Event:
    """Something that the learner did or met.

    Kinds: started, bag_read, bag_refused, waiting, training, progress, candidate, promoted,
    rejected, undecided, diverged, running_invalid, state_refused, journal, busy, crashed, finished.
    """

    kind: str
    message: str
    values: dict[str, Any] = field(default_factory=dict)


class OnlineLearner:
    """Starts a job when enough bags are complete, watches it, and starts it again if it dies."""

    def __init__(
        self,
        config: LearnerConfig,
        job_timeout_s: float = 900.0,
        command: tuple[str, ...] = (sys.executable, "-m", "twinloop.learning.online_child"),
    ) -> None:
        self._config = config
        self._timeout_s = job_timeout_s
        self._command = command
        self._journal = Journal(config.journal_folder)
        self._journal.load()
        self._child: subprocess.Popen[bytes] | None = None
        self._tail = b""
        self._events: deque[Event] = deque()
        self._started_s = 0.0
        self._next_scan_s = 0.0
        self._is_first = True
        self.failures = 0  # in a row
        self.refused = sum(e.outcome == "refused" for e in self._journal.entries.values())

    @property
    def is_training(self) -> bool:
        return self._child is not None

    @property
    def child_pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def transitions(self) -> int:
        """Transitions of all episodes that could be read so far."""
        return sum(entry.transitions for entry in self._journal.entries.values())

    def poll(self) -> list[Event]:
        """Look at the child and the folder, start a job if one is due; return what happened."""
        now = time.monotonic()
        if self._child is not None:
            self._watch(self._child, now)
        elif now >= self._next_scan_s:
            self._next_scan_s = now + _SCAN_PERIOD_S
            if self._is_due():
                self._start(now)
        events = list(self._events)
        self._events.clear()
        return events

    def stop(self) -> None:
        """End the child, if one runs; what it had not finished is done again by the next job."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        try:
            child.wait(_EXIT_PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
        self._next_scan_s = 0.0

    def _is_due(self) -> bool:
        # The first job also looks for what a killed one has left; a failed one is tried again.
        if self._is_first or self.failures:
            return True
        pending = len(self._journal.pending(self._config.record_dir))
        enough = self._config.episodes_per_candidate
        return pending > 0 and pending + self._journal.unused() >= enough

    def _start(self, now: float) -> None:
        environment = os.environ | {name: str(self._config.threads) for name in _THREAD_VARIABLES}
        # The module is found wherever this process found it.
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        try:
            child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(self._config.model_dump_json().encode() + b"\n")
            child.stdin.flush()
        except OSError as error:
            self._fail(f"a training process cannot be started: {error}", now)
            return
        os.set_blocking(child.stdout.fileno(), False)
        self._child, self._started_s, self._tail = child, now, b""
        self._events.append(Event("started", f"training process {child.pid}", {"pid": child.pid}))

    def _watch(self, child: subprocess.Popen[bytes], now: float) -> None:
        status = child.poll()
        self._read_events(child)
        if status is None:
            if now - self._started_s > self._timeout_s:
                child.kill()
                child.wait()
                self._end(child)
                self._fail(f"a training job took longer than {self._timeout_s:g} s", now)
            return
        self._end(child)
        if status == 0:
            self.failures, self._is_first = 0, False
            self._next_scan_s = now
            self._events.append(Event("finished", "the training job is done"))
        elif status == BUSY:
            self._next_scan_s = now + _LAST_RETRY_S
        else:
            ended = f"signal {-status}" if status < 0 else f"status {status}"
            self._fail(f"the training process ended with {ended}", now)

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        child.stdout.close()
        self._child = None
        self._journal.load()
        self.refused = sum(e.outcome == "refused" for e in self._journal.entries.values())

    def _fail(self, message: str, now: float) -> None:
        self.failures += 1
        delay = min(_FIRST_RETRY_S * 2 ** (self.failures - 1), _LAST_RETRY_S)
        self._next_scan_s = now + delay
        self._events.append(
            Event("crashed", f"{message}; tried again in {delay:g} s", {"retry_s": delay})
        )

    def _read_events(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        while True:
            try:
                data = os.read(child.stdout.fileno(), 65536)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._tail = (self._tail + data).split(b"\n")
            for line in lines:
                try:
                    values = json.loads(line)
                    event = Event(values.pop("kind"), values.pop("message"), values)
                except (ValueError, KeyError, AttributeError, TypeError):
                    event = Event("crashed", f"not an event: {line[:200]!r}")
                self._events.append(event)
