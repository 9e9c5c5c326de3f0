# SPDX-License-Identifier: Apache-2.0
"""The plots of a report, as PNG files; drawn without a display."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from twinloop.reporting.drawing import ACCENT, DROPPED, FAINT, INK, KEPT, save
from twinloop.reporting.episodes import ENDED_WELL, EpisodeFigures
from twinloop.reporting.report import PLAN_BOUND_MS, Report, joined, unit_of

_LABELLED = 12  # more episodes than these are not told apart


def draw(report: Report) -> list[Path]:
    """Draw every plot that the report has figures for; returns the files."""
    plots: tuple[tuple[str, Callable[[Report], Figure | None]], ...] = (
        ("rotation", rotation),
        ("prediction_error", prediction_error),
        ("plan_time", plan_time),
        ("learning", learning),
    )
    written = []
    for name, plot in plots:
        figure = plot(report)
        if figure is not None:
            written.append(save(figure, report.run.folder / f"{name}.png"))
    return written


def rotation(report: Report) -> Figure | None:
    """Draw rotation over time, one line an episode."""
    shown = [one for one in report.episodes if len(one.rotations_deg)]
    if not shown:
        return None
    figure, axes = _figure("Rotation of the balls, by episode")
    # Lines that end close together get their names beneath each other.
    heights = _spread([float(one.rotations_deg[-1]) for one in shown], _label_height(shown))
    for one, height in zip(shown, heights, strict=True):
        color, marker, _ = _end(one)
        x, y = one.times_s, one.rotations_deg
        axes.plot(x, y, color=color, alpha=0.85 if len(shown) <= _LABELLED else 0.4, lw=1.4)
        axes.plot(x[-1:], y[-1:], marker, color=color, ms=5)
        if len(shown) <= _LABELLED:
            axes.annotate(
                f"{one.index + 1}",
                (x[-1], y[-1]),
                (max(x[-1], 0.0) + 0.012 * _longest(shown), height),
                color=color,
                fontsize=8,
                va="center",
            )
    unit = unit_of(shown)
    for height in (90.0, 180.0) if unit == "deg" else ():
        axes.axhline(height, color=INK, lw=0.7, ls=(0, (4, 4)), alpha=0.5, zorder=0)
    for color, marker, label in dict.fromkeys(_end(one) for one in shown):
        axes.plot([], [], f"-{marker}", color=color, ms=5, label=label)
    _legend(axes)
    if unit == "deg":
        axes.yaxis.set_major_locator(MultipleLocator(_tick_deg(axes)))
    axes.set_xlabel("time since the first step [s]")
    turned = "rotation in the goal's direction [deg]"
    axes.set_ylabel(turned if unit == "deg" else f"distance from the goal [{unit}]")
    axes.set_xlim(0.0, 1.05 * _longest(shown))
    if len(shown) <= _LABELLED:
        axes.set_ylim(top=max(axes.get_ylim()[1], max(heights) + _label_height(shown)))
    return figure


def prediction_error(report: Report) -> Figure | None:
    """Draw the errors of every model version as bars."""
    errors = report.models.errors
    if not errors:
        return None
    figure, axes = _figure("Prediction error of the balls")
    places = np.arange(len(errors))
    for shift, label, color, values in (
        (-0.2, "1 step (0.1 s)", ACCENT, [one.one_step_mm for one in errors]),
        (0.2, "7 steps (0.7 s), open loop", KEPT, [one.seven_step_mm for one in errors]),
    ):
        bars = axes.bar(places + shift, values, 0.36, color=color, label=label)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, color=INK, padding=2)
    axes.set_xticks(places, [f"{one.version}\n{one.status}" for one in errors])
    axes.set_xlim(-0.8, max(len(errors) - 0.2, 1.8))
    axes.set_ylim(0.0, 1.25 * max(one.seven_step_mm for one in errors))
    axes.set_xlabel(f"model version; errors on {report.models.scored_on}")
    axes.set_ylabel("mean distance, predicted to tracked [mm]")
    _legend(axes)
    return figure


def plan_time(report: Report) -> Figure | None:
    """Draw the histogram of plan times with its percentiles and the bound."""
    plan_ms = joined(report.episodes, "plan_ms")
    if not len(plan_ms):
        return None
    figure, axes = _figure(f"Time to plan a step, {len(plan_ms)} steps")
    p50, p99 = np.percentile(plan_ms, [50, 99])
    right = max(1.08 * PLAN_BOUND_MS, 1.02 * float(plan_ms.max()))
    axes.hist(plan_ms, bins=60, range=(0.0, right), color=KEPT, alpha=0.85)
    for value, label, color, style in (
        (p50, f"p50 {p50:.1f} ms", INK, "-"),
        (p99, f"p99 {p99:.1f} ms", ACCENT, "-"),
        (PLAN_BOUND_MS, f"bound for p99, {PLAN_BOUND_MS:g} ms", DROPPED, "--"),
    ):
        axes.axvline(value, color=color, lw=1.6, ls=style, label=label)
    _legend(axes)
    axes.set_xlim(0.0, right)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("plan time [ms]")
    axes.set_ylabel("control steps")
    return figure


def learning(report: Report) -> Figure | None:
    """Draw how the episodes of each training round went, over the data collected by then."""
    training = report.content.get("training", {})
    rounds = training.get("rounds")
    if not rounds:
        return None
    figure, axes = _figure("Training, round by round")
    x = [row["transitions"] for row in rounds]
    axes.plot(x, [row["score_median"] for row in rounds], "-o", color=KEPT, ms=3, lw=1.2)
    axes.set_xlabel("transitions collected")
    axes.set_ylabel(f"median score of the round's episodes [{training['unit']}]", color=KEPT)
    axes.set_xlim(0.0, 1.03 * max(x))
    shares = axes.twinx()
    for name, label, color in (
        ("success", "succeeded", ACCENT),
        ("drop_share", "failed", DROPPED),
    ):
        shares.plot(x, [100.0 * row[name] for row in rounds], lw=1.2, color=color, label=label)
    shares.set_ylabel("episodes [%]")
    shares.set_ylim(0.0, 105.0)
    shares.spines["top"].set_visible(False)
    _legend(shares)
    return figure


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.grid(axis="y", color=FAINT, lw=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


def _end(one: EpisodeFigures) -> tuple[str, str, str]:
    """Return colour, marker and words for how an episode ended."""
    if one.dropped:
        return DROPPED, "x", "a ball dropped"
    if one.stop_reason not in ENDED_WELL:
        return ACCENT, "s", "ended by a fault"
    return KEPT, "o", "both balls kept"


def _legend(axes: Axes) -> None:
    """Put the legend beside the title, where no line can run through it."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=3, frameon=False, fontsize=9)


def _tick_deg(axes: Axes) -> float:
    """Return a distance between ticks that divides a turn."""
    low, high = axes.get_ylim()
    return next((tick for tick in (15.0, 30.0, 45.0, 90.0) if (high - low) / tick <= 12), 180.0)


def _longest(episodes: list[EpisodeFigures]) -> float:
    return max(0.1, *(float(one.times_s[-1]) for one in episodes))


def _label_height(episodes: list[EpisodeFigures]) -> float:
    values = np.concatenate([one.rotations_deg for one in episodes])
    return 0.035 * max(float(np.ptp(values)), 180.0)


def _spread(values: list[float], distance: float) -> list[float]:
    """Return the values moved apart, in their order and about the same mean."""
    moved, floor = [0.0] * len(values), -np.inf
    for index in np.argsort(values):
        floor = moved[index] = max(values[index], floor + distance)
    shift = float(np.mean(moved) - np.mean(values))
    return [value - shift for value in moved]
