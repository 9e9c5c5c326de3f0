# SPDX-License-Identifier: Apache-2.0
"""The Baoding task learned from nothing and with a twin's help: curves over training seeds.

Each seed is one `twinloop train`. Each model that it made on the way is measured on fresh episodes
in which its policy acts alone, and the last one also by `twinloop eval`, with the default planner
about the policy; with the twin's help for each goal that it was trained for. Every episode of every
seed counts. Training carries on where it was interrupted when the benchmark is called again with
--resume.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import matplotlib.pyplot as plt
import numpy as np
from harness import Target
from matplotlib.axes import Axes
from twinloop.contract import load as load_contract
from twinloop.fleet import Job, deal, open_fleet, packed
from twinloop.learning.model_file import load_model
from twinloop.learning.protocol import protocol
from twinloop.learning.training_run import summary

from twinloop import tasks

TWINLOOP = Path(sys.executable).with_name("twinloop")
EVALUATION_SEED = 700_000_000
GOAL_EPISODES = 30  # of each goal beside the task's own
# What PDDM's authors published for their robot (arXiv 1909.11652 and its blog post), at 10 Hz:
# transitions, success at 90 degrees, success at 180 degrees.
PDDM = {"hardware": [(72_000, 1.0, None), (144_000, None, 0.54)]}


@dataclass(frozen=True)
class Form:
    """How much of the protocol is run."""

    seeds: tuple[int, ...]
    transitions: int
    episodes: int


@dataclass(frozen=True)
class Point:
    """One model of one seed."""

    transitions: int
    episodes: int
    success_90: float
    success_180: float
    rotation_deg_median: float
    drop_share: float


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--pretrain", action="store_true", help="with the twin's help")
    parser.add_argument("--transitions", type=int, help="instead of the form's")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the form's")
    parser.add_argument("--cut", help="why the protocol was not run in full")
    arguments = parser.parse_args()
    name = "pretraining" if arguments.pretrain else "learning"
    quick = Form((0,), 3_000, 4)
    full = Form((0, 1, 2), 15_000 if arguments.pretrain else 100_000, 50)
    form = full if arguments.full else quick
    form = Form(
        tuple(arguments.seeds or form.seeds),
        arguments.transitions or form.transitions,
        form.episodes,
    )
    folder = harness.start(name, arguments.full, arguments.resume)
    curves, minutes, planned, others = {}, {}, {}, {}
    for seed in form.seeds:
        began = time.monotonic()
        run = folder / f"seed-{seed}"
        _train(run, seed, form, arguments.pretrain)
        minutes[seed] = _minutes(run, time.monotonic() - began)
        curves[seed] = [_measure(run, version, form) for version in _versions(run)]
        last = _versions(run)[-1]
        planned[seed] = _measure_planned(run, last, form)
        if arguments.pretrain:
            goals = sorted(
                set(protocol("baoding", form.transitions, pretrain=True).goals) - {"ccw"}
            )
            others[seed] = {goal: _measure_goal(run, last, form, goal) for goal in goals}
    figures: dict[str, Any] = {"cut": arguments.cut} if arguments.cut else {}
    figures |= {
        "seeds": list(form.seeds),
        "episodes_a_point": form.episodes,
        "minutes": minutes,
        "policy_alone": {str(seed): [vars(p) for p in points] for seed, points in curves.items()},
        "planner_about_last_policy": {str(seed): row for seed, row in planned.items()},
    }
    if others:
        figures["other_goals"] = {str(seed): row for seed, row in others.items()}
    draw(folder / "curves.png", curves, name)
    rows = list(planned.values())
    targets = pretraining_targets(rows) if arguments.pretrain else scratch_targets(rows, minutes)
    harness.finish(name, folder, figures, targets, arguments.full, [folder / "curves.png"])


def scratch_targets(last: list[dict[str, float]], minutes: dict[int, float]) -> list[Target]:
    def mean(name: str) -> float:
        return float(np.mean([row[name] for row in last]))

    return [
        Target("mean success at 90 deg", mean("success_90"), 0.9, ">="),
        Target("mean success at 180 deg", mean("success_180"), 0.5, ">="),
        Target("minutes of the slowest seed", max(minutes.values()), 75.0, "<="),
    ]


def pretraining_targets(last: list[dict[str, float]]) -> list[Target]:
    return [
        Target("least success at 180 deg", min(row["success_180"] for row in last), 0.9, ">="),
        Target("least median rotation", min(r["rotation_deg_median"] for r in last), 250.0, ">="),
    ]


def _train(run: Path, seed: int, form: Form, pretrain: bool) -> None:
    command = ["train", "baoding", "--seed", seed, "--transitions", form.transitions, "--out", run]
    command += ["--pretrain"] if pretrain else []
    if (run / "report.json").exists():
        return
    command += ["--resume"] if run.exists() else []
    command += ["--evaluate", min(form.episodes, 20)]
    _call([*command, "--json"], run.with_suffix(".train.json"))


def _minutes(run: Path, now_s: float) -> float:
    """Return how long training took, from its own report where it was done before."""
    report = json.loads((run / "report.json").read_text())
    return float(max(report["wall_s"], now_s) / 60)


def _versions(run: Path) -> list[Path]:
    return sorted((run / "baoding").glob("v????"))


def _measure(run: Path, version: Path, form: Form) -> Point:
    """Return how fresh episodes go with a policy: the same ones for every model and seed."""
    kept = run.with_name(f"{run.name}-{version.name}.json")
    if not kept.exists():
        contract = load_contract("baoding")
        loaded = load_model(version, contract)
        proposal = loaded.model.proposal
        assert proposal is not None
        seeds = tuple(range(EVALUATION_SEED, EVALUATION_SEED + form.episodes))
        job = Job("baoding", "proposal", seeds, 100, hands=25, proposal=packed(proposal))
        with open_fleet(1) as fleet:
            episodes = [record.episode for record in fleet.run(deal(job))]
        row = summary(tasks.make("baoding"), episodes)
        point = Point(
            transitions=loaded.manifest.lineage.total_transitions,
            episodes=int(row["episodes"]),
            success_90=row["success_90"],
            success_180=row["success_180"],
            rotation_deg_median=row["rotation_deg_median"],
            drop_share=row["drop_share"],
        )
        kept.write_text(json.dumps(vars(point)))
    return Point(**json.loads(kept.read_text()))


def _measure_planned(run: Path, version: Path, form: Form) -> dict[str, float]:
    """Return how the same episodes go with the default planner about the policy."""
    found = _evaluated(run, version, "planned", ["--episodes", form.episodes])
    names = ("episodes", "success_90", "success_180", "rotation_deg_median", "drops")
    return {name: found[name] for name in names}


def _measure_goal(run: Path, version: Path, form: Form, goal: str) -> dict[str, Any]:
    """Return how fresh episodes with another goal go, the default planner about the policy."""
    options = ["--goal", goal, "--episodes", min(form.episodes, GOAL_EPISODES)]
    found = _evaluated(run, version, goal, options)
    names = ("episodes", "succeeded", "progress_median", "unit", "drops")
    return {name: found[name] for name in names}


def _evaluated(run: Path, version: Path, name: str, options: list[Any]) -> dict[str, Any]:
    """Return the summary of `twinloop eval`, which is called unless it was before."""
    out = run.with_name(f"{run.name}-{version.name}-{name}")
    report = out / "report.json"
    if not report.exists():
        shutil.rmtree(out, ignore_errors=True)
        options = [*options, "--seed", EVALUATION_SEED, "--hands", 25]
        _call(["eval", "baoding", "--model", version, *options, "--out", out, "--json"], None)
    summary_of_it: dict[str, Any] = json.loads(report.read_text())["summary"]
    return summary_of_it


def _call(arguments: list[Any], keep: Path | None) -> None:
    words = [str(TWINLOOP), *map(str, arguments)]
    print("$", " ".join(words), file=sys.stderr, flush=True)
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    if keep is not None:
        keep.write_text(done.stdout)


def draw(path: Path, curves: dict[int, list[Point]], title: str) -> None:
    """Draw success, rotation and drops against transitions: mean and range over seeds."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
    names = ("success_90", "success_180", "rotation_deg_median", "drop_share")
    labels = ("success at 90°", "success at 180°", "median rotation [deg]", "dropped")
    for axis, name, label in zip(axes, names, labels, strict=True):
        _band(axis, list(curves.values()), name)
        axis.set(xscale="log", xlabel="transitions", title=label, xlim=(2_000, 200_000))
        if name != "rotation_deg_median":
            axis.set_ylim(-0.03, 1.03)
    for column, axis in ((1, axes[0]), (2, axes[1])):
        points = [(row[0], row[column]) for row in PDDM["hardware"] if row[column] is not None]
        axis.plot(*zip(*points, strict=True), "k^", label="PDDM, robot")
        axis.legend(loc="lower right", frameon=False)
    figure.suptitle(f"{title}: {len(curves)} training seeds, mean and range")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _band(axis: Axes, curves: list[list[Point]], name: str) -> None:
    points = min(map(len, curves))
    x = np.mean([[p.transitions for p in curve[:points]] for curve in curves], axis=0)
    y = np.array([[getattr(p, name) for p in curve[:points]] for curve in curves])
    axis.plot(x, y.mean(0), "o-", ms=4)
    axis.fill_between(x, y.min(0), y.max(0), alpha=0.2)


if __name__ == "__main__":
    main()
