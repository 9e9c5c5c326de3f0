# SPDX-License-Identifier: Apache-2.0
"""Policies learned online: Pendulum-v1, PandaReach with hindsight, and the claw's valve, each from
its observations; and a robot that does not wait for its learner beside one that does.

Every part and seed is measured once and kept in the run's folder, so that an interrupted benchmark
carries on with --resume, amid a seed too. Needs benchmarks/requirements.txt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gym_cell
import harness
import matplotlib.pyplot as plt
import numpy as np
import rl_pace
import rl_valve
import torch
from harness import Target
from twinloop.learning.action_units import units_of
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.policy_run import PolicyRunSettings, learn_policy, try_policy

PARTS = ("pendulum", "panda_reach", "asynchronous", "valve")
_TRIALS = 50
# Those of rl-baselines3-zoo for Pendulum-v1, with layers a quarter as wide, which cost a quarter.
_PENDULUM = OffPolicySettings(hidden=(64, 64), learning_rate=1e-3)
_REACH = OffPolicySettings(
    hidden=(64, 64),
    learning_rate=1e-3,
    discount=0.95,
    first=1000,
    relabelled=0.8,
)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 to 4")
    parser.add_argument("--cut", default="", help="why a full protocol is cut short")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    full = arguments.full
    folder = harness.start("rl", full, arguments.resume)
    seeds = arguments.seeds or list(range(5 if full else 1))
    figures: dict[str, Any] = {"cut": arguments.cut} if arguments.cut else {}
    targets: list[Target] = []
    plots: list[Path] = []
    single: dict[str, tuple[Callable[[], Any], OffPolicySettings, float]] = {
        "pendulum": (gym_cell.pendulum, _PENDULUM, -180.0),
        "panda_reach": (gym_cell.panda_reach, _REACH, -2.5),
    }
    transitions = 20_000 if full else 1_000
    for part, (make, settings, bound) in single.items():
        if part not in arguments.parts:
            continue
        runs = []
        for seed in seeds:
            name = f"{part}-{seed}"
            run = partial(learned, folder / "work" / name, make, settings, seed, transitions)
            runs.append(kept(folder, name, run))
        figures[part] = _summary(runs, transitions)
        targets.append(Target(f"{part}_return_mean", figures[part]["return_mean"], bound, ">="))
        plots.append(_curve(folder, part, runs))
    if "asynchronous" in arguments.parts:
        seconds, trials = (240.0, 50) if full else (12.0, 3)
        found, held = _beside(folder, seeds[:2], seconds, trials)
        figures["asynchronous"] = found
        targets += held
    if "valve" in arguments.parts:
        figures["valve"], plot = _valve(folder, seeds[:2], full)
        plots.append(plot)
    harness.finish("rl", folder, figures, targets, full, plots)


def _beside(
    folder: Path, seeds: list[int], seconds: float, trials: int
) -> tuple[dict[str, Any], list[Target]]:
    """Return a robot that waits for nothing beside one that waits for its learner."""
    rows = []
    for seed in seeds:
        for name in ("asynchronous", "synchronous"):
            work = folder / "work" / f"{name}-{seed}"
            run = partial(
                getattr(rl_pace, name), work, gym_cell.pendulum, _PENDULUM, seed, seconds, trials
            )
            rows.append({"way": name, **kept(folder, f"{name}-{seed}", run)})
    mean = {
        way: float(np.mean([row["return_mean"] for row in rows if row["way"] == way]))
        for way in ("asynchronous", "synchronous")
    }
    worst = max(row.get("period_p99_over_nominal", 0.0) for row in rows)
    found = {"seconds": seconds, "period_s": rl_pace.PERIOD_S, "return_mean": mean, "rows": rows}
    gain = mean["asynchronous"] - mean["synchronous"]
    return found, [
        Target("asynchronous return over synchronous", gain, 0.0, ">="),
        Target("asynchronous: period p99 over nominal", worst, 1.1, "<="),
    ]


def _valve(folder: Path, seeds: list[int], full: bool) -> tuple[dict[str, Any], Path]:
    """Return success of soft actor-critic on the valve against hours of robot time, and what the
    model-based learner reached on the same twin by its own benchmark."""
    stages = [6_000, 12_000, 24_000, 36_000, 54_000, 72_000, 90_000, 108_000] if full else [200]
    runs = [
        kept(folder, f"valve-{seed}", partial(rl_valve.learned, folder / "work", seed, stages))
        for seed in seeds
    ]
    rows = [{"seed": run["seed"], **row} for run in runs for row in run["curve"]]
    model_based = rl_valve.model_based(harness.RESULTS / "hands.json")
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="tight")
    for run in runs:
        x, y = ([row[key] for row in run["curve"]] for key in ("robot_hours", "success"))
        axes.plot(x, y, "o-", label=f"soft actor-critic, seed {run['seed']}")
    x, y = ([row[key] for row in model_based] for key in ("robot_hours", "success"))
    axes.plot(x, y, "s", label="model-based, make bench-hands")
    axes.set_xlabel("hours of robot time at 10 Hz")
    axes.set_ylabel("success within 0.1 rad")
    axes.set_ylim(-0.02, 1.02)
    axes.legend()
    path = folder / "valve.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return {"rows": rows, "model_based": model_based}, path


def learned(
    folder: Path, make: Callable[[], Any], settings: OffPolicySettings, seed: int, transitions: int
) -> dict[str, Any]:
    """Learn one seed and measure its policy, without noise, on fresh episodes."""
    task, cell = make()
    began = time.process_time()
    curve: list[dict[str, float]] = []

    def note(learner: OffPolicyLearner, episode: Any) -> None:
        total = task.total(episode, units_of(task))
        curve.append({"steps": learner.transitions, "return": total})

    steps = task.episode_steps
    learner = learn_policy(
        folder, task, cell, PolicyRunSettings(transitions, steps), settings, seed, note
    )
    records = try_policy(task, cell, learner.actor(), steps, seed, _TRIALS)
    totals = [task.total(record.episode, units_of(task)) for record in records]
    cell.close()
    return {
        "seed": seed,
        "return_mean": float(np.mean(totals)),
        "return_deviation": float(np.std(totals)),
        "return_worst": float(np.min(totals)),
        "trials": len(totals),
        "updates": learner.updates,
        "hidden": settings.hidden,
        # Less than the whole where the seed was interrupted.
        "cpu_s": time.process_time() - began,
        "curve": curve,
    }


def kept(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is measured, or what an earlier call measured."""
    path = folder / f"{name}.json"
    if not path.exists():
        measured = make()
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(measured, indent=1, default=float))
        fresh.replace(path)
        shown = {key: value for key, value in measured.items() if key != "curve"}
        print(f"{name}: {shown}", flush=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _summary(runs: list[dict[str, Any]], transitions: int) -> dict[str, Any]:
    means = [run["return_mean"] for run in runs]
    return {
        "transitions": transitions,
        "seeds": len(runs),
        "return_mean": float(np.mean(means)),
        "return_deviation_between_seeds": float(np.std(means)),
        "return_of_worst_seed": min(means),
        "cpu_s_largest": max(run["cpu_s"] for run in runs),
        "rows": [{k: v for k, v in run.items() if k != "curve"} for run in runs],
    }


def _curve(folder: Path, name: str, runs: list[dict[str, Any]]) -> Path:
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="tight")
    for run in runs:
        x = [row["steps"] for row in run["curve"]]
        y = [row["return"] for row in run["curve"]]
        axes.plot(x, y, lw=1, alpha=0.7, label=f"seed {run['seed']}")
    axes.set_xlabel("steps that were learned from")
    axes.set_ylabel("return of an episode, with noise")
    axes.set_title(name)
    axes.legend()
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
