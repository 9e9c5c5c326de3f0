# SPDX-License-Identifier: Apache-2.0
"""Policies from bags alone, on bags of mixed quality that were made in the valve's twin: cloning,
implicit Q-learning and BEAR's constraint beside plain soft actor-critic on the same bags; and
DisCor's weights on a tree of seven states.

A third of the episodes moves at random; the others are planned with the shipped model, with more
and less noise on top. Returns are those of fresh episodes, whose error tells of success. Every
algorithm and seed is kept in the run's folder; --resume carries on.
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
import torch
from harness import Target
from seven_states import SevenStateTree
from twinloop.fleet import Job, packed
from twinloop.fleet.runner import run_job
from twinloop.learning.action_units import units_of
from twinloop.learning.episode import Episode
from twinloop.learning.episode_bags import EpisodeBags, read_bags
from twinloop.learning.model_file import load_model
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.offline import OfflineLearner, OfflineSettings
from twinloop.learning.policy_run import try_policy
from twinloop.nodes.planner import shipped_model

from twinloop import tasks

TASK = "valve"
_ALGORITHMS = ("bc", "iql", "bear", "sac")
_NOISES = (0.0, 0.5, 1.0)
_HIDDEN = (128, 128)
_DISCOUNT = 0.95
_FIRST_SEED = 50_000_000
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
    planned, updates, trials = (120, 6_000, 50) if full else (6, 100, 3)
    bags = folder / "bags"
    recorded = make_bags(bags, planned)
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
    targets = [
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


def make_bags(folder: Path, planned: int) -> list[Episode]:
    """Make the bags that are not there yet, and return the episodes of all of them."""
    task: Any = tasks.make(TASK)
    bags = EpisodeBags(folder, task.contract)
    model = packed(load_model(shipped_model(TASK)).model)
    for source, count in (("random", planned // 2), ("model", planned)):
        seeds = [_FIRST_SEED + index for index in range(count)]
        missing = [seed for seed in seeds if bags.find(source, seed) is None]
        for first in range(0, len(missing), 10):
            job = Job(
                TASK,
                source,  # type: ignore[arg-type]
                tuple(missing[first : first + 10]),
                task.episode_steps,
                hands=10,
                noises=_NOISES,
                model=model if source == "model" else None,
            )
            for record in run_job(job):
                bags.add(record)
    return read_bags([folder], task.contract)


def about(recorded: list[Episode]) -> dict[str, Any]:
    """Return how good what was recorded is."""
    task: Any = tasks.make(TASK)
    found: dict[str, Any] = {
        "episodes": len(recorded),
        "transitions": sum(map(len, recorded)),
    }
    groups: dict[str, list[Episode]] = {}
    for episode in recorded:
        seed = int(episode.meta["seed"])
        is_random = str(episode.meta["episode_id"]).startswith("random")
        name = "random" if is_random else f"planned, noise {_NOISES[seed % len(_NOISES)]:g}"
        groups.setdefault(name, []).append(episode)
    for name, episodes in groups.items():
        found[f"{name}: return"] = float(np.mean([total(task, one) for one in episodes]))
    found["return_mean"] = float(np.mean([total(task, one) for one in recorded]))
    return found


def learned(
    recorded: list[Episode], algorithm: str, seed: int, updates: int, trials: int
) -> dict[str, Any]:
    """Learn from the bags, noting the values of what was done, and measure the policy."""
    task: Any = tasks.make(TASK)
    learner: Any
    if algorithm == "sac":
        ratio = 1.5 * updates / sum(map(len, recorded))
        settings = OffPolicySettings(
            hidden=_HIDDEN, discount=_DISCOUNT, normalises=True, updates=ratio
        )
        learner = OffPolicyLearner(task, settings, seed)
        learner.add(recorded)
    else:
        chosen = OfflineSettings(
            algorithm,  # type: ignore[arg-type]
            hidden=_HIDDEN,
            discount=_DISCOUNT,
            updates=updates,
        )
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

    cell = cells.make(TASK, 1)
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
        # No policy earns more than this from anywhere: 2 a step at most, by the task's reward.
        "largest_possible_value": 2.0 / (1.0 - _DISCOUNT),
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
    axes.axhline(2.0 / (1.0 - _DISCOUNT), color="0.5", ls=":", label="largest possible")
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
