# SPDX-License-Identifier: Apache-2.0
"""A recorder and a synthetic cell as processes in a domain of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger
from twinloop.nodes import qos

CELL = Path(__file__).with_name("synthetic_cell.py")


class Processes:
    """Starts processes in one ROS domain and ends them all.

    Args:
        domain: ROS domain; below 101, whose ports ordinary programs use.
    """

    def __init__(self, domain: int) -> None:
        self.domain = domain
        self._environment = os.environ | {
            "ROS_DOMAIN_ID": str(domain),
            "OMP_NUM_THREADS": "1",
        }
        self._running: list[subprocess.Popen[str]] = []
        # A file never fills up, as a pipe does that nobody reads, which would hang the process.
        self._files = contextlib.ExitStack()
        self._said: dict[int, IO[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._files.close()

    def recorder(
        self, record_dir: Path, before: Callable[[], None] | None = None, **parameters: object
    ) -> subprocess.Popen[str]:
        """Start a recorder; `before` runs in its process first."""
        given = {"record_dir": record_dir, "source": "synthetic"} | parameters
        return self.node("twinloop.nodes.recorder", before, **given)

    def node(
        self, module: str, before: Callable[[], None] | None = None, **parameters: object
    ) -> subprocess.Popen[str]:
        """Start the `main` of a node's module with ROS parameters."""
        command = [sys.executable, "-c", f"from {module} import main; main()", "--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        return self._start(command, before)

    def cell(self, episodes: int, steps: int, subscribers: int = 2) -> subprocess.Popen[str]:
        return self._start([sys.executable, str(CELL), str(episodes), str(steps), str(subscribers)])

    def said(self, process: subprocess.Popen[str]) -> str:
        """Return what a process has written to stderr."""
        words = self._said[process.pid]
        words.seek(0)
        return words.read()

    def _start(
        self, command: list[str], before: Callable[[], None] | None = None
    ) -> subprocess.Popen[str]:
        words = self._files.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env=self._environment,
            preexec_fn=before,
        )
        self._running.append(process)
        self._said[process.pid] = words
        return process


class Observer:
    """Keeps what nodes of a domain say of themselves."""

    def __init__(self, domain: int) -> None:
        self.statuses: dict[str, DiagnosticStatus] = {}
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("observer", context=self._context)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._take, qos.DIAGNOSTICS)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._is_over = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _take(self, array: DiagnosticArray) -> None:
        self.statuses |= {status.name: status for status in array.status}

    def _spin(self) -> None:
        while not self._is_over:
            self._executor.spin_once(timeout_sec=0.1)

    def call(self, service: str, timeout_s: float = 60.0) -> Trigger.Response:
        """Call a service of a node, and wait for its answer."""
        client = self.node.create_client(Trigger, service)
        assert client.wait_for_service(timeout_s), f"nobody serves {service}"
        future = client.call_async(Trigger.Request())
        wait_until(future.done, timeout_s)
        return future.result()

    def values(self, name: str) -> dict[str, str]:
        status = self.statuses.get(name)
        return {value.key: value.value for value in status.values} if status else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing is taken from under a thread that still waits for it.
        self._is_over = True
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def wait_for_line(process: subprocess.Popen[str], start: str) -> str:
    """Return the next line of a process that starts so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"the process ended without a line {start!r}")


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def interrupt(process: subprocess.Popen[str]) -> int:
    """End a node as Ctrl-C does; returns its exit code."""
    process.send_signal(signal.SIGINT)
    return process.wait(timeout=120)
