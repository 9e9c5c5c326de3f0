# SPDX-License-Identifier: Apache-2.0
"""A process beside a driver, seen from the driver: started, asked, and ended."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.drivers.faults import DeviceLost, DriverFault
from twinloop.drivers.franka_arm.link import LinkLost, Memory, Words

Array = NDArray[np.float64]
_LOOK_S = 0.0005


class Refused(DriverFault):
    """The process did not do what it was asked.

    Args:
        text: why not.
        answer: its whole answer.
    """

    def __init__(self, text: str, answer: dict[str, Any]) -> None:
        super().__init__(text)
        self.answer = answer


class Partner:
    """Runs a module as a process with shared memory and a socket.

    May be used from several threads.

    Args:
        module: whose `main` takes the memory's and the socket's number.
        settings: its first word.
        on_event: called with each word of the process that answers nothing.
    """

    def __init__(
        self, module: str, settings: dict[str, Any], on_event: Callable[[dict[str, Any]], None]
    ) -> None:
        self.memory = Memory()
        self._on_event = on_event
        self._lock = threading.RLock()
        self._order = 0
        self._answers: dict[int, dict[str, Any]] = {}
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = (self.memory.descriptor, theirs.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                pass_fds=numbers,
            )
        self._words = Words(ours)
        self._words.say(settings)

    def listen(self) -> None:
        """Take what the process said.

        Raises:
            DeviceLost: it has ended.
        """
        with self._lock:
            try:
                while (message := self._words.hear()) is not None:
                    word = message[0]
                    if "answer" in word:
                        self._answers[int(word["answer"])] = word
                    else:
                        self._on_event(word)
            except LinkLost as error:
                raise DeviceLost(f"its process has ended: {error}") from error

    def tell(self, what: str, order: int, **more: Any) -> None:
        """Have the process do something, and do not wait for it."""
        with self._lock:
            self._words.say({"order": order, "do": what} | more)

    def ask(self, what: str, patience_s: float, arrays: Array | None = None, **more: Any) -> str:
        """Have the process do something; returns what it said.

        Raises:
            Refused: it did not.
            DeviceLost: it has ended, or does not answer.
        """
        with self._lock:
            self._order += 1
            order = self._order
            self._words.say({"order": order, "do": what} | more, arrays)
        end_s = time.monotonic() + patience_s
        while True:
            with self._lock:
                answer = self._answers.pop(order, None)
                if answer is None:
                    self.listen()
                    answer = self._answers.pop(order, None)
            if answer is not None:
                if "error" in answer:
                    raise Refused(str(answer["error"]), answer)
                return str(answer["text"])
            if time.monotonic() > end_s:
                raise DeviceLost(f"no answer to {what!r} within {patience_s:g} s")
            time.sleep(_LOOK_S)

    def end(self, patience_s: float) -> None:
        """Have it bring its device to rest and end; one that does not is killed."""
        with self._lock:
            self._words.say({"order": 0, "do": "end"})
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with self._lock:
            self._words.close()
            self.memory.close()
