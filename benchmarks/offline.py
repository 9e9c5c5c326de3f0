# SPDX-License-Identifier: Apache-2.0
"""Policies from bags alone, on all bags of a robot that learned to turn the valve of the twin, from
random motion to its last policy: cloning, implicit Q-learning and BEAR's constraint beside plain
soft actor-critic on the same bags; and DisCor's weights on a tree of seven states.

Returns are those of fresh episodes, whose error tells of success. The bags are those of the first
seed of `make bench-rl`, as far as they are learned from; they are made anew where the run's folder
has none. Every algorithm and seed is kept there; --resume carries on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import harness
import matplotlib.pyplot as plt
import numpy as np
import rl_valve
import torch
from harness import Target
from seven_states import SevenStateTree
from twinloop.learning.action_units import units_of
from twinloop.learning.episode import Episode
from twinloop.learning.episode_bags import read_bags
from twinloop.learning.off_policy import OffPolicyLearner
from twinloop.learning.offline import OfflineLearner
from twinloop.learning.policy_run import PolicyRunSettings, learn_policy, try_policy
from twinloop.learning.policy_training import offline_settings, online_settings

from twinloop import tasks

TASK = "valve"
_ALGORITHMS = ("bc", "iql", "bear", "sac")
_DISCOUNT = 0.95  # of all of them
# No policy earns more than this from anywhere: 2 a step at most, by the task's reward.
_LARGEST = 2.0 / (1.0 - _DISCOUNT)
_NAMES = {"bc": "cloning", "iql": "IQL", "bear": "BEAR's constraint", "sac": "SAC, as off policy"}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 to 2")
    parser.add_argument("--cut", default="", help="why a full protocol is cut short")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    full = arguments.full
    folder = harness.start("offline", full, arguments.resume)
    seeds = arguments.seeds or list(range(3 if full else 1))
    transitions, updates, trials = (54_000, 6_000, 50) if full else (500, 100, 3)
    recorded = make_bags(folder / "learning", transitions)
    figures: dict[str, Any] = {"cut": arguments.cut} if arguments.cut else {}
    figures["bags"] = about(recorded)
    figures["tree"] = kept(folder, "tree", tree)
    runs: dict[str, list[dict[str, Any]]] = {}
    for algorithm in _ALGORITHMS:
        runs[algorithm] = [
            kept(
                folder,
                f"{algorithm}-{seed}",
                partial(learned, recorded, algorithm, seed, updates, trials),
            )
            for seed in seeds
        ]
    figures["updates"], figures["trials_a_seed"], figures["seeds"] = updates, trials, len(seeds)
    figures["rows"] = [
        {"algorithm": _NAMES[name], **{k: v for k, v in run.items() if k != "curve"}}
        for name, several in runs.items()
        for run in several
    ]
    mean = {
        name: float(np.mean([run["return_mean"] for run in several]))
        for name, several in runs.items()
    }
    figures["return_mean"] = mean
    largest = max(run["value_of_policy_at_end"] for run in runs["bear"])
    targets = [
        Target(
            "return of IQL over that of the bags",
            mean["iql"] - figures["bags"]["return_mean"],
            0.0,
            ">=",
        ),
        Target("largest value of BEAR over the largest possible", largest / _LARGEST, 1.0, "<="),
        Target("return of IQL over cloning", mean["iql"] - mean["bc"], 0.0, ">="),
        Target("return of IQL over plain SAC", mean["iql"] - mean["sac"], 0.0, ">="),
        Target(
            "tree: largest error after 60 iterations, DisCor",
            figures["tree"]["corrected_worst"],
            1e-3,
            "<=",
        ),
    ]
    plots = [draw(folder, runs), draw_tree(folder, figures["tree"])]
    figures["tree"] = {k: v for k, v in figures["tree"].items() if k != "curves"}
    harness.finish("offline", folder, figures, targets, full, plots)


def make_bags(folder: Path, transitions: int) -> list[Episode]:
    """Return the episodes of a robot that learns, in the order in which it learned from them."""
    from twinloop_sim import cells

    task: Any = tasks.make(TASK)
    cell = cells.make(TASK, rl_valve.SIDE_BY_SIDE)
    run = PolicyRunSettings(transitions, task.episode_steps)
    learn_policy(folder, task, cell, run, online_settings(TASK), 0)
    cell.close()
    # There are more of them where the run went on for longer.
    return read_bags([folder / "bags"], task.contract)[: transitions // task.episode_steps]


def about(recorded: list[Episode]) -> dict[str, Any]:
    """Return how good what was recorded is: all, and the best tenth of it in a row."""
    task: Any = tasks.make(TASK)
    returns = np.array([total(task, one) for one in recorded])
    tenths = np.array_split(returns, 10)
    return {
        "episodes": len(recorded),
        "transitions": sum(map(len, recorded)),
        "return_mean": float(returns.mean()),
        "return_of_tenths": [float(tenth.mean()) for tenth in tenths],
        "success": float(np.mean([task.succeeded(one) for one in recorded])),
    }


def learned(
    recorded: list[Episode], algorithm: str, seed: int, updates: int, trials: int
) -> dict[str, Any]:
    """Learn from the bags, noting the values of what was done, and measure the policy."""
    task: Any = tasks.make(TASK)
    learner: Any
    if algorithm == "sac":
        ratio = 1.5 * updates / sum(map(len, recorded))
        learner = OffPolicyLearner(task, online_settings(TASK, updates=ratio), seed)
        learner.add(recorded)
    else:
        chosen = offline_settings(TASK, algorithm, updates=updates)
        learner = OfflineLearner(task, recorded, chosen, seed)
    seen = torch.from_numpy(np.concatenate([one.observations[:-1] for one in recorded]))
    done = torch.from_numpy(np.concatenate([units_of(task).of(one) for one in recorded]))
    curve = []
    while learner.updates < updates:
        learner.improve(most=updates // 20)
        values = learner.values(seen[::7], done[::7])
        acted = learner.values(seen[::7], learner.actor().act(seen[::7])[:, 0])
        curve.append(
            {
                "updates": learner.updates,
                "value_recorded": float(values.mean()),
                "value_of_policy": float(acted.mean()),
            }
        )
    from twinloop_sim import cells

    cell = cells.make(TASK, rl_valve.SIDE_BY_SIDE)
    records = try_policy(task, cell, learner.actor(), task.episode_steps, 900 + seed, trials)
    cell.close()
    returns = [total(task, record.episode) for record in records]
    return {
        "seed": seed,
        "return_mean": float(np.mean(returns)),
        "return_deviation": float(np.std(returns)),
        "success": float(np.mean([record.succeeded for record in records])),
        "error_median_rad": float(np.median([record.score for record in records])),
        "value_of_policy_at_end": curve[-1]["value_of_policy"] if algorithm != "bc" else None,
        "largest_possible_value": _LARGEST,
        "curve": curve,
    }


def total(task: Any, episode: Episode) -> float:
    """Return the sum of an episode's rewards."""
    seen = torch.from_numpy(episode.observations)
    units = torch.from_numpy(units_of(task).of(episode))
    return float(task.reward(seen[:-1], units, seen[1:]).sum())


