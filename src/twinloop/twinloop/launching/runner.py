# SPDX-License-Identifier: Apache-2.0
"""Runs a launch description to its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import yaml

from twinloop.launching.description import (
    LaunchDescription,
    LogMessage,
    ParameterSet,
    ProcessSpec,
    Step,
)
from twinloop.launching.process import LaunchLine, Process, describe_exit


@dataclass(frozen=True)
class LaunchResult:
    """How a launch ended."""

    exit_code: int
    """0, or 1 if a process failed for good before the launch was told to stop."""
    reason: str
    failures: tuple[str, ...]
    """One line for each process that failed for good."""
    stopping_s: float
    """From the order to stop to the end of the last process; 0 where all ended by themselves."""


class LaunchRunner:
    """Runs the processes of a launch description.

    Args:
        description: what to run.
        on_line: receives every line of output, in the thread of `run`; prints what belongs on the
            screen by default. If it raises, everything is stopped and `run` raises the same.
        log_path: file to which every line is added; None for no file.
        handles_signals: stop on Ctrl-C, SIGTERM and SIGHUP; by default if `run` is called in the
            main thread.
    """

    def __init__(
        self,
        description: LaunchDescription,
        on_line: Callable[[LaunchLine], None] | None = None,
        log_path: Path | None = None,
        handles_signals: bool | None = None,
    ) -> None:
        self.description = description
        self.processes: dict[str, Process] = {}
        """Those started so far, by label."""
        self._on_line = print_line if on_line is None else on_line
        self._log_path = log_path
        self._handles_signals = handles_signals
        self._log: TextIO | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._stopping = asyncio.Event()
        self._stopped_at = 0.0
        self._reason = "every process has ended"
        self._failures: dict[str, str] = {}
        self._error: Exception | None = None

    def run(self) -> LaunchResult:
        """Run until every process has ended, one that ends the launch has, or `stop` is called.

        When it returns, nothing that it started is left.
        """
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="twinloop_launch_"))
            if self._log_path is not None:
                self._log = stack.enter_context(open(self._log_path, "a", buffering=1))
            asyncio.run(self._run(Path(folder)))
        if self._error is not None:
            raise self._error
        stopping_s = time.monotonic() - self._stopped_at if self._stopping.is_set() else 0.0
        failures = tuple(self._failures.values())
        return LaunchResult(1 if failures else 0, self._reason, failures, stopping_s)

    def stop(self, reason: str = "asked to stop") -> None:
        """Shut everything down. May be called from any thread, and before `run`.

        Each further call has the processes that are left escalated at once.
        """
        with self._lock:
            if self._loop is None:
                self._begin_stop(reason)
            else:
                self._loop.call_soon_threadsafe(self._begin_stop, reason)

    async def _run(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            self._loop = loop
        handles_signals = self._handles_signals
        if handles_signals is None:
            handles_signals = threading.current_thread() is threading.main_thread()
        if handles_signals:
            # The last one comes when a terminal is closed.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._begin_stop, f"stopped by {number.name}")
        run_id = uuid.uuid4().hex
        tasks = [
            asyncio.create_task(self._run_step(step, folder, run_id))
            for step in self.description.steps
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with self._lock:
                self._loop = None

    async def _run_step(self, step: Step, folder: Path, run_id: str) -> None:
        if step.delay_s > 0.0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), step.delay_s)
        if self._stopping.is_set():
            return
        if isinstance(step.action, LogMessage):
            self._emit(LaunchLine("launch", "info", f"[launch.user]: {step.action.text}", True))
            return
        spec = step.action
        command = write_parameter_files(spec, folder)
        process = Process(spec, command, f"{run_id}:{spec.label}", self._emit, self._on_exit)
        self.processes[spec.label] = process
        await process.run()

    def _on_exit(self, process: Process, exit_code: int, respawns: bool) -> None:
        label = process.spec.label
        if exit_code != 0 and not respawns:
            self._failures[label] = f"{label} failed: {describe_exit(exit_code)}"
        if process.spec.ends_launch:
            self._begin_stop(self._failures.get(label, f"{label} has finished"))

    def _begin_stop(self, reason: str) -> None:
        if self._stopping.is_set():
            for process in self.processes.values():
                process.hurry()
            return
        self._reason = reason
        self._stopped_at = time.monotonic()
        self._stopping.set()
        self._emit(LaunchLine("launch", "info", f"[launch]: {reason}, shutting down", True))
        for process in self.processes.values():
            process.shut_down()

    def _emit(self, line: LaunchLine) -> None:
        if self._log is not None:
            self._log.write(f"{time.time():.6f} {format_line(line)}\n")
        if self._error is not None:
            return
        try:
            self._on_line(line)
        except Exception as error:
            self._error = error
            if not self._stopping.is_set():
                self._begin_stop(f"its output cannot be shown: {error}")


def write_parameter_files(spec: ProcessSpec, folder: Path) -> list[str]:
    """Return the command of a process, its sets of parameters written to files in a folder."""
    command = []
    for index, word in enumerate(spec.command):
        if isinstance(word, ParameterSet):
            path = folder / f"{spec.label.replace('/', '_')}.{index}.yaml"
            path.write_text(yaml.safe_dump({word.node: {"ros__parameters": word.values}}))
            command.append(str(path))
        else:
            command.append(word)
    return command


def format_line(line: LaunchLine) -> str:
    """Return a line with its source before it, as ROS 2's launch shows it."""
    if line.source == "launch":
        return f"[{line.stream.upper()}] {line.text}"
    return f"[{line.source}] {line.text}"


def print_line(line: LaunchLine) -> None:
    """Print a line if it belongs on the screen."""
    if line.is_on_screen:
        print(format_line(line), flush=True)
