# SPDX-License-Identifier: Apache-2.0
"""A Franka arm for tests: starts the simulated controller and tells it what goes wrong.

Each has an address of its own on the loopback, because the port is fixed by the protocol.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from twinloop.robots.panda import PANDA

ROBOT = PANDA
PORT = 1337
PYTHON = Path(__file__).resolve().parents[2] / "build" / "peers" / "franka" / "bin" / "python"
_IS_OFFERED = (sys.platform, platform.machine()) == ("linux", "x86_64")
SKIP = "" if _IS_OFFERED else "neither pylibfranka nor its simulator is made for this machine"
_PATIENCE_S = 60.0


def free_address() -> str:
    """Return an address of the loopback on which nobody has the controller's port."""
    while True:
        address = "127." + ".".join(str(random.randint(2, 250)) for _ in range(3))
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind((address, PORT))
            return address


class Controller:
    """A simulated controller in a process of its own."""

    def __init__(self) -> None:
        assert PYTHON.exists(), f"{PYTHON} is missing: run `make peers` first"
        self.address = free_address()
        self.process = subprocess.Popen(
            [str(PYTHON), str(Path(__file__).with_name("franka_controller.py")), self.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        assert json.loads(self._line()) == "up"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What a hardware file would say of it, patient enough for a busy machine."""
        return {"driver": "franka", "address": self.address, "watchdog_s": 5.0} | changes

    def do(self, order: str, **arguments: Any) -> Any:
        """Have the controller do something; see the methods `on_…` of its own."""
        assert self.process.stdin is not None
        print(json.dumps({"do": order} | arguments), file=self.process.stdin, flush=True)
        return json.loads(self._line())

    def freeze(self, is_frozen: bool) -> None:
        """Let it be silent, or go on."""
        self.process.send_signal(signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def unplug(self) -> None:
        """Be gone, at once and for good."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _PATIENCE_S)
        assert ready, "the simulated controller does not answer"
        line = self.process.stdout.readline()
        assert line, "the simulated controller has ended"
        return line


PEER = Controller
