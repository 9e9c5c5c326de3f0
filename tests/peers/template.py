# SPDX-License-Identifier: Apache-2.0
"""The device that the template driver speaks to; a peer to copy."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Self

import numpy as np
from twinloop.robots.dclaw import DCLAW

ROBOT = DCLAW


class PlainJoints:
    """Joints that go where they are told, in a thread."""

    def __init__(self) -> None:
        self.position = DCLAW.poses["raised"].copy()
        self.goal = self.position.copy()
        self.faults = np.zeros(9, np.uint8)
        self.is_powered = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What a hardware file would say of it, patient enough for a busy machine."""
        given = {"driver": "template", "address": "127.0.0.1", "port": self._port}
        return {**given, "answer_timeout_s": 0.25} | changes

    def unplug(self) -> None:
        """Be gone, at once and for good."""
        with contextlib.suppress(OSError):  # not connected; it wakes the thread all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.unplug()

    def _serve(self) -> None:
        while True:
            try:
                request, sender = self._socket.recvfrom(4096)
            except OSError:
                return
            if not request:
                return
            what, data = request[:1], request[1:]
            if what == b"G":
                self.goal = np.frombuffer(data, "<f8").copy()
                continue
            if what == b"C":
                self.faults[:] = 0
            elif what in b"PS":
                self.is_powered = what == b"P"
            if self.is_powered:
                self.position = self.goal.copy()
            answer = self.faults.tobytes()
            if what == b"R":
                answer += np.concatenate([self.position, np.zeros(9)]).tobytes()
            self._socket.sendto(answer, sender)


PEER = PlainJoints
