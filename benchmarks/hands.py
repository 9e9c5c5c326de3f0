# SPDX-License-Identifier: Apache-2.0
"""Hands beside Baoding learn from nothing: a valve, a cube in the palm, and writing with a pencil.

Each training seed of each task is one run of the training protocol, whose models are measured on
fresh episodes; every episode and every seed counts. The pencil's model is trained on random strokes
and then, as it is, draws digits. An interrupted benchmark carries on with --resume.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import matplotlib.pyplot as plt
import numpy as np
import torch
from harness import Target
from numpy.typing import NDArray
from twinloop.contract import load as load_contract
from twinloop.fleet import Fleet, Job, deal, open_fleet, packed
from twinloop.learning.episode import Episode
from twinloop.learning.registry import Registry
from twinloop.learning.train import TrainResult, train
from twinloop.learning.training_run import Listener
from twinloop.models import Ensemble

from twinloop import tasks

_FRESH_SEEDS = 700_000_000
_HOLD_STEPS = 10  # at the end of an episode


@dataclass(frozen=True)
class Hand:
    """What is asked of one task.

    Attributes:
        transitions: that a training run collects, as PDDM did in 20 minutes or an hour.
        success: share of fresh episodes that should succeed; None where nothing was promised.
    """

    transitions: int
    success: float | None = None


HANDS = {
    "valve": Hand(12_000, success=0.9),
    "cube": Hand(36_000),
    "pencil": Hand(12_000),
}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--tasks", nargs="+", choices=HANDS, default=list(HANDS))
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the form's")
    parser.add_argument("--transitions", type=int, help="at most, instead of a task's own")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cut", default="", help="why a full protocol is cut short")
    arguments = parser.parse_args()
    seeds = arguments.seeds or ([0, 1, 2] if arguments.full else [0])
    count = 50 if arguments.full else 10
    limit = arguments.transitions or (None if arguments.full else 1_500)
    folder = harness.start("hands", arguments.full, arguments.resume)
    figures: dict[str, Any] = {"training_seeds": seeds}
    if arguments.cut:
        figures["cut"] = arguments.cut
    targets: list[Target] = []
    plots: list[Path] = []
    for name in arguments.tasks:
        hand = HANDS[name]
        transitions = min(hand.transitions, limit or hand.transitions)
        runs = {
            seed: _measured(folder, name, seed, transitions, count, arguments.workers)
            for seed in seeds
        }
        figures[name] = {"protocol_transitions": hand.transitions, "seeds": runs}
        plots.append(_curve(folder, name, runs))
        if name == "pencil":
            plots.append(_drawn(folder, seeds[0]))
        if hand.success is not None:
            least = min(run["final"]["success"] for run in runs.values())
            targets.append(Target(f"{name}_success_of_worst_seed", least, hand.success, ">="))
    harness.finish("hands", folder, figures, targets, arguments.full, plots)


def _measured(
    folder: Path, name: str, seed: int, transitions: int, count: int, workers: int
) -> dict[str, Any]:
    """Train with one seed and measure the model, or read what an earlier call measured."""
    path = folder / f"{name}-{seed}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    began = time.monotonic()
    out = folder / f"{name}-{seed}"
    result = train(
        out,
        name,
        seed,
        transitions,
        workers=workers,
        evaluate=count,
        command=f"benchmarks/hands.py, seed {seed}",
        listener=Listener(say=lambda line: print(f"{name} seed {seed}: {line}", flush=True)),
    )
    trained_s = time.monotonic() - began
    with open_fleet(workers) as fleet:
        fresh = _episodes(fleet, result.model, name, seed, count)
        measured = {
            "transitions": result.lineage.total_transitions,
            "rounds": result.rounds,
            "stages": _stages(out, name, result),
            "final": _figures(name, fresh),
            "train_s": trained_s,
        }
        if name == "pencil":
            measured["digits"] = _write_digits(fleet, result, folder, seed)
    path.write_text(json.dumps(measured, indent=1, default=float))
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def _stages(out: Path, name: str, result: TrainResult) -> list[dict[str, float | None]]:
    """Return how the models that were made on the way did on fresh episodes."""
    registry = Registry(out, load_contract(name))
    made = [registry.manifest(version) for version in result.versions]
    return [
        {
            "transitions": one.lineage.total_transitions,
            "score_median": one.metrics["evaluation_score_median"],
            "success": one.metrics["evaluation_success"],
        }
        for one in made
    ]


def _episodes(
    fleet: Fleet, model: Ensemble, name: str, seed: int, count: int, **cell: Any
) -> list[Episode]:
    """Run fresh episodes without noise, in the order of their seeds."""
    first = _FRESH_SEEDS + seed * 1_000
    steps = tasks.make(name).episode_steps
    job = Job(
        name,
        "model",
        tuple(range(first, first + count)),
        steps,
        hands=10,
        cell=cell,
        model=packed(model),
    )
    episodes = [record.episode for record in fleet.run(deal(job))]
    return sorted(episodes, key=lambda one: int(one.meta["seed"]))


def _figures(name: str, episodes: list[Episode]) -> dict[str, Any]:
    """Return how episodes went; a task with a goal to hold also tells whether it was held."""
    task: Any = tasks.make(name)
    scores = np.array([task.score(one.observations) for one in episodes])
    figures: dict[str, Any] = {
        "episodes": len(episodes),
        "unit": task.progress_unit,
        "score_median": float(np.median(scores)),
        "score_mean": float(scores.mean()),
        "score_90_percent": float(np.quantile(scores, 0.9)),
        "success": float(np.mean([task.succeeded(one) for one in episodes])),
        "dropped": float(np.mean([one.meta["stop_reason"] == "dropped" for one in episodes])),
        "first_seed": int(episodes[0].meta["seed"]),
        "scores": scores.round(4).tolist(),
    }
    if name != "pencil":
        errors = [_errors(task, one) for one in episodes]
        held = [bool((row[-_HOLD_STEPS:] <= task.tolerance).all()) for row in errors]
        figures |= {
            "held": float(np.mean(held)),
            "start_median": float(np.median([row[0] for row in errors])),
        }
    return figures


def _errors(task: Any, episode: Episode) -> NDArray[np.float64]:
    return np.asarray(task.error(torch.from_numpy(episode.observations)), dtype=np.float64)


def _write_digits(fleet: Fleet, result: TrainResult, folder: Path, seed: int) -> dict[str, Any]:
    """Let the model draw each digit once; returns the tracking errors and keeps the lines."""
    task: Any = tasks.make("pencil")
    errors, lines = {}, {}
    for digit in range(10):
        [drawn] = _episodes(fleet, result.model, "pencil", seed, 1, paths=f"digit{digit}")
        tip = drawn.observations[1:, task.slices["tip_position"]][:, :2]
        wanted = drawn.observations[:-1, task.slices["goal"]][:, :2]
        error = task.errors(drawn.observations)
        errors[str(digit)] = {"mean_mm": error.mean(), "largest_mm": error.max()}
        lines |= {f"tip{digit}": tip, f"wanted{digit}": wanted}
    np.savez(folder / f"digits-{seed}.npz", **lines)
    return {"mean_mm": float(np.mean([row["mean_mm"] for row in errors.values()])), "each": errors}


def _curve(folder: Path, name: str, runs: dict[int, dict[str, Any]]) -> Path:
    """Draw scores and success over the transitions that had been collected."""
    task = tasks.make(name)
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="tight")
    for index, (seed, run) in enumerate(runs.items()):
        rounds, color = run["rounds"], f"C{index}"
        x = [row["transitions"] for row in rounds]
        above.plot(x, [row["score_median"] for row in rounds], "-", color=color, alpha=0.6)
        below.plot(x, [row["success"] for row in rounds], "-", color=color, alpha=0.6)
        points = [*run["stages"], {"transitions": x[-1], **run["final"]}]
        stages = [row["transitions"] for row in points]
        medians = [row["score_median"] for row in points]
        above.plot(stages, medians, "o", color=color, label=f"seed {seed}")
        below.plot(stages, [row["success"] for row in points], "o", color=color)
    above.set_ylabel(f"median score [{task.progress_unit}]")
    below.set_ylabel("success")
    below.set_ylim(-0.02, 1.02)
    below.set_xlabel("transitions (lines: training rounds with noise; points: fresh episodes)")
    above.set_title(f"Learning curve, {name}")
    above.legend()
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _drawn(folder: Path, seed: int) -> Path:
    """Draw the digits that one model wrote, over the paths it was given."""
    lines = np.load(folder / f"digits-{seed}.npz")
    figure, grid = plt.subplots(2, 5, figsize=(9, 5), layout="tight")
    for digit, axes in enumerate(grid.flat):
        for kind, style in (("wanted", "-"), ("tip", "-")):
            x, y = 1e3 * lines[f"{kind}{digit}"].T
            color = "#c9ced6" if kind == "wanted" else "#1f3b8b"
            axes.plot(x, y, style, color=color, lw=4 if kind == "wanted" else 1.5)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle("Digits, never trained on: path (grey) and tracked tip (blue), 16 mm high")
    path = folder / "digits.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
