# SPDX-License-Identifier: Apache-2.0
"""The live plots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from twinloop.web.state import CellState, ModelRow

_KEPT, _ACCENT, _FAINT = "#2f6f9f", "#e26a2c", "#9aa7b0"
Curves = tuple[NDArray[np.float64], ...]


class Plots:
    """Plots of the last steps, and of what was learned.

    Args:
        server: on whose page they are.
    """

    def __init__(self, server: viser.ViserServer) -> None:
        gui = server.gui
        self._plots: list[tuple[Any, Callable[[CellState], Curves]]] = []
        for title, labels, names in (
            ("Progress of the balls [deg, or mm to a place]", ("progress",), ("rotation",)),
            ("Cost of the best rollout", ("cost",), ("cost",)),
            ("Time [ms]", ("plan", "lateness"), ("plan_ms", "lateness_ms")),
            ("Prediction error, one step [mm]", ("error",), ("prediction_mm",)),
            ("Disagreement of the ensemble", ("disagreement",), ("disagreement",)),
        ):
            plot = _plot(gui, title, "time [s]", labels)
            self._plots.append((plot, partial(_steps, names)))
        plot = _plot(
            gui, "Learning: error on held-out episodes [mm]", "transitions", ("1 step", "7 steps"),
            dots=True,
        )  # fmt: skip
        self._plots.append((plot, _learning))
        self._versions = gui.add_markdown("")
        self._said = ""

    def update(self, state: CellState) -> None:
        """Draw the figures anew."""
        for plot, curves in self._plots:
            data = curves(state)
            if len(data[0]) > 1:
                plot.data = data
        said = _versions(state)
        if said != self._said:
            self._said = self._versions.content = said


def _plot(gui: Any, title: str, below: str, labels: tuple[str, ...], dots: bool = False) -> Any:
    empty = np.zeros(2)
    shades = (_KEPT, _ACCENT)
    series = [
        {"label": label, "stroke": shade, "width": 1.5, "points": {"show": dots}}
        for label, shade in zip(labels, shades, strict=False)
    ]
    return gui.add_uplot(
        data=(np.array([0.0, 1.0]), *[empty for _ in labels]),
        series=({"label": below}, *series),
        title=title,
        scales={"x": {"time": False}},
        axes=({"stroke": _FAINT}, {"stroke": _FAINT, "size": 55}),
        aspect=2.4,
    )


def _steps(names: tuple[str, ...], state: CellState) -> Curves:
    series = state.series
    time_s = np.array(series.time_s)
    if len(time_s):
        time_s = time_s - time_s[-1]
    return (time_s, *(np.array(getattr(series, name)) for name in names))


def _judged(state: CellState) -> list[ModelRow]:
    rows = [row for row in state.models.values() if np.isfinite(row.one_step_mm)]
    return sorted(rows, key=lambda row: (row.transitions, row.version))


def _learning(state: CellState) -> Curves:
    rows = _judged(state)
    # uplot wants x to grow.
    x = np.array([row.transitions + 1e-3 * place for place, row in enumerate(rows)])
    return (
        x,
        np.array([row.one_step_mm for row in rows]),
        np.array([row.seven_step_mm for row in rows]),
    )


def _versions(state: CellState) -> str:
    parts = [f"{row.version} {row.status} at {row.transitions}" for row in _judged(state)]
    return "Model versions, by transitions learned from: " + (", ".join(parts) or "none judged yet")
