# SPDX-License-Identifier: Apache-2.0
"""Tables and lines of text of the page, as HTML. Whatever comes from elsewhere is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from twinloop.web.state import CellState

_SHOWN = 30
_SILENT_S = 1.5
_STYLE = (
    "<style>.tl{font-size:0.78em;border-collapse:collapse;width:100%}"
    ".tl td,.tl th{text-align:left;padding:1px 6px;border-bottom:1px solid #8884;"
    "overflow-wrap:anywhere}"
    ".tl .bad{color:#c0392b;font-weight:600}.tl .warn{color:#b9770e}"
    ".tl-state{font-size:0.9em;padding:0 0.6em}.tl-state b.bad{color:#c0392b}</style>"
)
Cell = str | tuple[str, str]  # text, or text with the class of its looks


def status(state: CellState) -> str:
    """Return the lines that are always in view."""
    episode = state.episode
    number = f"{episode.index + 1}" + (f" of {episode.total}" if episode.total else "")
    stop = {None: "not heard", True: "PRESSED", False: "released"}[state.is_pressed]
    is_stopped = bool(state.is_pressed) or state.guard == "emergency stop"
    parts = [
        f"episode <b>{number}</b>, {escape(episode.phase)}"
        + (f" ({escape(episode.stop_reason)})" if episode.stop_reason else ""),
        f"step {episode.step}/{episode.steps}, goal {escape(episode.goal or '-')}, "
        f"progress {episode.rotation:.0f} {escape(state.unit)}",
        f"model {escape(episode.model or '-')}",
        f"guard <b class='{_bad(state.guard not in ('active', 'holding'))}'>"
        f"{escape(state.guard)}</b> {escape(state.guard_reason)}",
        f"emergency stop <b class='{_bad(is_stopped)}'>{stop}</b>",
    ]
    if state.control:
        parts.append(escape(state.control))
    if state.is_paused:
        parts.append("<b>paused</b>")
    if state.notice:
        parts.append(f"<i>{escape(state.notice)}</i>")
    return f"{_STYLE}<div class='tl-state' data-twinloop='state'>" + "<br>".join(parts) + "</div>"


def health(state: CellState, now_s: float) -> str:
    """Return nodes, topics, faults, disk and memory.

    Args:
        now_s: steady time.
    """
    nodes: list[list[Cell]] = []
    for row in sorted(state.nodes.values(), key=lambda one: one.name):
        silent_s = now_s - row.beat_s
        is_silent = silent_s > _SILENT_S and row.state != "finalized"
        looks = "bad" if row.is_fault or is_silent else "warn" if row.is_warning else ""
        said = f"silent for {silent_s:.0f} s" if is_silent else row.message
        memory = f"{row.rss_mb:.0f} MB" if row.rss_mb else ""
        nodes.append([row.name, (row.state, looks), (said, looks), memory])
    topics: list[list[Cell]] = [
        [
            row.name,
            f"{row.rate_hz:.1f} Hz",
            (_age(row.age_s), "bad" if row.is_stale else ""),
            ("stale" if row.is_stale else "", "bad"),
        ]
        for row in state.topics
    ]
    faults: list[list[Cell]] = [[fault] for fault in reversed(state.faults)]
    free = (
        f"<p class='tl-state'>disk {_number(state.disk_free_gb, 'GB')} free, "
        f"memory {_number(state.memory_free_gb, 'GB')} free</p>"
    )
    return (
        _STYLE
        + _table(("node", "state", "says", "memory"), nodes)
        + _table(("topic", "rate", "age", ""), topics)
        + free
        + _table(("faults, newest first",), faults or [["none"]])
    )


def episodes(state: CellState) -> str:
    """Return the episodes that ended, newest first."""
    rows: list[list[Cell]] = [
        [one.id, one.goal, str(one.steps), f"{one.rotation:.0f}", one.model, one.end]
        for one in reversed(state.episodes[-_SHOWN:])
    ]
    return _STYLE + _table(("episode", "goal", "steps", "progress", "model", "end"), rows)


def models(state: CellState) -> str:
    """Return the model versions, newest first."""
    rows: list[list[Cell]] = []
    for one in sorted(state.models.values(), key=lambda row: row.version, reverse=True)[:_SHOWN]:
        runs = " (runs)" if one.version == state.episode.model else ""
        rows.append(
            [
                one.version + runs,
                one.status,
                str(one.transitions),
                _number(one.one_step_mm, "mm"),
                _number(one.seven_step_mm, "mm"),
                one.reason,
            ]
        )
    head = ("model", "status", "transitions", "1 step", "7 steps", "why")
    return _STYLE + _table(head, rows)


def bags(state: CellState) -> str:
    """Return the bags on disk, newest first."""
    rows: list[list[Cell]] = [
        [
            one.name,
            f"{one.seconds:.1f} s",
            str(one.messages),
            f"{one.megabytes:.1f} MB",
            (one.state, "" if one.state == "complete" else "warn"),
        ]
        for one in reversed(state.bags[-_SHOWN:])
    ]
    return _STYLE + _table(("bag", "length", "messages", "size", ""), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows]
    return f"<table class='tl'>{''.join(lines)}</table>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    text, looks = cell
    return f"<td class='{looks}'>{escape(text)}</td>"


def _bad(is_bad: bool) -> str:
    return "bad" if is_bad else ""


def _age(age_s: float) -> str:
    if not math.isfinite(age_s):
        return "never"
    return f"{1e3 * age_s:.0f} ms" if age_s < 1.0 else f"{age_s:.0f} s"


def _number(value: float, unit: str) -> str:
    return f"{value:.1f} {unit}" if math.isfinite(value) else "-"
