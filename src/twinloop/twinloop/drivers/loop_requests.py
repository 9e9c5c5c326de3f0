# SPDX-License-Identifier: Apache-2.0
"""What other threads ask of a control loop's thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from twinloop.drivers.faults import DeviceLost, DriverFault


class LoopRequests:
    """Actions that wait for the loop's thread, and their answers."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], str], Future[str]]] = deque()
        self._lock = threading.Lock()

    def ask(
        self, action: Callable[[], str], patience_s: float, why_late: Callable[[], str]
    ) -> tuple[bool, str]:
        """Have the loop's thread do something: whether it is done, and its answer or why not.

        After `patience_s` it goes on by itself, and `why_late` tells what it is at.
        """
        answer: Future[str] = Future()
        with self._lock:
            self._waiting.append((action, answer))
        try:
            return True, answer.result(patience_s)
        except DriverFault as fault:
            return False, str(fault)
        except TimeoutError:
            return False, f"under way, not done within {patience_s:g} s: {why_late()}"

    def serve(self) -> None:
        """Do what waits; the loop's thread calls it.

        Raises:
            DeviceLost: the device is gone.
        """
        while self._waiting:
            with self._lock:
                action, answer = self._waiting.popleft()
            try:
                text = action()
            except DeviceLost as fault:
                answer.set_exception(fault)
                raise
            except DriverFault as fault:
                answer.set_exception(fault)
            else:
                answer.set_result(text)
