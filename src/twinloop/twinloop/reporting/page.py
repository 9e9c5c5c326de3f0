# SPDX-License-Identifier: Apache-2.0
"""A report as one HTML page that needs nothing beside it: no script, no other file, no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from twinloop.reporting.episodes import EpisodeFigures, progress
from twinloop.reporting.report import Report

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#2b2d33;max-width:62rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #c9ced6}
table{border-collapse:collapse;font-size:.88rem}td,th{text-align:left;padding:.15rem .8rem .15rem 0;
border-bottom:1px solid #e6e9ee;vertical-align:top}img{max-width:100%}
.no{color:#c8553d;font-weight:600}.yes{color:#1f6f8b}.dim{color:#7b828c}
"""
_SUMMARY = (
    ("episodes", "episodes"),
    ("progress_median", "progress, median"),
    ("succeeded", "share that reached the goal"),
    ("success_180", "share that turned by 180°"),
    ("drops", "drops"),
    ("late_steps_pct", "steps that were late [%]"),
    ("transitions", "transitions"),
    ("promotions", "models promoted"),
    ("rejections", "models rejected"),
)
_PLOTS = {
    "rotation": "Progress of every episode",
    "prediction_error": "Prediction error by model version",
    "plan_time": "Time to plan",
    "learning": "Training",
    "frames": "The best episode",
}


def page(
    title: str,
    report: Report,
    plots: dict[str, bytes],
    film: bytes | None,
    told_of_film: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        title: of the page.
        report: its figures.
        plots: PNG files by name.
        film: animated WebP; None: there is none.
        told_of_film: which episodes it shows.
    """
    content = report.content
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='dim'>{escape(_origin(content))}</p>",
        _targets(content.get("targets", [])),
        _summary(content["summary"]),
    ]
    if film is not None:
        said = "; ".join(told_of_film)
        parts.append(
            f"<h2>Film</h2><p>{escape(said)}.</p>{_image(film, 'image/webp', 'film of episodes')}"
        )
    for name, data in plots.items():
        heading = _PLOTS.get(name, name)
        parts.append(f"<h2>{escape(heading)}</h2>{_image(data, 'image/png', heading)}")
    parts += [_episodes(report.episodes), _models(content.get("models", []))]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        + "".join(parts)
        + "</body></html>\n"
    )


def _origin(content: dict[str, Any]) -> str:
    """Return which command made the run, of which commit, on what machine, as far as is known."""
    about = content.get("machine") or {}
    told = [str(content["command"]), f"seed {content['seed']}"] if content.get("command") else []
    told += [str(value) for key, value in about.items() if key in ("cpu", "cores")]
    commit = content.get("commit")
    return ", ".join([*told, *([f"commit {str(commit)[:12]}"] if commit else [])])


def _targets(targets: list[dict[str, Any]]) -> str:
    if not targets:
        return ""
    rows = [
        (
            one["name"],
            _number(one["value"]),
            one["bound"],
            ("yes", "yes") if one["holds"] else ("NO", "no"),
        )
        for one in targets
    ]
    return "<h2>Targets</h2>" + _table(("figure", "value", "bound", "holds"), rows)


def _summary(summary: dict[str, Any]) -> str:
    rows = [
        (label, _number(summary[key])) for key, label in _SUMMARY if summary.get(key) is not None
    ]
    plan = summary.get("plan_ms") or {}
    rows += [
        (f"time to plan, {key} [ms]", _number(plan[key])) for key in ("p50", "p99") if plan.get(key)
    ]
    rows.append(("models", ", ".join(summary.get("model_versions", [])) or "-"))
    return "<h2>Figures</h2>" + _table(("figure", f"value ({summary['unit']})"), rows)


def _episodes(episodes: Sequence[EpisodeFigures]) -> str:
    rows = [
        (
            str(one.index + 1),
            one.id,
            one.goal,
            str(one.steps),
            progress(one),
            ("dropped", "no") if one.dropped else ("", ""),
            ", ".join(one.models),
            one.stop_reason,
        )
        for one in episodes
    ]
    head = ("", "episode", "goal", "steps", "progress", "", "model", "end")
    return "<h2>Episodes</h2>" + _table(head, rows)


def _models(models: list[dict[str, Any]]) -> str:
    if not models:
        return ""
    rows = [
        (
            one["version"],
            one["status"],
            _number(one["error_one_step_mm"]),
            _number(one["error_seven_step_mm"]),
        )
        for one in models
    ]
    return "<h2>Models</h2>" + _table(("version", "", "1 step [mm]", "7 steps [mm]"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str | tuple[str, str]]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _cell(cell: str | tuple[str, str]) -> str:
    text, looks = (cell, "") if isinstance(cell, str) else cell
    return f"<td class='{looks}'>{escape(text)}</td>" if looks else f"<td>{escape(text)}</td>"


def _image(data: bytes, kind: str, said: str) -> str:
    code = base64.b64encode(data).decode()
    return f"<img alt='{escape(said)}' src='data:{kind};base64,{code}'>"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
