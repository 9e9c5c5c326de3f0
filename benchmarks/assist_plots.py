# SPDX-License-Identifier: Apache-2.0
"""Figures of what sharing does for pilots: the lander's, and sweeps of α for arm and hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

matplotlib.use("Agg")
_ALONE, _ASSISTED, _SHARE = "#c8553d", "#1f6f8b", "#8a8f98"
Rows = list[dict[str, Any]]


def draw(folder: Path, figures: dict[str, Any]) -> list[Path]:
    """Draw what was measured; returns the files."""
    made = []
    if figures.get("lander"):
        made.append(lander(folder / "lander.png", figures["lander"]))
    for side in ("arm", "hand"):
        if figures.get(side):
            made.append(sweep(folder / f"{side}.png", figures[side]))
    return made


def lander(path: Path, rows: Rows) -> Path:
    """Draw success and crashes of each pilot, alone and assisted."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.0), layout="constrained", sharey=True)
    place = np.arange(len(rows))
    for axis, name, text in zip(
        axes, ("success", "crashed"), ("landed between the flags", "crashed"), strict=True
    ):
        for who, colour, shift in (("alone", _ALONE, -0.2), ("assisted", _ASSISTED, 0.2)):
            values = [row[f"{name}_{who}"] for row in rows]
            axis.bar(place + shift, values, 0.38, color=colour, label=who)
        axis.set(title=text, ylim=(0, 1.02))
        axis.set_xticks(place, [row["pilot"] for row in rows])
    axes[0].set(ylabel="share of flights")
    axes[1].legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def sweep(path: Path, rows: Rows) -> Path:
    """Draw success, time to goal and what survives of each pilot over α."""
    pilots = sorted({row["pilot"] for row in rows})
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.0), layout="constrained")
    names = ("success", "time_to_goal_s", "pilot_share")
    texts = ("share of episodes", "median time to goal [s]", "what survives of the pilot")
    for axis, name, text in zip(axes, names, texts, strict=True):
        for pilot, colour in zip(pilots, (_ASSISTED, _ALONE, _SHARE), strict=False):
            mine = sorted((r for r in rows if r["pilot"] == pilot), key=lambda r: r["alpha"])
            values = [np.nan if row[name] is None else row[name] for row in mine]
            alphas = [row["alpha"] for row in mine]
            axis.plot(alphas, values, marker=".", color=colour, label=pilot)
            if name == "success" and "kept" in mine[0]:
                kept = [row["kept"] for row in mine]
                axis.plot(alphas, kept, "--", marker=".", color=colour, label="balls kept")
        axis.set(xlabel="α: 0 the pilot, 1 autonomy", ylabel=text)
    axes[0].set(ylim=(0, 1.05))
    axes[0].legend(frameon=False)
    axes[2].set(ylim=(0, 1.05))
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
