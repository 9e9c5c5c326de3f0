# SPDX-License-Identifier: Apache-2.0
"""What a fleet of twins gives: transitions a second, what an episode costs beside its own work, and
how much the learner that it feeds can take.

Each fleet runs the same jobs, so each must give the same episodes. Its driver writes every one of
them as a bag, as training does. Ray's row says why where Ray is not installed.

    python benchmarks/fleet.py [--full]
"""

from __future__ import annotations

import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from harness import Target
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from torch.utils.flop_counter import FlopCounterMode
from twinloop.contract import load as load_contract
from twinloop.fleet import Fleet, FleetError, Job, deal, open_fleet, packed
from twinloop.learning.episode import Episode
from twinloop.learning.episode_bags import EpisodeBags
from twinloop.learning.fit import fit
from twinloop.learning.goals import goals_of
from twinloop.learning.model_file import load_model
from twinloop.learning.policy import PolicyConfig, PolicyLearner
from twinloop.learning.protocol import protocol
from twinloop.learning.rollout import EpisodeRecord
from twinloop.models import from_tensors, new_model
from twinloop.paths import share

from twinloop import planners, tasks

TASK = "baoding"
CONTRACT = load_contract(TASK)
KINDS = ("random", "policy", "planned")
FLEETS = (("this process", 1, None), ("2 processes", 2, None), ("2 actors of Ray", 2, "local"))
WARM = 3  # calls that are not counted
SIZED_FOR = 100_000  # transitions of a training run


@dataclass(frozen=True)
class Form:
    """How much is run.

    Attributes:
        episodes: of each kind.
        steps: control steps of an episode, at most.
        rounds: how often each fleet runs them; the quickest round counts.
        repeats: of what takes milliseconds; the median counts.
    """

    episodes: dict[str, int]
    steps: int
    rounds: int
    repeats: int


QUICK = Form({"random": 16, "policy": 16, "planned": 8}, 20, 1, 10)
FULL = Form({"random": 96, "policy": 96, "planned": 32}, 100, 3, 60)


def main() -> None:
    arguments = harness.parser(__doc__).parse_args()
    form = FULL if arguments.full else QUICK
    folder = harness.start("fleet", arguments.full)
    torch.set_num_threads(1)
    jobs = make_jobs(form)
    fleets, episodes, differing = measure_fleets(jobs, form)
    figures: dict[str, Any] = {"fleets": fleets}
    figures["overhead"] = overhead(form, episodes["planned"])
    figures["transition"] = transition(jobs["planned"], episodes["planned"])
    figures["learner"] = learner(episodes["planned"], form)
    figures["sizing"] = sizing(figures)
    plots = [draw_rates(fleets, folder), draw_sizing(figures["sizing"], folder)]
    targets = [Target("episodes_that_differ_between_fleets", differing, 0, "<=")]
    harness.finish("fleet", folder, figures, targets, arguments.full, plots)


def make_jobs(form: Form) -> dict[str, Job]:
    """Return random motion, an untrained policy, and planning with the shipped model."""
    shipped = share("models", TASK)
    folder = shipped / (shipped / "current").read_text().strip()
    model = load_model(folder, CONTRACT).model
    seeds = {kind: tuple(range(count)) for kind, count in form.episodes.items()}
    random = Job(TASK, "random", seeds["random"], form.steps, hands=4)
    explorer = new_learner().explorer()
    return {
        "random": random,
        "policy": replace(random, source="explore", seeds=seeds["policy"], proposal=explorer),
        "planned": replace(random, source="model", seeds=seeds["planned"], model=packed(model)),
    }


def new_learner() -> PolicyLearner:
    """Return what learns a policy by the task's protocol."""
    task, settings = tasks.make(TASK), protocol(TASK, SIZED_FOR)
    change = planners.action_space(task).largest_change
    goals = goals_of(task, settings.relabelled)
    return PolicyLearner(goals, change, 0, settings.policy or PolicyConfig())


def measure_fleets(
    jobs: dict[str, Job], form: Form
) -> tuple[list[dict[str, Any]], dict[str, list[EpisodeRecord]], int]:
    """Return a row for each fleet and kind, the episodes, and how many differ between fleets."""
    rows: list[dict[str, Any]] = []
    first: dict[str, list[EpisodeRecord]] = {}
    differing = 0
    for name, workers, ray in FLEETS:
        try:
            with open_fleet(workers, ray) as fleet:
                for kind in KINDS:
                    records, seconds = quickest(fleet, jobs[kind], form)
                    rows.append(row(name, kind, records, seconds))
                    differing += differences(first.setdefault(kind, records), records)
        except FleetError as error:
            rows += [row(f"{name}: {error}", kind, [], float("nan")) for kind in KINDS]
    return rows, first, differing


