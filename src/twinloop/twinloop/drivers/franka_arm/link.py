# SPDX-License-Identifier: Apache-2.0
"""Between a driver and the process that it runs: newest values in shared memory, words on a socket.

Nothing here waits, so neither side can hold the other up. Words are JSON with arrays beside it;
nothing is unpickled.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STATE = np.dtype(
    [
        ("steady_s", "f8"),  # when it came
        ("robot_s", "f8"),  # the controller's own time
        ("phase", "i8"),
        ("cycles", "i8"),
        ("missed", "i8"),  # cycles of the controller that were not answered
        ("success_rate", "f8"),
        ("period_ms", "f8"),
        ("longest_ms", "f8"),
        *((name, "f8", 7) for name in ("q", "dq", "tau", "q_d", "dq_d")),
    ]
)
TARGET = np.dtype([("steady_s", "f8"), ("mode", "i8"), ("position", "f8", 7)])

_HEADER = struct.Struct("<II")  # bytes of JSON, bytes of arrays
_TRIES = 200
_LONGEST = 1 << 24


class Mailbox:
    """The newest record that one process wrote, for another one.

    Args:
        memory: shared; `size` bytes from `at` on are the mailbox's.
        kind: of the record.
    """

    def __init__(self, memory: mmap.mmap, at: int, kind: np.dtype[Any]) -> None:
        self._count = np.ndarray((1,), np.int64, memory, at)
        self._shared = np.ndarray((), kind, memory, at + 8)
        self._kept = np.zeros((), kind)
        self._seen = 0

    @staticmethod
    def size(kind: np.dtype[Any]) -> int:
        return 8 + kind.itemsize

    def write(self, record: NDArray[Any]) -> None:
        """Put a record in; only one process may."""
        self._count[0] += 1
        self._shared[()] = record
        self._count[0] += 1

    def read(self) -> tuple[NDArray[Any], bool]:
        """Return the newest whole record, and whether it is another one than last time."""
        for _ in range(_TRIES):
            before = int(self._count[0])
            if before == self._seen:
                return self._kept, False
            if before % 2:
                continue
            taken = self._shared.copy()
            if int(self._count[0]) == before:
                self._kept, self._seen = taken, before
                return taken, True
        return self._kept, False


class Memory:
    """Shared memory with both mailboxes; it has no name and goes with its last user."""

    def __init__(self, descriptor: int | None = None) -> None:
        size = Mailbox.size(STATE) + Mailbox.size(TARGET)
        if descriptor is None:
            descriptor = os.memfd_create("arm", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        memory = mmap.mmap(descriptor, size)
        self.state = Mailbox(memory, 0, STATE)
        self.target = Mailbox(memory, Mailbox.size(STATE), TARGET)

    def close(self) -> None:
        os.close(self.descriptor)


class LinkLost(ConnectionError):
    """The process at the other end has ended."""


class Words:
    """Sends and takes messages without waiting.

    Args:
        end: of a pair of stream sockets.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end
        self._heard = bytearray()
        self._unsent = bytearray()

    def say(self, word: dict[str, Any], arrays: Array | None = None) -> None:
        """Send a message; what does not go out at once goes with the next `hear`."""
        text = json.dumps(word).encode()
        data = b"" if arrays is None else np.ascontiguousarray(arrays, "<f8").tobytes()
        self._unsent += _HEADER.pack(len(text), len(data)) + text + data
        self._flush()

    def hear(self) -> tuple[dict[str, Any], Array] | None:
        """Return the next message with its array, flat; None where there is none yet.

        Raises:
            LinkLost: there will be none any more.
        """
        self._flush()
        message = self._next()
        if message is not None:
            return message
        try:
            data = self.end.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkLost(str(error)) from error
        if not data:
            raise LinkLost("the other side has ended")
        self._heard += data
        return self._next()

    def close(self) -> None:
        self.end.close()

    def _next(self) -> tuple[dict[str, Any], Array] | None:
        if len(self._heard) < _HEADER.size:
            return None
        text, data = _HEADER.unpack_from(self._heard)
        if text + data > _LONGEST:
            raise LinkLost(f"a message of {text + data} bytes")
        end = _HEADER.size + text + data
        if len(self._heard) < end:
            return None
        word = json.loads(self._heard[_HEADER.size : _HEADER.size + text])
        array = np.frombuffer(bytes(self._heard[_HEADER.size + text : end]), "<f8")
        del self._heard[:end]
        return word, array

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self.end.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                return  # `hear` tells
            del self._unsent[:sent]