def tree() -> dict[str, Any]:
    """Return the errors on twelve trees, with and without corrected weights."""
    trees = [SevenStateTree(seed) for seed in range(12)]
    plain = np.array([one.learn(60, corrected=False) for one in trees])
    corrected = np.array([one.learn(60, corrected=True) for one in trees])
    return {
        "trees": len(trees),
        "plain_median_after_6": float(np.median(plain[:, 5])),
        "corrected_median_after_6": float(np.median(corrected[:, 5])),
        "plain_diverged": int((plain[:, -1] > 1.0).sum()),
        "corrected_diverged": int((corrected[:, -1] > 1.0).sum()),
        "plain_worst": float(plain[:, -1].max()),
        "corrected_worst": float(corrected[:, -1].max()),
        "curves": {"plain": plain.tolist(), "corrected": corrected.tolist()},
    }


def kept(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is measured, or what an earlier call measured."""
    path = folder / f"{name}.json"
    if not path.exists():
        measured = make()
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(measured, indent=1, default=float))
        fresh.replace(path)
        shown = {k: v for k, v in measured.items() if k not in ("curve", "curves")}
        print(f"{name}: {shown}", flush=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def draw(folder: Path, runs: dict[str, list[dict[str, Any]]]) -> Path:
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="tight")
    for color, (name, several) in enumerate(runs.items()):
        if name == "bc":  # has no values
            continue
        for index, run in enumerate(several):
            x = [row["updates"] for row in run["curve"]]
            y = [row["value_of_policy"] for row in run["curve"]]
            label = None if index else _NAMES[name]
            axes.plot(x, y, color=f"C{color}", alpha=0.8, label=label)
    axes.axhline(_LARGEST, color="0.5", ls=":", label="largest possible")
    axes.set_yscale("symlog", linthresh=10.0)
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("value of the policy's actions")
    axes.legend(fontsize=8)
    return saved(figure, folder / "values.png")


def draw_tree(folder: Path, found: dict[str, Any]) -> Path:
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="tight")
    for color, (name, curves) in enumerate(found["curves"].items()):
        for index, curve in enumerate(curves):
            axes.plot(curve, color=f"C{color}", alpha=0.6, label=None if index else name)
    axes.set_yscale("log")
    axes.set_ylim(1e-10, 1e3)
    axes.set_xlabel("iterations")
    axes.set_ylabel("largest error of the values")
    axes.legend()
    return saved(figure, folder / "tree.png")


def saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