def quickest(fleet: Fleet, job: Job, form: Form) -> tuple[list[EpisodeRecord], float]:
    """Return a job's episodes in the order of their seeds, and the time of the quickest round."""
    # The first job of a worker pays for its start.
    warm = [replace(job, seeds=(10_000 + k,), steps=2) for k in range(4 * fleet.count)]
    list(fleet.run(warm))
    best = float("inf")
    for _ in range(form.rounds):
        with tempfile.TemporaryDirectory() as folder:
            bags = EpisodeBags(Path(folder), CONTRACT)
            records = []
            began = time.perf_counter()
            for record in fleet.run(deal(job)):
                bags.add(record)
                records.append(record)
            best = min(best, time.perf_counter() - began)
    return sorted(records, key=lambda one: int(one.episode.meta["seed"])), best


def row(name: str, kind: str, records: Sequence[EpisodeRecord], seconds: float) -> dict[str, Any]:
    transitions = sum(len(record.episode) for record in records)
    return {
        "fleet": name,
        "episodes": kind,
        "number": len(records),
        "transitions": transitions,
        "transitions_per_s": transitions / seconds,
        "ms_per_transition": 1e3 * seconds / transitions if transitions else None,
    }


def differences(one: Sequence[EpisodeRecord], other: Sequence[EpisodeRecord]) -> int:
    """Return how many episodes differ in any bit."""
    return sum(
        not (
            np.array_equal(a.episode.observations, b.episode.observations)
            and np.array_equal(a.episode.actions, b.episode.actions)
        )
        for a, b in zip(one, other, strict=True)
    )


