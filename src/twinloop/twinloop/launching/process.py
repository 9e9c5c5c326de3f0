# SPDX-License-Identifier: Apache-2.0
"""Runs one process of a launch: output, respawning, shutting down with all its children."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twinloop.launching import process_tree
from twinloop.launching.description import ProcessSpec

_POLL_S = 0.05
# What a process that ended by itself left behind gets this long after SIGTERM.
_ORPHAN_GRACE_S = 1.0
_LONGEST_LINE = 64 * 1024
_NOT_STARTED = 127


@dataclass(frozen=True)
class LaunchLine:
    """One line of output."""

    source: str
    """Label of the process, or `launch` for the launcher's own words."""
    stream: str
    """`stdout`, `stderr`, or `info` or `error` for the launcher's own words."""
    text: str
    is_on_screen: bool
    """Whether the launch file wants it shown; all lines go to the log file."""


class Process:
    """A launched process and its respawned successors.

    Args:
        spec: what to run.
        command: its command line, parameter files included.
        mark: value that marks this process and its children; unique on this machine.
        on_line: receives every line of output.
        on_exit: receives this object, the exit code and whether it will be respawned, after each
            exit that no shutdown asked for.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        command: Sequence[str],
        mark: str,
        on_line: Callable[[LaunchLine], None],
        on_exit: Callable[[Process, int, bool], None],
    ) -> None:
        self.spec = spec
        self.mark = mark
        self.pid: int | None = None
        """Of the running process; None before the first start and after an exit."""
        self.exit_code: int | None = None
        """Of the last exit; negative for a signal."""
        self.respawns = 0
        self.was_killed = False
        """A shutdown had to use SIGKILL."""
        self._command = list(command)
        if spec.is_shell_command:
            self._command = ["/bin/sh", "-c", " ".join(command)]
        self._on_line = on_line
        self._on_exit = on_exit
        self._shutdown = asyncio.Event()
        self._hurried = asyncio.Event()

    def shut_down(self) -> None:
        """Interrupt the process; escalate until it and its children are gone."""
        self._shutdown.set()

    def hurry(self) -> None:
        """Escalate a shutdown at once to its next stage."""
        self._hurried.set()

    async def run(self) -> None:
        """Run, and respawn as the specification says, until it is over or shut down."""
        while not self._shutdown.is_set():
            self.exit_code = await self._run_once()
            if self._shutdown.is_set():
                return
            respawns = self._may_respawn()
            self._on_exit(self, self.exit_code, respawns)
            if not respawns:
                return
            self.respawns += 1
            delay_s = self.spec.respawn_delay_s
            self._say("info", f"respawning in {delay_s:g} s ({self._tries()})")
            await _set_within(self._shutdown, delay_s)

    def _may_respawn(self) -> bool:
        if not self.spec.respawn or self.spec.ends_launch:
            return False
        most = self.spec.respawn_max_retries
        if 0 <= most <= self.respawns:
            self._say("error", f"gave up: respawned {self.respawns} times already")
            return False
        return True

    def _tries(self) -> str:
        most = self.spec.respawn_max_retries
        return f"{self.respawns} of {most}" if most >= 0 else str(self.respawns)

    async def _run_once(self) -> int:
        try:
            popen = subprocess.Popen(
                [*_bound_to_launcher(), *self._command],
                cwd=self.spec.cwd,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            self._say("error", f"cannot be started: {error}")
            return _NOT_STARTED
        self.pid = popen.pid
        self._say("info", f"process started with pid [{popen.pid}]")
        assert popen.stdout is not None
        assert popen.stderr is not None
        readers = [
            _LineReader(popen.stdout.fileno(), lambda text: self._output("stdout", text)),
            _LineReader(popen.stderr.fileno(), lambda text: self._output("stderr", text)),
        ]
        try:
            await self._wait(popen.pid)
        finally:
            for reader in readers:
                reader.close()
            popen.stdout.close()
            popen.stderr.close()
            # Reaped only now: until here no other process can take over the pid and its group.
            exit_code = popen.wait()
            self.pid = None
        if not self._shutdown.is_set() and exit_code != 0:
            self._say("error", f"process has died [pid {popen.pid}, {describe_exit(exit_code)}]")
        else:
            self._say("info", f"process has finished [pid {popen.pid}]")
        return exit_code

    def _environment(self) -> dict[str, str]:
        # Lines are to arrive when they are written, not when Python's buffer is full.
        return {"PYTHONUNBUFFERED": "1", **self.spec.environment, process_tree.MARK: self.mark}

    async def _wait(self, pid: int) -> None:
        """Return when the process has exited and none of its children are left."""
        loop = asyncio.get_running_loop()
        exited = asyncio.Event()
        descriptor = os.pidfd_open(pid)

        def on_exit() -> None:
            loop.remove_reader(descriptor)
            exited.set()

        loop.add_reader(descriptor, on_exit)
        waits = [asyncio.create_task(event.wait()) for event in (exited, self._shutdown)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._shutdown.is_set():
                await self._stop(pid, exited)
            else:
                await self._clear_orphans(pid)
        except BaseException:
            process_tree.send(process_tree.members(pid, self.mark), signal.SIGKILL)
            raise
        finally:
            for wait in waits:
                wait.cancel()
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _stop(self, pid: int, exited: asyncio.Event) -> None:
        stages = (
            (signal.SIGINT, self.spec.sigterm_after_s),
            (signal.SIGTERM, self.spec.sigkill_after_s),
            (signal.SIGKILL, float("inf")),
        )
        for sent, patience_s in stages:
            if sent is not signal.SIGINT:
                self._say("error", f"still running, sending {sent.name}")
            self.was_killed |= sent is signal.SIGKILL
            process_tree.send(process_tree.members(pid, self.mark), sent)
            if await self._gone_within(pid, exited, patience_s):
                return

    async def _gone_within(self, pid: int, exited: asyncio.Event, patience_s: float) -> bool:
        clock = asyncio.get_running_loop().time
        deadline = clock() + patience_s
        while clock() < deadline and not self._hurried.is_set():
            if not exited.is_set():
                await _set_within(exited, _POLL_S)
                continue
            left = process_tree.members(pid, self.mark)
            if not left:
                return True
            if self.was_killed:
                # Something was started between the search and the signal.
                process_tree.send(left, signal.SIGKILL)
            await asyncio.sleep(_POLL_S)
        self._hurried.clear()
        return False

    async def _clear_orphans(self, pid: int) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ORPHAN_GRACE_S
        sent = signal.SIGTERM
        while left := process_tree.members(pid, self.mark):
            self._say("info", f"ending {len(left)} process(es) that it left behind")
            process_tree.send(left, sent)
            while loop.time() < deadline and process_tree.members(pid, self.mark):
                await asyncio.sleep(_POLL_S)
            sent = signal.SIGKILL

    def _output(self, stream: str, text: str) -> None:
        is_on_screen = self.spec.output in ("screen", "both", "full") or (
            self.spec.output == "log" and stream == "stderr"
        )
        self._on_line(LaunchLine(self.spec.label, stream, text, is_on_screen))

    def _say(self, level: str, text: str) -> None:
        self._on_line(LaunchLine("launch", level, f"[{self.spec.label}]: {text}", True))


class _LineReader:
    """Passes on what a pipe gives, line by line."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._rest = b""
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def close(self) -> None:
        """Pass on what is left and stop reading."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        while self._read():
            pass
        if self._rest:
            self._pass(self._rest)
            self._rest = b""

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._pass(line)
        if len(self._rest) > _LONGEST_LINE:
            self._pass(self._rest)
            self._rest = b""
        return True

    def _pass(self, line: bytes) -> None:
        self._on_line(line.decode(errors="replace").rstrip("\r"))


@functools.cache
def _bound_to_launcher() -> tuple[str, ...]:
    """Return a prefix under which a process gets SIGTERM should the launcher itself be killed."""
    found = shutil.which("setpriv")
    # A launcher that was gone before the signal was asked for will not send it.
    check = ("sh", "-c", 'test "$PPID" = "$0" && exec "$@"', str(os.getpid()))
    return (found, "--pdeathsig", "TERM", "--", *check) if found else ()


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def describe_exit(exit_code: int) -> str:
    """Return an exit code in words; negative ones stand for signals."""
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
