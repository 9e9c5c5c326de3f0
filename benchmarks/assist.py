# SPDX-License-Identifier: Apache-2.0
"""Shared autonomy: pilots alone and assisted, on a lander, an arm and the hand.

The full protocol takes hours; each part that is done is kept in the run's folder, and --resume goes
on with what is missing. --only does one of the three, and --parts so many parts of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import assist_arm
import assist_hand
import assist_plots
import harness
import lander_copilot
from harness import Target
from rich.console import Console

SIDES = {"lander": lander_copilot, "arm": assist_arm, "hand": assist_hand}
Job = Callable[[], dict[str, Any]]


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=sorted(SIDES), help="do nothing else")
    parser.add_argument("--parts", type=int, help="stop after so many")
    parser.add_argument("--cut", default="", help="why a full protocol is cut short")
    arguments = parser.parse_args()
    folder = harness.start("assist", arguments.full, arguments.resume)
    console = Console()
    done: dict[str, list[dict[str, Any]]] = {}
    missing, left = 0, arguments.parts
    for side, module in SIDES.items():
        done[side] = []
        for name, job in module.jobs(folder, arguments.full).items():
            path = folder / f"{name}.json"
            wanted = arguments.only in (None, side) and left != 0 and not arguments.cut
            if not path.exists() and wanted:
                console.print(f"{name} ...")
                _keep(path, job())
                left = None if left is None else left - 1
            if path.exists():
                done[side].append(json.loads(path.read_text()))
            else:
                missing += 1
    if missing and not arguments.cut:
        console.print(f"{missing} parts are missing; go on with --resume {folder}")
        return
    _finish(folder, done, arguments.full, arguments.cut)


def _keep(path: Path, result: dict[str, Any]) -> None:
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(result, indent=2) + "\n")
    fresh.replace(path)


def _finish(folder: Path, done: dict[str, list[dict[str, Any]]], full: bool, cut: str) -> None:
    figures: dict[str, Any] = {
        side: module.summary(done[side]) for side, module in SIDES.items() if done[side]
    }
    targets = []
    for row in figures.get("lander", []):
        if row["pilot"] in ("laggy", "noisy"):
            gained = row["success_assisted"] - row["success_alone"]
            halves = row["crashed_assisted"] <= 0.5 * row["crashed_alone"]
            held = float(gained >= 0.2 or halves)
            name = f"lander, {row['pilot']}: 20 points of success gained, or crashes halved"
            targets.append(Target(name, held, 1.0, ">="))
    for side in ("arm", "hand"):
        for pilot in sorted({row["pilot"] for row in figures.get(side, [])}):
            mine = [row for row in figures[side] if row["pilot"] == pilot]
            alone = [row["success"] for row in mine if row["alpha"] == 0.0]
            shared = [row["success"] for row in mine if 0.0 < row["alpha"] < 1.0]
            gained = max(shared) - alone[0] if shared and alone else None
            targets.append(
                Target(f"{side}, {pilot}: success gained by the best α", gained, 0.0, ">=")
            )
    if cut:
        figures["cut"] = cut
    plots = assist_plots.draw(folder, figures)
    harness.finish("assist", folder, figures, targets, full, plots)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
