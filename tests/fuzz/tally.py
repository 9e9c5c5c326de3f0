# SPDX-License-Identifier: Apache-2.0
"""Tries bad inputs and counts what became of them: refused by name, or harmless after all."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings

LONGEST_S = 1.0
# The whole of it, with other inputs each time; else a smaller run, the same each time.
IS_FULL = os.environ.get("FUZZ", "") not in ("", "0")
_FACTOR = 10 if IS_FULL else 1
_TRIES = 3
_SCHEDULED = Path("/proc/thread-self/schedstat")


def examples(number: int) -> settings:
    """Settings of a test that tries `number` inputs, ten times as many in a full run."""
    return settings(
        max_examples=number * _FACTOR,
        derandomize=not IS_FULL,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class Tally:
    """Counts by kind of input."""

    refused: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)

    def read(
        self,
        kind: str,
        call: Callable[[], object],
        errors: tuple[type[Exception], ...],
        named: tuple[str, ...] = (),
    ) -> Exception | None:
        """Try a reader; returns how it refused.

        Any other error than these ends the test, and so does a refusal that does not say each of
        `named`, or one that takes longer than a second.
        """

        def reason() -> str | Exception:
            try:
                call()
            except errors as error:
                return error
            return ""

        found = self._timed(kind, reason)
        self._count(kind, str(found), named)
        return found if isinstance(found, Exception) else None

    def ask(self, kind: str, call: Callable[[], str], named: tuple[str, ...] = ()) -> str:
        """Try what answers by a sentence: why it refused, empty where it did not."""
        found = self._timed(kind, call)
        self._count(kind, found, named)
        return found

    def _count(self, kind: str, reason: str, named: tuple[str, ...]) -> None:
        if not reason:
            self.harmless[kind] += 1
            return
        self.refused[kind] += 1
        missing = [word for word in named if word not in reason]
        assert not missing, f"the refusal does not name {missing}: {reason}"

    def _timed(self, kind: str, call: Callable[[], Any]) -> Any:
        # A busy machine may stand still meanwhile; what hangs does so each time.
        took_s = float("inf")
        for _ in range(_TRIES):
            begun_s = _own_time_s()
            found = call()
            took_s = min(took_s, _own_time_s() - begun_s)
            if took_s <= LONGEST_S:
                break
        self.slowest[kind] = max(self.slowest.get(kind, 0.0), took_s)
        assert took_s <= LONGEST_S, f"{kind}: one input took {took_s:.1f} s"
        return found

    def table(self) -> str:
        """What was counted, a line for each kind, and the sum."""
        kinds = sorted({*self.refused, *self.harmless})
        lines = [f"{'bad input':32s} {'refused':>8s} {'harmless':>8s} {'slowest':>9s}"]
        lines += [
            f"{kind:32s} {self.refused[kind]:8d} {self.harmless[kind]:8d} "
            f"{1e3 * self.slowest[kind]:6.0f} ms"
            for kind in kinds
        ]
        total = f"{self.refused.total():8d} {self.harmless.total():8d}"
        slowest_s = max(self.slowest.values(), default=0.0)
        return "\n".join([*lines, f"{'total':32s} {total} {1e3 * slowest_s:6.0f} ms"])


def _own_time_s() -> float:
    """Steady time without what this thread had to wait for a processor that others had, s."""
    try:
        waited_ns = int(_SCHEDULED.read_text().split()[1])
    except (OSError, IndexError):
        waited_ns = 0
    return time.monotonic() - 1e-9 * waited_ns


TALLY = Tally()
