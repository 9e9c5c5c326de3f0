# SPDX-License-Identifier: Apache-2.0
"""The end of a run, whatever ran it: report, plots and summary from its bags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from twinloop.contract import Contract
from twinloop.reporting.episodes import EpisodeFigures
from twinloop.reporting.frames import draw_strip
from twinloop.reporting.models import Models
from twinloop.reporting.plots import draw
from twinloop.reporting.report import Report, Run, build, to_json, write
from twinloop.reporting.summary import show


def finish(
    run: Run,
    episodes: list[EpisodeFigures],
    models: Models,
    contract: Contract,
    console: Console,
    as_json: bool,
    **more: Any,
) -> Report:
    """Write the report of a run beside its plots, and print the summary or the report.

    Args:
        run, episodes, models: see `build`.
        contract: of the task.
        console: where the summary is printed.
        as_json: print the report to stdout instead.
        more: further entries of the report, such as `training`.
    """
    report = build(run, episodes, models)
    report.content.update(more)
    path = write(report)
    with console.status("drawing the plots ..."):
        plots = draw(report)
        strip = draw_strip(episodes, contract, run.folder / "frames.png")
    if strip is not None:
        plots.append(strip)
    if as_json:
        typer.echo(to_json(report))
        return report
    files = {"report": path, "bags": run.folder / "bags"}
    if plots:
        files["plots"] = _together(plots, run.folder)
    show(report, console, files)
    return report


def _together(files: list[Path], folder: Path) -> Path:
    """Return one path that stands for all files of a folder, as a shell expands it."""
    names = ",".join(file.stem for file in files)
    return folder / (f"{{{names}}}.png" if len(files) > 1 else f"{names}.png")
