# SPDX-License-Identifier: Apache-2.0
"""How far long work has come, with rate and remaining time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_LINE_EVERY_S = 5.0


class WorkProgress:
    """A bar on a terminal, elsewhere a plain line every few seconds; a context manager.

    Args:
        console: where to show it.
        total: of what `update` counts.
        unit: in the plural, such as `steps`.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._total = total
        self._unit = unit
        self._clock = clock
        self._began_s = self._said_s = clock()
        self._note = ""
        self._found = 0
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                BarColumn(24),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[line]}", markup=False),
            )
            self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=4)
            self._task = self._bar.add_task("", total=total, line="")

    def __enter__(self) -> WorkProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def find(self, done: int) -> None:
        """Say how much was done before: it counts as done, and says nothing about the rate."""
        self._found = done

    def update(self, done: int, note: str | None = None) -> None:
        """Count what is done; the note stays until another one comes."""
        self._note = self._note if note is None else note
        now_s = self._clock()
        line = self._line(done, now_s - self._began_s)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, line=line)
        elif now_s - self._said_s >= _LINE_EVERY_S:
            self._said_s = now_s
            self.say(line)

    def _line(self, done: int, elapsed_s: float) -> str:
        words = [f"{done}/{self._total} {self._unit}"]
        rate = (done - self._found) / elapsed_s if elapsed_s > 0.0 else 0.0
        if rate > 0.0:
            words.append(f"{rate:.0f}/s" if rate >= 10.0 else f"{60.0 * rate:.0f}/min")
            words.append(f"ETA {duration(max(self._total - done, 0) / rate)}")
        return ", ".join([*words, self._note] if self._note else words)


def duration(seconds: float) -> str:
    """Return a time as `h:mm:ss` or `m:ss`."""
    whole = math.ceil(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"
