# SPDX-License-Identifier: Apache-2.0
"""Shows a running cell: a few lines that change on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from twinloop.reporting.progress import duration

_LINE_EVERY_STEPS = 25
_LINE_EVERY_S = 10.0  # where nothing else is to say
_REFRESH_HZ = 4.0


@dataclass
class CellState:
    """Where a running cell stands, as its topics tell."""

    episodes: int
    steps: int
    """Control steps of a whole episode."""
    index: int = 0
    phase: str = "starting"
    step: int = 0
    rotation_deg: float = 0.0
    model: str = ""
    transitions: int = 0
    promotions: int = 0
    rejections: int = 0
    plan_ms: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    began_s: float | None = None
    """Steady time of the first episode's begin."""

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        done = self.index * self.steps + min(self.step, self.steps)
        return min(done / max(self.episodes * self.steps, 1), 1.0)

    def remaining_s(self, now_s: float) -> float | None:
        """Return the time that is left at the pace so far; None while that says nothing."""
        if self.began_s is None or self.share < 0.01:
            return None
        return (now_s - self.began_s) * (1.0 - self.share) / self.share


class LiveDisplay:
    """Draws a CellState; use it as a context manager. All calls may come from any thread.

    Args:
        console: where to draw; plain lines without control codes where it is no terminal.
        state: what to draw; changed by its owner, drawn by `refresh`.
    """

    def __init__(
        self,
        console: Console,
        state: CellState,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._state = state
        self._clock = clock
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )
        self._drawn_s = -1e9
        self._last_line: tuple[str, int, int] | None = None

    def __enter__(self) -> LiveDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line that stays."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def refresh(self) -> None:
        """Draw the present state, if it is time to."""
        now_s = self._clock()
        if self._live is not None:
            if now_s - self._drawn_s >= 1.0 / _REFRESH_HZ:
                self._drawn_s = now_s
                self._live.update(_panel(self._state, now_s), refresh=True)
            return
        state = self._state
        line = (state.phase, state.index, state.step // _LINE_EVERY_STEPS)
        if line != self._last_line or now_s - self._drawn_s >= _LINE_EVERY_S:
            self._last_line, self._drawn_s = line, now_s
            self._console.print(_line(state, now_s), soft_wrap=True)


def _line(state: CellState, now_s: float) -> Text:
    if state.phase == "starting":
        return Text("starting the nodes ...")
    words = [f"episode {min(state.index + 1, state.episodes)}/{state.episodes}", state.phase]
    if state.phase == "running":
        words += [f"step {state.step}/{state.steps}", f"rotation {state.rotation_deg:.0f} deg"]
        words += [f"plan {state.plan_ms[-1]:.0f} ms"] if state.plan_ms else []
    words += [f"model {state.model or '-'}", f"{state.transitions} transitions"]
    remaining_s = state.remaining_s(now_s)
    words += [f"ETA {duration(remaining_s)}"] if remaining_s is not None else []
    return Text(", ".join(words))


def _panel(state: CellState, now_s: float) -> Table:
    remaining_s = state.remaining_s(now_s)
    top = Table.grid(padding=(0, 2))
    top.add_row(
        Text(f"episode {min(state.index + 1, state.episodes)} of {state.episodes}", style="bold"),
        Text(state.phase),
        ProgressBar(total=1.0, completed=state.share, width=30),
        Text(f"ETA {duration(remaining_s)}" if remaining_s is not None else ""),
    )
    plan = f"{sorted(state.plan_ms)[len(state.plan_ms) // 2]:.0f} ms" if state.plan_ms else "-"
    bottom = Table.grid(padding=(0, 2))
    figures = (
        ("step", f"{state.step}/{state.steps}"),
        ("rotation", f"{state.rotation_deg:.0f}°"),
        ("plan", plan),
        ("model", state.model or "-"),
        ("transitions", str(state.transitions)),
        ("promoted", str(state.promotions)),
        ("rejected", str(state.rejections)),
    )
    bottom.add_row(*(Text(name, style="dim") for name, _ in figures))
    bottom.add_row(*(Text(value) for _, value in figures))
    whole = Table.grid()
    whole.add_row(top)
    whole.add_row(bottom)
    return whole
