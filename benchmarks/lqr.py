# SPDX-License-Identifier: Apache-2.0
"""LQR-FLM: Reacher-v5, a mug that is pushed, and blocks that are stacked, beside MPPI.

Reacher has ten seeds, each with a goal of its own. The arm's tasks learn from the steps of a case
and are measured in 20 trials without noise; MPPI plans with an ensemble that learns from as many
steps of its own, in the same run. `sparse` is pushing by a reward of one on the coaster and nothing
elsewhere. MPPI, which takes most of the time, has one seed.

An interrupted benchmark carries on with --resume; parts and cases can be measured one by one in the
same folder, and are a result once all are asked for, or with --cut.

Reacher needs gymnasium: .venv/bin/pip install -r benchmarks/requirements.txt
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import lqr_arm
import lqr_reacher
import matplotlib.pyplot as plt
import numpy as np
import torch
from harness import Target

_REACHER_STEPS = 20_000
_QUICK_STEPS = 2_000
_PARTS = ("reacher", "lqr_flm", "mppi", "sparse")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--cases", nargs="+", choices=[c.name for c in lqr_arm.CASES])
    parser.add_argument("--seeds", type=int, nargs="+", help="of the arm's cases")
    parser.add_argument("--cut", default="", help="why a full protocol is cut short")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    full = arguments.full
    folder = harness.start("lqr", full, arguments.resume)
    seeds = arguments.seeds or ([0, 1, 2] if full else [0])
    chosen = arguments.cases or [case.name for case in lqr_arm.CASES]
    cases = [case for case in lqr_arm.CASES if case.name in chosen]
    if not full:
        cases = [lqr_arm.shortened(case, _QUICK_STEPS) for case in cases]
    figures: dict[str, Any] = {"cut": arguments.cut} if arguments.cut else {}
    targets: list[Target] = []
    plots: list[Path] = []
    if "reacher" in arguments.parts:
        steps = _REACHER_STEPS if full else _QUICK_STEPS
        runs = [
            _kept(
                folder, f"reacher-{seed}", lambda seed=seed: lqr_reacher.seed_figures(seed, steps)
            )
            for seed in range(10 if full else 2)
        ]
        figures["reacher"] = _reacher(runs, steps)
        targets += [
            Target("reacher_final_m_median", figures["reacher"]["final_m_median"], 0.03, "<="),
            Target("reacher_cpu_s_a_seed", figures["reacher"]["cpu_s_largest"], 60.0, "<="),
        ]
        plots.append(
            _curve(folder, "reacher", {"lqr_flm": runs}, "final_m", "distance at the end [m]")
        )
    methods: dict[str, Callable[..., dict[str, Any]]] = {
        "lqr_flm": lqr_arm.lqr_flm,
        "mppi": lqr_arm.mppi,
        "sparse": lqr_arm.sparse,
    }
    for case in cases:
        found: dict[str, list[dict[str, Any]]] = {}
        for part in arguments.parts:
            if part == "reacher" or (part == "sparse" and case.task != "pushing"):
                continue
            every = case.budget // 5
            found[part] = [
                _kept(
                    folder,
                    f"{case.name.replace(' ', '-')}-{part}-{seed}",
                    lambda part=part, case=case, seed=seed, every=every: methods[part](
                        case, seed, every
                    ),
                )
                for seed in (seeds[:1] if part == "mppi" else seeds)
            ]
        if not found:
            continue
        figures[case.name] = {"budget_steps": case.budget, "robot_hours": case.budget / 36_000}
        for part, runs in found.items():
            figures[case.name][part] = {"seeds": runs, "rows": _rows(runs)}
        plots.append(_curve(folder, case.name, found, "success", "success in 20 trials"))
        if "lqr_flm" in found:
            least = min(run["success"] for run in found["lqr_flm"])
            targets.append(Target(f"{case.name}: success of worst seed", least, 0.8, ">="))
    is_whole = set(arguments.parts) == set(_PARTS) and not (arguments.cases or arguments.seeds)
    is_result = full and (is_whole or bool(arguments.cut))
    harness.finish("lqr", folder, figures, targets, is_result, plots)


def _kept(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is measured, or what an earlier call measured."""
    path = folder / f"{name}.json"
    if not path.exists():
        measured = make()
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(measured, indent=1, default=float))
        fresh.replace(path)
        last = {key: value for key, value in measured.items() if key != "curve"}
        print(f"{name}: {last}", flush=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _reacher(runs: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    finals = [run["final_m_median"] for run in runs]
    return {
        "steps": steps,
        "final_m_median": float(np.median(finals)),
        "final_m_of_worst_seed": max(finals),
        "cpu_s_largest": max(run["cpu_s"] for run in runs),
        "rows": [{k: v for k, v in run.items() if k != "curve"} for run in runs],
    }


def _rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return trials after each stage, one row a seed and stage."""
    return [{"seed": run["seed"], **row} for run in runs for row in run["curve"]]


def _curve(
    folder: Path, name: str, found: dict[str, list[dict[str, Any]]], key: str, label: str
) -> Path:
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="tight")
    for color, (part, runs) in enumerate(found.items()):
        for index, run in enumerate(runs):
            x = [row["steps"] for row in run["curve"]]
            y = [row[key] for row in run["curve"]]
            axes.plot(x, y, "o-", ms=3, color=f"C{color}", alpha=0.7, label=None if index else part)
    if key == "success":
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_yscale("log")
    axes.set_xlabel("steps that were learned from")
    axes.set_ylabel(label)
    axes.set_title(name)
    axes.legend()
    path = folder / f"{name.replace(' ', '-')}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
