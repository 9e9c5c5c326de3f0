# SPDX-License-Identifier: Apache-2.0
"""How fast plans are made, what they cost as they grow, and what they are worth.

    make bench-planning [FULL=1]
    python benchmarks/planning.py [--full] [--only size,default] [--threads 2] [--resume RUN]

size     PDDM's size against the same matrix products alone, and against pytorch_mppi (which
         benchmarks/requirements.txt installs) with the same dynamics
default  the default planner with the shipped model: plans a second, and return beside PDDM's size
memory   resident memory over many plans
cost     time against samples, horizon, members and width
times    plan time of every planner, for three tasks
return   return of every planner, on true dynamics and on the shipped model without its proposal,
         drawn against those times
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import harness
import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch
from harness import Target
from plan_timing import (
    interleaved,
    neighbour_calls,
    plain_ensemble,
    plan_call,
    products_calls,
)
from torch import Tensor
from twinloop.fleet import Job, packed, run_job
from twinloop.learning.model_file import load_model
from twinloop.learning.rollout import EpisodeRecord
from twinloop.models import Ensemble
from twinloop.paths import share
from twinloop.reporting.machine import commit
from twinloop.tasks.base import Task
from twinloop_sim import cells

from twinloop import contract, models, planners, tasks

PDDM = {"samples": 700, "horizon": 7}
WIDTHS = {"2x250": (250, 250), "2x500": (500, 500)}
SWEPT = {
    "samples": (50, 100, 200, 400, 700, 1400),
    "horizon": (2, 4, 7, 10, 15),
    "members": (1, 2, 3, 5, 7),
    "width": (64, 128, 250, 256, 500, 512),
}
COMPARED = ("baoding", "cube", "valve")
TRUE_DYNAMICS = ("baoding",)  # whose twin planners can roll out
# Samples of the planners that are compared by return; true dynamics take a second for 1,000.
BUDGETS = {"model": (16, 64, 256), "oracle": (16, 64)}
FLAT_MIB = 8.0
PARTS = ("size", "default", "memory", "cost", "times", "return")

Figures = dict[str, Any]
Part = tuple[Figures, list[Target]]


def observation_of(task: Task) -> Tensor:
    """Return a first observation of a task's cell [O]."""
    cell = cells.make(task.name, 1)
    try:
        return torch.from_numpy(cell.reset([0]))[0]
    finally:
        cell.close()


def shipped(task: str) -> Ensemble | None:
    """Return the model that ships with a task, None where none does."""
    try:
        folder = share("models", task)
        version = (folder / "current").read_text().strip()
    except FileNotFoundError:
        return None
    return load_model(folder / version, contract.load(task)).model


def _quicker(times: dict[str, float], products: str) -> float:
    """Return the time of products alone, done in the quicker way."""
    return min(times[f"{products}_{way}"] for way in ("batched", "by_member"))


def medians(times: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.median(values)) for name, values in times.items()}


def size(rounds: int) -> Part:
    """Time plans of PDDM's size beside the products of its networks, and beside pytorch_mppi."""
    task = tasks.make("baoding")
    observation = observation_of(task)
    figures: Figures = {}
    targets = []
    for name, hidden in WIDTHS.items():
        model = plain_ensemble(task, hidden)
        calls = {
            **products_calls(model, **PDDM),
            "plan": plan_call(planners.make("mppi", model, task, 0, **PDDM), observation),
        }
        try:
            neighbours = neighbour_calls(model, task, observation, **PDDM)
        except ImportError as error:
            neighbours = {}
            figures["pytorch_mppi"] = f"not measured: {error}"
        times = medians(interleaved({**calls, **neighbours}, rounds))
        for products in ("products", "needed_products"):
            times[f"plan_over_{products}"] = times["plan"] / _quicker(times, products)
        for kind in neighbours:
            times[f"pytorch_mppi_{kind}_over_plan"] = times[kind] / times["plan"]
        figures[name] = times
        targets += [
            Target(f"plan_over_products_{name}", times["plan_over_products"], 1.2, "<="),
            Target(
                f"pytorch_mppi_over_plan_{name}",
                times.get("pytorch_mppi_predict_over_plan"),
                1.25 if name == "2x250" else 1.0,
                ">=",
            ),
        ]
    return figures, targets


def episodes(job: Job) -> list[EpisodeRecord]:
    """Run a job with the threads of this process as they were afterwards."""
    threads = torch.get_num_threads()
    try:
        return run_job(job)
    finally:
        torch.set_num_threads(threads)


