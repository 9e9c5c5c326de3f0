# SPDX-License-Identifier: Apache-2.0
"""What every benchmark shares: its folder, its targets, its report and its committed result.

    arguments = harness.parser(__doc__).parse_args()
    folder = harness.start("gap", arguments.full, arguments.resume)
    ...
    targets = [Target("success_180", share, 0.8, ">=")]
    harness.finish("gap", folder, figures, targets, arguments.full, plots=[folder / "curve.png"])

Quick forms show that a protocol runs; results come from the full form alone, which also copies its
report and plots to benchmarks/results/ and makes docs/results.md anew.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import results
from rich.console import Console
from rich.table import Table
from twinloop.reporting.machine import commit, machine, versions

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs"
RESULTS = ROOT / "benchmarks" / "results"
_COMPARISONS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Target:
    """A figure that the project has promised.

    Attributes:
        value: what was measured; None where it was not, which holds nothing.
        bound: what it is compared with, in the same unit.
        sense: `>=` where more is better, `<=` where less is.
    """

    name: str
    value: float | None
    bound: float
    sense: Literal[">=", "<="]

    def __post_init__(self) -> None:
        if self.sense not in _COMPARISONS:
            raise ValueError(f"target {self.name}: sense is {self.sense!r}, expected >= or <=")

    @property
    def holds(self) -> bool:
        """Whether the value was measured, is finite and keeps to the bound."""
        value = self.value
        return (
            value is not None
            and math.isfinite(value)
            and bool(_COMPARISONS[self.sense](value, self.bound))
        )


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the command line that all benchmarks have; they add their own options to it."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--full", action="store_true", help="the whole protocol")
    made.add_argument("--resume", type=Path, help="carry on with the run in this folder")
    return made


def start(name: str, full: bool, resume: Path | None = None) -> Path:
    """Make the run's folder runs/bench-NAME-TIME, or take the one to carry on with.

    Raises:
        FileNotFoundError: there is no folder to carry on with.
        ValueError: it is of another benchmark, or of the other form.
    """
    about = {"name": name, "full": full}
    if resume is not None:
        found = json.loads((resume / "bench.json").read_text())
        if {key: found.get(key) for key in about} != about:
            raise ValueError(f"{resume} is of {found}, and cannot be carried on with as {about}")
        return resume.resolve()
    folder = RUNS / f"bench-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True)
    (folder / "bench.json").write_text(json.dumps(about | {"commit": commit()}))
    return folder


def finish(
    name: str,
    folder: Path,
    figures: dict[str, Any],
    targets: Sequence[Target],
    full: bool,
    plots: Sequence[Path] = (),
) -> None:
    """Write report.json, print the figures and targets, and keep the result of a full protocol.

    Args:
        folder: what `start` returned.
        figures: everything that was measured, JSON-able or NumPy; what is not finite becomes null.
            A protocol that was cut short says why under "cut".
        plots: PNG files in `folder`.

    Raises:
        ValueError: a target stands twice.
    """
    names = [target.name for target in targets]
    if len(set(names)) != len(names):
        raise ValueError(f"targets of {name} stand twice: {sorted(names)}")
    begun = json.loads((folder / "bench.json").read_text())["commit"]
    report = {
        "name": name,
        "full": full,
        "command": _command(),
        # Of the beginning: what is measured over hours is of the code of that time.
        "commit": begun,
        "commit_at_end": commit(),
        "machine": machine(),
        "versions": versions(),
        "figures": plain(figures),
        "targets": [
            {
                "name": one.name,
                "value": plain(one.value),
                "bound": f"{one.sense} {one.bound:g}",
                "holds": one.holds,
            }
            for one in targets
        ],
        "plots": [path.name for path in plots],
    }
    _write(folder / "report.json", report)
    _show(report, folder)
    if full:
        _keep(name, report, plots)


def _keep(name: str, report: dict[str, Any], plots: Sequence[Path]) -> None:
    """Replace the committed result, its plots included."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    if path.exists():
        for former in json.loads(path.read_text())["plots"]:
            (RESULTS / former).unlink(missing_ok=True)
    kept = [f"{name}-{plot.name}" for plot in plots]
    for plot, new_name in zip(plots, kept, strict=True):
        shutil.copyfile(plot, RESULTS / new_name)
    _write(path, report | {"plots": kept})
    results.write(RESULTS, ROOT / "docs" / "results.md")


def _write(path: Path, report: dict[str, Any]) -> None:
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    fresh.replace(path)


def _show(report: dict[str, Any], folder: Path) -> None:
    console = Console()
    for line in results.scalar_lines(report["figures"]):
        console.print(line, markup=False, highlight=False)
    table = Table(box=None, padding=(0, 1))
    for column in ("target", "value", "bound", ""):
        table.add_column(column, header_style="dim")
    for one in report["targets"]:
        verdict = "[green]holds[/]" if one["holds"] else "[red]missed[/]"
        table.add_row(one["name"], results.number(one["value"]), one["bound"], verdict)
    if report["targets"]:
        console.print(table)
    if not report["full"]:
        console.print("quick form: not a result; FULL=1 runs the whole protocol")
    console.print(f"report  {folder / 'report.json'}", soft_wrap=True, highlight=False)


def _command() -> str:
    """Return what runs this benchmark again, as seen from the repository."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else Path(script.name)
    return shlex.join(["python", str(name), *sys.argv[1:]])


def plain(value: Any) -> Any:
    """Return what JSON can hold: NumPy's numbers as Python's, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
