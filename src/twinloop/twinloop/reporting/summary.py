# SPDX-License-Identifier: Apache-2.0
"""A report on one screen of 80 columns and 24 lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from twinloop.reporting.episodes import ENDED_WELL, EpisodeFigures, progress
from twinloop.reporting.report import Report, unit_of

_COLUMNS = 80
_LISTED = 8  # more episodes than these are told in a few words each
_TOLD = 28  # and more than these by their quartiles
_A_LINE = 4


def show(report: Report, console: Console, files: dict[str, Path]) -> None:
    """Print the summary of a report, and at its end where things are.

    Args:
        report: what to tell.
        console: where to.
        files: paths by what they are, such as `bags`.
    """
    content = report.content
    console.print()
    console.print(_title(report), soft_wrap=True)
    console.print(_episodes(report.episodes))
    if report.episodes:
        console.print(_figures(content))
    width = max(len(name) for name in files)
    for name, path in files.items():
        console.print(f"{name:<{width}}  [bold]{_near(path)}[/]", soft_wrap=True, highlight=False)


def _title(report: Report) -> Text:
    content = report.content
    minutes, seconds = divmod(round(report.run.wall_s), 60)
    text = Text("twinloop ", style="bold")
    text.append(content["command"].partition("twinloop ")[2].partition(" ")[0] or "run")
    text.append(f" · {content['summary']['episodes']} episodes · seed {content['seed']}")
    text.append(f" · {minutes} min {seconds:02d} s", style="dim")
    return text


def _episodes(episodes: Sequence[EpisodeFigures]) -> RenderableType:
    if not episodes:
        return Text("no episode was recorded", style="red")
    if len(episodes) > _LISTED:
        told = _grid(episodes) if len(episodes) <= _TOLD else _quartiles(episodes)
        faults = _faults(episodes)
        return Group(told, *([Text(faults, style="yellow", no_wrap=True)] if faults else []))
    table = Table(box=None, padding=(0, 1), width=_COLUMNS)
    for name in ("episode", "steps", "progress", "return"):
        table.add_column(name, justify="right", header_style="dim")
    table.add_column("model", header_style="dim", no_wrap=True, max_width=14)
    table.add_column("end", header_style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
    for one in episodes:
        end = (
            Text("dropped", style="red") if one.dropped else Text("kept both balls", style="green")
        )
        end = Text(one.stop_reason if _is_fault(one) else _end(one), style=_style(one))
        table.add_row(
            str(one.index + 1),
            str(one.steps),
            progress(one),
            f"{one.total_return:.0f}",
            " ".join(one.models) or "-",
            end,
        )
    return table


def _grid(episodes: Sequence[EpisodeFigures]) -> Table:
    table = Table.grid(padding=(0, 3))
    cells = []
    for one in episodes:
        cell = Text(f"{one.index + 1:3d} ", style="dim")
        cell.append(f"{progress(one):>6} ", style="not dim")
        cells.append(cell.append(_end(one), style=f"not dim {_style(one)}"))
    for start in range(0, len(cells), _A_LINE):
        table.add_row(*cells[start : start + _A_LINE])
    return table


def _quartiles(episodes: Sequence[EpisodeFigures]) -> Text:
    rotations = [one.rotation_deg for one in episodes]
    low, first, third, high = np.percentile(rotations, [0, 25, 75, 100])
    unit = unit_of(episodes)
    shown = [f"{v:.0f}°" if unit == "deg" else f"{v:.3g} {unit}" for v in (low, high, first, third)]
    name = "rotation" if unit == "deg" else "distance"
    return Text(f"{name} from {shown[0]} to {shown[1]}, middle half {shown[2]} to {shown[3]}")


def _is_fault(one: EpisodeFigures) -> bool:
    return not one.dropped and one.stop_reason not in ENDED_WELL


def _end(one: EpisodeFigures) -> str:
    return "dropped" if one.dropped else "fault" if _is_fault(one) else "kept"


def _style(one: EpisodeFigures) -> str:
    return {"dropped": "red", "fault": "yellow", "kept": "green"}[_end(one)]


def _faults(episodes: Sequence[EpisodeFigures]) -> str:
    reasons = [one.stop_reason for one in episodes if _is_fault(one)]
    if not reasons:
        return ""
    line = f"{len(reasons)} ended by a fault: {reasons[0]}"
    return line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 1]}…"


def _figures(content: dict[str, Any]) -> Table:
    summary = content["summary"]
    targets = {target["name"]: target for target in content["targets"]}
    plan = summary["plan_ms"]
    count = summary["episodes"]
    rows = [
        *_measures(summary),
        ("drops", f"{summary['drops']} of {count}{_of(summary['drops'], count)}", "drop_share"),
        ("plan time, p50", _number(plan["p50"], " ms"), ""),
        ("plan time, p99", _number(plan["p99"], " ms"), "plan_ms_p99"),
        ("late steps", _number(summary["late_steps_pct"], " %"), "late_steps_pct"),
        ("transitions", f"{summary['transitions']}", ""),
        ("promoted, rejected", f"{summary['promotions']}, {summary['rejections']}", ""),
    ]
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    for name, value, target in rows:
        table.add_row(name, value, _verdict(targets.get(target)))
    return table


def _measures(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of what the goal is measured by."""
    if summary["unit"] != "deg":
        return [
            ("distance, median", _number(summary["progress_median"], f" {summary['unit']}"), ""),
            ("reached the goal", _share(summary["succeeded"]), ""),
        ]
    return [
        ("rotation, median", _number(summary["rotation_deg_median"], "°"), "rotation_deg_median"),
        ("at least 90°, kept", _share(summary["success_90"]), ""),
        ("at least 180°, kept", _share(summary["success_180"]), ""),
    ]


def _verdict(target: dict[str, Any] | None) -> Text:
    if target is None:
        return Text("")
    holds = target["holds"]
    text = Text("holds " if holds else "missed", style="green" if holds else "red")
    bound = target["bound"].replace("<=", "≤").replace(">=", "≥")
    share = "share " if target["name"].endswith("_share") else ""
    text.append(f"  target: {share}{bound}", style="dim")
    return text


def _number(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.1f}{unit}"


def _of(part: int, whole: int) -> str:
    return f" ({100 * part / whole:.0f} %)" if whole else ""


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _near(path: Path) -> str:
    """Return a path below the present folder as relative, others as they are."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