def default(rounds: int, count: int, steps: int) -> Part:
    """Time the default planner with the shipped model, and compare its return with PDDM's size."""
    task, model = tasks.make("baoding"), shipped("baoding")
    assert model is not None
    observation = observation_of(task)
    call = plan_call(planners.make(planners.DEFAULT, model, task, 0), observation)
    median = float(np.median(interleaved({"plan": call}, rounds)["plan"]))
    job = Job("baoding", "model", tuple(range(count)), steps, hands=count, model=packed(model))
    totals = {
        name: np.array([record.total_return for record in episodes(one)])
        for name, one in {
            "default": job,
            "pddm_size": replace(job, planner_name="mppi", planner=dict(PDDM)),
        }.items()
    }
    difference = totals["default"] - totals["pddm_size"]
    error = float(difference.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    figures = {
        "planner": planners.DEFAULT,
        "plan_ms_median": median,
        "plans_per_second": 1e3 / median,
        "episodes": count,
        "return_default": totals["default"],
        "return_pddm_size": totals["pddm_size"],
        "return_difference_mean": float(difference.mean()),
        "return_difference_standard_error": error,
    }
    return figures, [
        Target("default_plans_per_second", 1e3 / median, 50.0, ">="),
        # The starts are the same for both; a standard error is left to chance.
        Target("default_return_less_pddm_size", float(difference.mean()), -error, ">="),
    ]


def memory(plans: int) -> Part:
    """Watch the resident memory of this process while it plans."""
    task, model = tasks.make("baoding"), shipped("baoding")
    assert model is not None
    call = plan_call(planners.make(planners.DEFAULT, model, task, 0), observation_of(task))
    process = psutil.Process()
    every = max(plans // 20, 1)
    resident = []
    for index in range(plans + 1):
        if index % every == 0:
            resident.append(process.memory_info().rss / 2**20)
        call()
    # The first tenth fills the allocator's caches.
    growth = resident[-1] - resident[len(resident) // 10]
    figures = {"plans": plans, "every": every, "rss_mib": resident, "growth_mib": growth}
    return figures, [Target("memory_growth_mib", growth, FLAT_MIB, "<=")]


def cost(rounds: int) -> Part:
    """Time plans against one quantity at a time, the others as PDDM has them."""
    task = tasks.make("baoding")
    observation = observation_of(task)
    usual = {**PDDM, "members": 3, "width": 250}
    figures: Figures = {}
    for name, values in SWEPT.items():
        rows = []
        for value in values:
            sizes = {**usual, name: value}
            model = plain_ensemble(task, (sizes["width"],) * 2, sizes["members"])
            amount = {"samples": sizes["samples"], "horizon": sizes["horizon"]}
            planner = planners.make("mppi", model, task, 0, **amount)
            calls = {"plan": plan_call(planner, observation), **products_calls(model, **amount)}
            times = medians(interleaved(calls, rounds))
            products = _quicker(times, "products")
            rows.append({name: value, "plan": times["plan"], "products": products})
        figures[name] = rows
    return figures, []


def draw_cost(times: Figures, path: Path) -> None:
    """Draw the times of `cost`."""
    figure, axes = plt.subplots(1, len(SWEPT), figsize=(13, 3.2), sharey=True)
    for axis, name in zip(axes, SWEPT, strict=True):
        rows = times[name]
        for kind, style in (("plan", "o-"), ("products", "--")):
            axis.plot([row[name] for row in rows], [row[kind] for row in rows], style, label=kind)
        axis.set(xlabel=name, xlim=(0, None))
    axes[0].set(ylabel="median time [ms]", ylim=(0, None))  # of all: they share it
    axes[0].legend()
    _save(figure, path)


def plan_times(rounds: int) -> Part:
    """Time every planner at every budget with an untrained model of each task [ms].

    True dynamics are far slower than any model; that is no time that a robot would wait.
    """
    figures: Figures = {}
    for name in COMPARED:
        task = tasks.make(name)
        observation = observation_of(task)
        model = models.new_model(name, 0)
        model.requires_grad_(False)
        calls = {
            f"{planner}, {samples}": plan_call(
                planners.make(planner, model, task, 0, **budget(planner, samples)), observation
            )
            for planner in planners.samplers()
            for samples in sorted(set().union(*BUDGETS.values()))
        }
        figures[name] = medians(interleaved(calls, rounds))
    return figures, []


def returns(count: int, steps: int) -> Part:
    """Run every planner at several budgets, on true dynamics and on the shipped models alone."""
    figures: Figures = {}
    for name in COMPARED:
        model = shipped(name)
        assert model is not None
        sources = {"model": Job(name, "model", (0,), steps, model=packed(_alone(model)))}
        if name in TRUE_DYNAMICS:
            sources["oracle"] = Job(name, "oracle", (0,), steps)
        figures[name] = {
            source: _choices(replace(job, seeds=tuple(range(count)), hands=count))
            for source, job in sources.items()
        }
    return figures, []


def draw_returns(times: Figures, found: Figures, path: Path) -> None:
    """Draw return against plan time: mean and range over seeds."""
    figure, axes = plt.subplots(
        len(BUDGETS), len(COMPARED), figsize=(3.6 * len(COMPARED), 6.4), squeeze=False
    )
    for column, name in enumerate(COMPARED):
        sources = found[name]
        for axis, source in zip(axes[:, column], BUDGETS, strict=True):
            if source not in sources:
                axis.axis("off")
                continue
            title = f"{name}, true dynamics" if source == "oracle" else f"{name}, model alone"
            axis.set(title=title, xlabel="plan time [ms]", ylabel="return")
            for planner, points in sources[source].items():
                at = [times[name][f"{planner}, {point['budget']}"] for point in points]
                values = [point["returns"] for point in points]
                mean = np.mean(values, axis=1)
                apart = mean - np.min(values, axis=1), np.max(values, axis=1) - mean
                axis.errorbar(at, mean, apart, fmt="o-", capsize=2, label=planner)
            axis.set_xlim(left=0)
            axis.legend(fontsize=8)
    _save(figure, path)


def _choices(job: Job) -> dict[str, list[Figures]]:
    result: dict[str, list[Figures]] = {}
    for planner in planners.samplers():
        for samples in BUDGETS[job.source]:
            records = episodes(replace(job, planner_name=planner, planner=budget(planner, samples)))
            result.setdefault(planner, []).append(
                {
                    "budget": samples,
                    "returns": [record.total_return for record in records],
                    "scores": [record.score for record in records],
                }
            )
    return result


def budget(planner: str, samples: int) -> dict[str, int]:
    """Return changes that make a planner roll out about as many samples as others do."""
    if planner != "icem":
        return {"samples": samples}
    iterations = 3 if samples >= 48 else 2
    elites = max(2, samples // 16)
    return {"samples": max(samples // iterations, 4), "iterations": iterations, "elites": elites}


def _alone(model: Ensemble) -> Ensemble:
    """Return a model without its proposal: the planner has to find out for itself."""
    config = model.config.model_copy(update={"proposal": None})
    tensors = {k: v for k, v in model.state_tensors().items() if not k.startswith("proposal.")}
    return type(model).from_tensors(config.model_dump(mode="json"), tensors)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--threads", type=int, default=2, help="threads of the matrix products")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if not set(wanted) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"--only is {arguments.only}, expected of {PARTS}")
    torch.set_num_threads(arguments.threads)
    full = arguments.full
    rounds = 50 if full else 5
    folder = harness.start("planning", full, arguments.resume)
    measures: dict[str, Callable[[], Part]] = {
        "size": partial(size, rounds),
        "default": partial(default, rounds, 6 if full else 2, 100 if full else 10),
        "memory": partial(memory, 10_000 if full else 100),
        "cost": partial(cost, rounds),
        "times": partial(plan_times, rounds),
        "return": partial(returns, 3, 50 if full else 3),
    }
    # What an earlier call of the same run has measured counts, too.
    found = {
        name: _once(folder / f"{name}.json", measures[name])
        for name in PARTS
        if name in wanted or (folder / f"{name}.json").exists()
    }
    figures: Figures = {"rounds": rounds}
    if full and len(found) < len(PARTS):
        figures["cut"] = f"only {', '.join(found)}"
    figures |= {name: part[0] for name, part in found.items()}
    targets = [target for part in found.values() for target in part[1]]
    if "cost" in found:
        draw_cost(found["cost"][0], folder / "cost.png")
    if {"times", "return"} <= set(found):
        draw_returns(found["times"][0], found["return"][0], folder / "return.png")
    plots = [folder / f"{name}.png" for name in found if (folder / f"{name}.png").exists()]
    harness.finish("planning", folder, figures, targets, full, plots)


def _once(kept: Path, measure: Callable[[], Part]) -> Part:
    """Measure a part, or read what was measured before; figures tell by which code and threads."""
    if kept.exists():
        figures, targets = json.loads(kept.read_text())
        return figures, [Target(**target) for target in targets]
    begun = commit()
    figures, targets = measure()
    figures |= {"commit": begun, "threads": torch.get_num_threads()}
    rows = [asdict(target) for target in targets]
    fresh = kept.with_suffix(".part")
    fresh.write_text(json.dumps(harness.plain([figures, rows])))
    fresh.replace(kept)
    return figures, targets


if __name__ == "__main__":
    main()
