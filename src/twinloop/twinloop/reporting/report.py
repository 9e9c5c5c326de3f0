# SPDX-License-Identifier: Apache-2.0
"""The report of a run: figures with their targets, as JSON."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinloop.reporting import machine
from twinloop.reporting.episodes import EpisodeFigures
from twinloop.reporting.models import Models

REPORT_FILE = "report.json"
LATE_MS = 10.0
PLAN_BOUND_MS = 80.0
_COMPARISONS = {"<=": operator.le, ">=": operator.ge}
# Figure, how it is compared, and with what. Times count where the run kept a pace.
_TARGETS = (
    ("rotation_deg_median", ">=", 90.0),
    ("drop_share", "<=", 0.4),
    ("plan_ms_p99", "<=", PLAN_BOUND_MS),
    ("late_steps_pct", "<=", 1.0),
)


@dataclass(frozen=True)
class Run:
    """What was run."""

    command: str
    seed: int
    folder: Path
    """Gets report and plots."""
    wall_s: float = 0.0


@dataclass(frozen=True)
class Report:
    """A report, the run it is of, and the figures that its plots are drawn from."""

    run: Run
    content: dict[str, Any]
    """What `report.json` holds."""
    episodes: tuple[EpisodeFigures, ...]
    models: Models


def build(run: Run, episodes: Sequence[EpisodeFigures], models: Models) -> Report:
    """Compute the figures of a run.

    Shares are of all episodes, those that a fault ended included; a figure that was not measured
    is None.
    """
    summary = _summary(episodes, models)
    content = {
        "command": run.command,
        "seed": run.seed,
        "versions": machine.versions(),
        "machine": machine.machine(),
        "commit": machine.commit(),
        "wall_s": round(run.wall_s, 1),
        "episodes": [_episode(one) for one in episodes],
        "models": [
            {
                "version": one.version,
                "status": one.status,
                "error_one_step_mm": _rounded(one.one_step_mm),
                "error_seven_step_mm": _rounded(one.seven_step_mm),
            }
            for one in models.errors
        ],
        "summary": summary,
        "targets": _targets(summary, episodes),
    }
    return Report(run, content, tuple(episodes), models)


def write(report: Report) -> Path:
    """Write `report.json` into the run's folder, whole or not at all; returns its path."""
    path = report.run.folder / REPORT_FILE
    temporary = path.with_name(f".{REPORT_FILE}")
    temporary.write_text(to_json(report) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def to_json(report: Report) -> str:
    """Return the text of `report.json`."""
    return json.dumps(report.content, indent=2, allow_nan=False)


def _episode(one: EpisodeFigures) -> dict[str, Any]:
    return {
        "id": one.id,
        "steps": one.steps,
        "rotation_deg": _rounded(one.rotation_deg, 2) if one.unit == "deg" else None,
        "progress": _rounded(one.rotation_deg, 2),
        "unit": one.unit,
        "succeeded": one.succeeded,
        "dropped": one.dropped,
        "return": _rounded(one.total_return),
        "model": ", ".join(one.models),
        "stop_reason": one.stop_reason,
        "seed": one.seed,
        "goal": one.goal,
        "transitions": one.transitions,
        "missed_steps": one.missed_steps,
        "bags": [path.name for path in one.bags],
    }


def _summary(episodes: Sequence[EpisodeFigures], models: Models) -> dict[str, Any]:
    unit = unit_of(episodes)
    median = (
        _rounded(float(np.median([one.rotation_deg for one in episodes]))) if episodes else None
    )
    turned = episodes if unit == "deg" else ()
    plan_ms = joined(episodes, "plan_ms")
    return {
        "episodes": len(episodes),
        "rotation_deg_median": None if median is None or not turned else round(median, 2),
        "success_90": _success(turned, 90.0),
        "success_180": _success(turned, 180.0),
        "drops": sum(one.dropped for one in episodes),
        "plan_ms": {
            "p50": _rounded(float(np.percentile(plan_ms, 50)), 2) if len(plan_ms) else None,
            "p99": _rounded(float(np.percentile(plan_ms, 99)), 2) if len(plan_ms) else None,
        },
        "late_steps_pct": _late_steps_pct(episodes),
        "transitions": sum(one.transitions for one in episodes),
        "promotions": models.promotions,
        "rejections": models.rejections,
        "model_versions": list(dict.fromkeys(name for one in episodes for name in one.models)),
        "unit": unit,
        "progress_median": median,
        "succeeded": _rounded(float(np.mean([one.succeeded for one in episodes])), 4)
        if episodes
        else None,
    }


def unit_of(episodes: Sequence[EpisodeFigures]) -> str:
    """Return the unit of the episodes' progress; those that never ran have none of their own."""
    return next((one.unit for one in episodes if one.steps), "deg")


def joined(episodes: Sequence[EpisodeFigures], name: str) -> np.ndarray:
    """Return an array of every episode, joined [sum of T]."""
    return np.concatenate([np.zeros(0), *(getattr(one, name) for one in episodes)])


def _success(episodes: Sequence[EpisodeFigures], at_least_deg: float) -> float | None:
    if not episodes:
        return None
    reached = [not one.dropped and one.rotation_deg >= at_least_deg for one in episodes]
    return _rounded(float(np.mean(reached)), 4)


def _late_steps_pct(episodes: Sequence[EpisodeFigures]) -> float | None:
    """Return the share of steps that started late or not at all [%]."""
    paced = [one for one in episodes if len(one.lateness_ms)]
    if not paced:
        return None
    missed = sum(one.missed_steps for one in paced)
    lateness_ms = joined(paced, "lateness_ms")
    late = int((lateness_ms > LATE_MS).sum()) + missed
    return _rounded(100.0 * late / (len(lateness_ms) + missed))


def _targets(summary: dict[str, Any], episodes: Sequence[EpisodeFigures]) -> list[dict[str, Any]]:
    figures = {
        "rotation_deg_median": summary["rotation_deg_median"],
        "drop_share": _rounded(summary["drops"] / len(episodes), 4) if episodes else None,
        "late_steps_pct": summary["late_steps_pct"],
    }
    if summary["late_steps_pct"] is not None:
        figures["plan_ms_p99"] = summary["plan_ms"]["p99"]
    return [
        {
            "name": name,
            "value": figures[name],
            "bound": f"{sign} {bound:g}",
            "holds": bool(_COMPARISONS[sign](figures[name], bound)),
        }
        for name, sign, bound in _TARGETS
        if figures.get(name) is not None
    ]


def _rounded(value: float, digits: int = 3) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
