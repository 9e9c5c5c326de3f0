# SPDX-License-Identifier: Apache-2.0
"""Tells when the machine itself stood still: a process that only sleeps, and wakes too late.

Run as a script it is that process: it prints the steady time and length of each stall, in s.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Self

NAP_S = 0.002
STALL_S = 0.02


class StallProbe:
    """Keeps one napping process a core and what they tell."""

    def __init__(self, cores: int = 2) -> None:
        self._stalls: list[float] = []
        self._processes = [
            subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
            for _ in range(cores)
        ]
        self._readers = [
            threading.Thread(target=self._read, args=(one,), daemon=True) for one in self._processes
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process, reader in zip(self._processes, self._readers, strict=True):
            process.kill()
            process.wait()
            reader.join()
            assert process.stdout is not None
            process.stdout.close()

    def now(self) -> float:
        """Return the steady time, s."""
        return time.monotonic()

    def stalled_since(self, start_s: float) -> bool:
        """Whether a nap that ended after a time took 20 ms longer than it should."""
        time.sleep(STALL_S + 2 * NAP_S)  # a nap that lasts still is told after it
        return any(at_s >= start_s for at_s in self._stalls)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._stalls.append(float(line))


def main() -> None:
    before_s = time.monotonic()
    while True:
        time.sleep(NAP_S)
        now_s = time.monotonic()
        if now_s - before_s > NAP_S + STALL_S:
            print(now_s, flush=True)
        before_s = now_s


if __name__ == "__main__":
    main()
