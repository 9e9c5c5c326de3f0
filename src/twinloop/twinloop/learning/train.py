# SPDX-License-Identifier: Apache-2.0
"""Train a task's model from nothing, or around a proposal policy, in twins on this machine.

From nothing (PDDM): random motion, a first fit, then rounds of planning with the model that has
been learned so far and fitting on all data. With `pretrain` a proposal policy is trained first: it
imitates demonstrations that are planned on the twin's true dynamics and improves on them in a fleet
of twins. The model then learns from what the policy does, and the rounds plan about it.

Every finished round is on disk before the next begins, and an interrupted run carries on there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twinloop.learning import checkpoint
from twinloop.learning.collect import Collector, Job, packed
from twinloop.learning.episode import Episode
from twinloop.learning.fit import FitConfig, fit, prediction_error
from twinloop.learning.model_file import Candidate, Lineage
from twinloop.learning.proposal import ProposalTraining, train_proposal
from twinloop.learning.registry import Registry
from twinloop.learning.replay import split
from twinloop.learning.rollout import EpisodeRecord
from twinloop.models import Ensemble
from twinloop.models.baoding import new_model
from twinloop.models.proposal import Proposal
from twinloop.tasks.baoding import Baoding

Sink = Callable[[EpisodeRecord], None]
Progress = Callable[[str], None]
_SEEDS_PER_RUN = 1_000_000
# Above the seeds of the rounds, within a run's million.
_DEMONSTRATION_SEEDS = 800_000
_EVALUATION_SEEDS = 900_000


@dataclass(frozen=True)
class TrainConfig:
    """What to collect and how long to fit.

    Attributes:
        first: transitions before the first fit.
        rounds, per_round: rounds of planning with the learned model, and transitions in each.
        steps: control steps of an episode.
        noises: disturbances of episodes in turn, as shares of the largest change in a step.
        updates_first, updates_round, updates_last: gradient steps after the first data, after a
            round, and at the end from new weights.
        hands: how many run side by side in a process.
        planner, oracle: changes to config/planner/mppi.yaml, with the model and on true dynamics.
        demonstration_noises: as `noises`, of the demonstrations.
        proposal: how the proposal policy is trained; None: without one.
        held_out_share: of episodes, never trained on.
    """

    first: int
    rounds: int
    per_round: int
    steps: int = 100
    noises: tuple[float, ...] = (0.0, 0.3, 0.0, 0.6, 0.15)
    updates_first: int = 400
    updates_round: int = 120
    updates_last: int = 1600
    hands: int = 8
    planner: dict[str, Any] = field(default_factory=dict)
    oracle: dict[str, Any] = field(default_factory=lambda: {"samples": 60, "horizon": 6})
    demonstration_noises: tuple[float, ...] = (0.0, 0.3, 0.6, 0.0, 0.3, 0.6, 1.0, 0.15)
    proposal: ProposalTraining | None = None
    fit: FitConfig = field(default_factory=FitConfig)
    held_out_share: float = 0.05


def pretraining(transitions: int) -> TrainConfig:
    """Return the protocol around a proposal policy, which alone makes two thirds of the data."""
    first = transitions * 2 // 3
    rounds = max(1, (transitions - first) // 2500)
    per_round = math.ceil((transitions - first) / rounds)
    return TrainConfig(first, rounds, per_round, proposal=ProposalTraining())


def scratch(transitions: int) -> TrainConfig:
    """Return PDDM's protocol: an eighth is random motion, then rounds of about 500."""
    first = transitions // 8
    rounds = max(1, (transitions - first) // 500)
    return TrainConfig(first, rounds, math.ceil((transitions - first) / rounds))


@dataclass(frozen=True)
class TrainResult:
    """A trained model, where it lies, and how it got there."""

    version: str
    folder: Path
    model: Ensemble
    lineage: Lineage
    metrics: dict[str, float | None]
    rounds: list[dict[str, float]]


def train(
    out: Path | str,
    seed: int = 0,
    transitions: int = 15_000,
    pretrain: bool = False,
    workers: int = 2,
    evaluate: int = 20,
    goal: str = "",
    command: str = "",
    config: TrainConfig | None = None,
    sink: Sink | None = None,
    progress: Progress = print,
) -> TrainResult:
    """Train a Baoding model and add it to the registry at `out`.

    The run's data and intermediate models are kept in `out/training`; called again with the same
    settings it carries on after the last finished round. `sink` is called with each new episode
    (not again with those of a resumed run), `progress` with one line a round.

    Args:
        out: registry folder; the model goes to `out/baoding/v0001` or the next free version.
        seed: sets starts, noise, first weights and minibatches. Results repeat for the same seed,
            workers and machine.
        transitions: how many to collect in all.
        pretrain: train a proposal policy first, on top of `transitions`.
        workers: processes that collect.
        evaluate: episodes at the end, fresh and without noise; 0 for none.
        command: what the user typed, for the model's lineage.

    Raises:
        CheckpointInvalid: `out/training` holds a run with other settings, or a damaged file.
        FitDiverged: a fit gave no finite loss.
    """
    out = Path(out)
    config = config or (pretraining(transitions) if pretrain else scratch(transitions))
    run = _Run(Path(out) / "training", seed, pretrain, goal, config, sink, progress)
    torch.set_num_threads(1)
    with Collector(workers) as collector:
        run.start(workers)
        run.propose(collector)
        for index in range(config.rounds + 1):
            run.round(index, collector)
        model = run.finish()
        metrics = run.score(model)
        if evaluate:
            metrics |= run.evaluate(model, evaluate, collector)
    task = Baoding(goal)
    lineage = run.lineage(command)
    candidate = Candidate(model, task.contract, lineage, metrics, status="seed")
    registry = Registry(out, task.contract)
    version = registry.add(candidate)
    return TrainResult(version, registry.path(version), model, lineage, metrics, run.history)


@dataclass
class _Run:
    folder: Path
    seed: int
    pretrain: bool
    goal: str
    config: TrainConfig
    sink: Sink | None
    progress: Progress
    episodes: list[Episode] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    model: Ensemble | None = None
    proposal: Proposal | None = None

    def start(self, workers: int) -> None:
        settings = asdict(self.config) | {
            "seed": self.seed,
            "pretrain": self.pretrain,
            "goal": self.goal,
            "workers": workers,
        }
        checkpoint.start_run(self.folder, settings)

    def propose(self, collector: Collector) -> None:
        """Train the proposal policy, if the protocol has one, or carry on with it."""
        config = self.config.proposal
        if config is None:
            return
        shown = checkpoint.load_episodes(self.folder, "demonstrations")
        if shown is None:
            self.progress(f"plans {config.demonstrations} demonstrations on true dynamics")
            first = self.seed * _SEEDS_PER_RUN + _DEMONSTRATION_SEEDS
            seeds = range(first, first + config.demonstrations)
            job = replace(
                self._job("oracle", seeds, None),
                hands=1,
                noises=self.config.demonstration_noises,
                planner=self.config.oracle,
            )
            shown = [record.episode for record in self._run(job, collector)]
            checkpoint.save_episodes(self.folder, "demonstrations", shown)
        self.proposal = train_proposal(
            Baoding(self.goal),
            self.seed,
            config,
            shown,
            self.progress,
            self.folder / "proposal.ckpt",
            collector.workers,
        )

    def round(self, index: int, collector: Collector) -> None:
        """Collect a round's episodes and fit, or read what an earlier run left of it."""
        began = time.monotonic()
        name = f"round_{index:03d}"
        episodes = checkpoint.load_episodes(self.folder, name)
        if episodes is None:
            episodes = [record.episode for record in self._collect(index, collector)]
            checkpoint.save_episodes(self.folder, name, episodes)
        self.episodes += episodes
        model = checkpoint.load_model(self.folder, f"{name}_model")
        if model is None:
            updates = self.config.updates_round if index else self.config.updates_first
            model = self._fit(self.model, episodes, updates, seed=index)
            checkpoint.save_model(self.folder, f"{name}_model", model)
        self.model = model
        row = _summary(episodes) | {
            "round": index,
            "transitions": sum(map(len, self.episodes)),
            "seconds": time.monotonic() - began,
        }
        self.history.append(row)
        source = self._source(index)
        self.progress(
            f"round {index:2d}/{self.config.rounds} {source:6s} {row['transitions']:6.0f} "
            f"transitions  median {row['rotation_deg_median']:4.0f} deg  "
            f"dropped {row['drop_share']:4.0%}  {row['seconds']:4.0f} s"
        )

    def finish(self) -> Ensemble:
        """Return a model fitted to all data from new weights."""
        model = checkpoint.load_model(self.folder, "final_model")
        if model is None:
            model = self._fit(None, [], self.config.updates_last, seed=10_000)
            checkpoint.save_model(self.folder, "final_model", model)
        return model

    def score(self, model: Ensemble) -> dict[str, float | None]:
        """Return prediction errors on held-out episodes."""
        held_out = split(self.episodes, self.config.held_out_share)[1]
        errors = prediction_error(model, held_out)
        names = {"1": "one_step", "7": "seven_step"}
        return {
            f"{names[k]}_{kind}_mm": value
            for k, row in errors.items()
            for kind, value in row.items()
        }

    def evaluate(
        self, model: Ensemble, count: int, collector: Collector
    ) -> dict[str, float | None]:
        """Return how fresh episodes without noise went; all of them count."""
        first = self.seed * _SEEDS_PER_RUN + _EVALUATION_SEEDS
        job = self._job("model", list(range(first, first + count)), model)
        parts = [replace(job, seeds=part, noises=(0.0,)) for part in _deal(job.seeds, collector)]
        records = [record for part in collector.run(parts) for record in part]
        row = _summary([record.episode for record in records])
        self.progress(
            f"evaluated on {count} episodes: median {row['rotation_deg_median']:.0f} deg, "
            f"dropped {row['drop_share']:.0%}"
        )
        metrics: dict[str, float | None] = {f"evaluation_{k}": v for k, v in row.items()}
        return metrics | {"evaluation_first_seed": float(first)}

    def lineage(self, command: str) -> Lineage:
        training, held_out = split(self.episodes, self.config.held_out_share)
        transitions = sum(map(len, training))
        return Lineage(
            episodes=tuple(str(e.meta["episode_id"]) for e in training),
            held_out=tuple(str(e.meta["episode_id"]) for e in held_out),
            transitions=transitions,
            total_episodes=len(training),
            total_transitions=transitions,
            seed=self.seed,
            command=command,
        )

    def _source(self, index: int) -> str:
        if index:
            return "model"
        return "random" if self.proposal is None else "proposal"

    def _collect(self, index: int, collector: Collector) -> list[EpisodeRecord]:
        """Run episodes until the round has its transitions."""
        wanted = self.config.per_round if index else self.config.first
        next_seed = self.seed * _SEEDS_PER_RUN + index * 10_000
        records: list[EpisodeRecord] = []
        collected = 0
        while collected < wanted:
            length = collected / len(records) if records else self.config.steps
            count = math.ceil((wanted - collected) / length)
            seeds = list(range(next_seed, next_seed + count))
            next_seed += count
            fresh = self._run(self._job(self._source(index), seeds, self.model), collector)
            records += fresh
            collected += sum(len(record.episode) for record in fresh)
        return records

    def _run(self, job: Job, collector: Collector) -> list[EpisodeRecord]:
        """Share a job among the workers; returns its episodes in the order of their seeds."""
        parts = [replace(job, seeds=part) for part in _deal(job.seeds, collector)]
        records = []
        for part in collector.run(parts):
            for record in part:
                records.append(record)
                if self.sink is not None:
                    self.sink(record)
        # Workers end in any order; what is learned must not depend on it.
        return sorted(records, key=lambda record: int(record.episode.meta["seed"]))

    def _job(self, source: str, seeds: Sequence[int], model: Ensemble | None) -> Job:
        c = self.config
        has_model = source == "model" and model is not None
        return Job(
            source=source,  # type: ignore[arg-type]
            seeds=tuple(seeds),
            steps=c.steps,
            goal=self.goal,
            hands=c.hands,
            noises=c.noises,
            planner=c.planner,
            model=(model.config_json(), model.state_tensors()) if has_model and model else None,
            proposal=None if self.proposal is None else packed(self.proposal),
        )

    def _fit(
        self, model: Ensemble | None, recent: Sequence[Episode], updates: int, seed: int
    ) -> Ensemble:
        """Fit to all training episodes; with a model to go on from, recent ones count double."""
        training, _ = split(self.episodes, self.config.held_out_share)
        warm = model is not None
        if model is None:
            model = new_model(seed=self.seed * 1000 + seed)
        else:
            kept = {e.meta["episode_id"] for e in training}
            training = training + [e for e in recent if e.meta["episode_id"] in kept]
        windows = sum(max(len(e) - self.config.fit.steps + 1, 0) for e in training)
        epochs = max(1, round(updates * self.config.fit.batch / windows))
        rate = self.config.fit.learning_rate * (0.6 if warm else 1.0)
        settings = replace(self.config.fit, epochs=epochs, learning_rate=rate)
        fit(model, training, settings, seed=self.seed * 1000 + seed, warm_start=warm)
        return model if self.proposal is None else model.with_proposal(self.proposal)


def _deal(seeds: Sequence[int], collector: Collector) -> list[tuple[int, ...]]:
    """Deal seeds out to the workers, as evenly as they go."""
    parts = [tuple(seeds[worker :: collector.workers]) for worker in range(collector.workers)]
    return [part for part in parts if part]


def _summary(episodes: Sequence[Episode]) -> dict[str, float]:
    rotations = np.array([float(e.meta["rotation_deg"]) for e in episodes])
    kept = np.array([e.meta["stop_reason"] != "dropped" for e in episodes])
    return {
        "episodes": float(len(episodes)),
        "rotation_deg_median": float(np.median(rotations)),
        "drop_share": float(np.mean(~kept)),
        "success_90": float(np.mean(kept & (rotations >= 90))),
        "success_180": float(np.mean(kept & (rotations >= 180))),
    }
