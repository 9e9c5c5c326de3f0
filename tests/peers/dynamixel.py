# SPDX-License-Identifier: Apache-2.0
"""A Dynamixel bus for tests: starts the servos' process and tells it what goes wrong."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from twinloop.robots.leap import LEAP

ROBOT = LEAP
XC330 = 1240
_PATIENCE_S = 30.0


class Servos:
    """Servos in a process of their own.

    Args:
        ids: of the servos.
        model: model number.
        baud_rate: that they are set to.
        start: where all stand, ticks.
    """

    def __init__(
        self,
        ids: tuple[int, ...] = tuple(range(16)),
        model: int = XC330,
        baud_rate: int = 4_000_000,
        start: int = 2200,
    ) -> None:
        self._folder = tempfile.mkdtemp(prefix="servos")
        self.port = os.path.join(self._folder, "port")
        arguments = json.dumps([self.port, list(ids), model, baud_rate, start])
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("dynamixel_servos.py")), arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert json.loads(self._line()) == self.port

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What a hardware file would say of them, patient enough for a busy machine."""
        return {"driver": "dynamixel", "port": self.port, "answer_timeout_s": 0.25} | changes

    def do(self, order: str, **arguments: Any) -> Any:
        """Have the servos do something; see the methods `on_…` of their bus."""
        assert self.process.stdin is not None
        print(json.dumps({"do": order} | arguments), file=self.process.stdin, flush=True)
        return json.loads(self._line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()
        shutil.rmtree(self._folder)

    # What the test of all drivers asks of every peer.

    def unplug(self) -> None:
        self.do("unplug")

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _PATIENCE_S)
        assert ready, f"the servos' process says nothing; it ended with {self.process.poll()}"
        return self.process.stdout.readline()


PEER = Servos