def overhead(form: Form, records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Return what an episode costs beside physics and planning: its way to a worker and back, and
    its bag."""
    dispatch = {name: dispatch_ms(workers, ray, form) for name, workers, ray in FLEETS[1:]}
    return {"dispatch_ms_per_job": dispatch, **bag_cost(records, form)}


def dispatch_ms(workers: int, ray: str | None, form: Form) -> float | None:
    """Return how much longer a job of one step takes in a worker than in this process."""
    jobs = [Job(TASK, "random", (1,), 1)]
    try:
        with open_fleet(workers, ray) as there, open_fleet(1) as here:
            # Turn by turn, so that other load on the machine falls on both.
            times = [
                (timed_ms(partial(run_all, there, jobs)), timed_ms(partial(run_all, here, jobs)))
                for _ in range(form.repeats + WARM)
            ]
    except FleetError:
        return None
    return statistics.median(far - near for far, near in times[WARM:])


def run_all(fleet: Fleet, jobs: list[Job]) -> None:
    for _ in fleet.run(jobs):
        pass


def bag_cost(records: Sequence[EpisodeRecord], form: Form) -> dict[str, float]:
    """Return the time and the bytes of a bag as a part for each episode and one for each
    transition."""
    longest = max(records, key=lambda one: len(one.episode))
    length = len(longest.episode)
    short = replace(
        longest,
        episode=Episode(
            longest.episode.observations[:3], longest.episode.actions[:2], longest.episode.meta
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        homes = Path(folder) / "short", Path(folder) / "long"
        # Turn by turn, so that other load on the machine falls on both.
        times = [
            [
                timed_ms(partial(write_next, *one))
                for one in zip(homes, (short, longest), strict=True)
            ]
            for _ in range(form.repeats + WARM)
        ]
        sizes = [size_of(next(home.iterdir())) for home in homes]
    spent = [statistics.median(column) for column in zip(*times[WARM:], strict=True)]
    slope_ms = (spent[1] - spent[0]) / (length - 2)
    slope_bytes = (sizes[1] - sizes[0]) / (length - 2)
    return {
        "bag_ms_per_episode": spent[0] - 2 * slope_ms,
        "bag_ms_per_transition": slope_ms,
        "bag_bytes_per_episode": sizes[0] - 2 * slope_bytes,
        "bag_bytes_per_transition": slope_bytes,
    }


def write_next(folder: Path, record: EpisodeRecord) -> None:
    """Write an episode into a folder that has not got it yet."""
    EpisodeBags(folder / str(time.perf_counter_ns()), CONTRACT).add(record)


def transition(job: Job, records: Sequence[EpisodeRecord]) -> dict[str, float]:
    """Return what one transition takes in bytes and floating-point operations."""
    record = max(records, key=lambda one: len(one.episode))
    length = len(record.episode)
    task = tasks.make(TASK)
    assert job.model is not None
    planner = planners.make(planners.DEFAULT, from_tensors(*job.model), task, 0)
    seen = torch.from_numpy(record.episode.observations[:1])
    with FlopCounterMode(display=False) as planning:
        planner.plan_batch(seen, task.targets(seen, planner.horizon))
    episodes = [one.episode for one in records]
    fresh = new_model(TASK, 0)
    with FlopCounterMode(display=False) as fitting:
        report = fit(fresh, episodes, replace(protocol(TASK, SIZED_FOR).fit, epochs=1), seed=0)
    return {
        "array_bytes": 4 * (CONTRACT.observation_size + CONTRACT.action_size),
        "sent_bytes": len(pickle.dumps(record)) / length,
        "model_bytes_sent_once_a_round": len(pickle.dumps(job.model)),
        "planning_megaflop": planning.get_total_flops() / 1e6,
        "fit_megaflop_per_update": fitting.get_total_flops() / report.updates / 1e6,
    }


def learner(records: Sequence[EpisodeRecord], form: Form) -> dict[str, float]:
    """Return how long the learner's gradient steps take on one thread [ms], by the protocol."""
    episodes = [record.episode for record in records]
    settings = protocol(TASK, SIZED_FOR).fit
    model = new_model(TASK, 0)
    report = fit(model, episodes, replace(settings, epochs=1), seed=0)
    epochs = max(1, form.repeats // max(report.updates, 1))
    report = fit(model, episodes, replace(settings, epochs=epochs), seed=0, warm_start=True)
    policy = new_learner()
    policy.add(episodes)
    policy.improve(time_limit_s=0.5)
    began = time.perf_counter()
    done = policy.improve(time_limit_s=0.05 * form.repeats)
    return {
        "fit_update_ms": 1e3 * report.seconds / report.updates,
        "policy_update_ms": 1e3 * (time.perf_counter() - began) / done,
    }


def sizing(figures: dict[str, Any]) -> dict[str, Any]:
    """Return how many workers one driver keeps busy, on cores like these: those whose episodes it
    has just the time to write, and those that collect as quickly as it learns."""
    rates = {
        row["episodes"]: row["transitions_per_s"]
        for row in figures["fleets"]
        if row["fleet"] == FLEETS[0][0]
    }
    cost, asked = figures["overhead"], protocol(TASK, SIZED_FOR)
    bag_ms = cost["bag_ms_per_transition"] + cost["bag_ms_per_episode"] / asked.steps
    fits = asked.updates_last + asked.updates_stage * (len(asked.stages) - 1)
    per_transition = {
        "policy_updates": asked.policy.updates if asked.policy else 0.0,
        "fit_updates": fits / SIZED_FOR
        + (0.0 if asked.policy else asked.updates_round / asked.per_round),
    }
    learning_ms = sum(
        count * figures["learner"][f"{name.removesuffix('s')}_ms"]
        for name, count in per_transition.items()
    )
    return {
        "updates_per_transition": per_transition,
        "worker_transitions_per_s": rates,
        "written_transitions_per_s": 1e3 / bag_ms,
        "learned_transitions_per_s": 1e3 / learning_ms,
        "workers_that_saturate_the_bags": {k: 1e3 / bag_ms / v for k, v in rates.items()},
        "workers_that_saturate_the_learner": {k: 1e3 / learning_ms / v for k, v in rates.items()},
        "megabytes_of_bags_per_100k_transitions": 0.1
        * (cost["bag_bytes_per_transition"] + cost["bag_bytes_per_episode"] / asked.steps),
    }


def draw_rates(rows: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Draw the transitions a second of every fleet."""
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    for place, kind in enumerate(KINDS):
        axes = figure.add_subplot(1, len(KINDS), place + 1)
        shown = [one for one in rows if one["episodes"] == kind and one["number"]]
        names = [one["fleet"].replace(" of ", "\nof ") for one in shown]
        bars = axes.bar(names, [one["transitions_per_s"] for one in shown], color="#1f6f8b")
        axes.bar_label(bars, fmt="%.0f", fontsize=9)
        axes.set_title(f"{kind} episodes", loc="left", fontsize=11)
        axes.set_ylabel("transitions/s, bags written")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    path = folder / "rates.png"
    figure.savefig(path, dpi=120)
    return path


def draw_sizing(sizes: dict[str, Any], folder: Path) -> Path:
    """Draw what a fleet would give over its workers, up to where its driver is full."""
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    workers = np.arange(1, 65)
    for kind, color in zip(KINDS, ("#c8553d", "#e3a94f", "#1f6f8b"), strict=True):
        offered = workers * sizes["worker_transitions_per_s"][kind]
        collected = np.minimum(offered, sizes["written_transitions_per_s"])
        # Collecting and learning take turns.
        trained = 1.0 / (1.0 / collected + 1.0 / sizes["learned_transitions_per_s"])
        axes.plot(workers, collected, color=color, lw=1.4, label=f"{kind}, collected")
        axes.plot(workers, trained, "--", color=color, lw=1.4, label=f"{kind}, and learned from")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_yscale("log")
    axes.set_xlabel("workers, each on a core of its own (computed from the measured costs)")
    axes.set_ylabel("transitions/s")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    path = folder / "sizing.png"
    figure.savefig(path, dpi=120)
    return path


def timed_ms(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def size_of(folder: Path) -> int:
    return sum(
        os.path.getsize(Path(where) / name) for where, _, names in os.walk(folder) for name in names
    )


if __name__ == "__main__":
    main()
