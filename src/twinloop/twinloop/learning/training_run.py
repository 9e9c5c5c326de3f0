# SPDX-License-Identifier: Apache-2.0
"""The parts of a training run: its episodes, its fits, its evaluations, each done once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from twinloop import planners
from twinloop.fleet import Fleet, Job, Packed, deal, packed
from twinloop.learning import checkpoint
from twinloop.learning.checkpoint import Row
from twinloop.learning.episode import Episode
from twinloop.learning.episode_bags import EpisodeBags
from twinloop.learning.fit import fit, normalised_error, prediction_error
from twinloop.learning.goals import goals_of
from twinloop.learning.model_file import Lineage
from twinloop.learning.policy import PolicyLearner
from twinloop.learning.proposal import ProposalTraining, train_proposal
from twinloop.learning.protocol import Protocol
from twinloop.learning.replay import split
from twinloop.models import Ensemble, new_model
from twinloop.models.proposal import Proposal
from twinloop.tasks.baoding import Baoding
from twinloop.tasks.base import Task

_SEEDS_PER_RUN = 1_000_000
_SEEDS_PER_ROUND = 2_000
_DEMONSTRATION_SEEDS = 800_000
_EVALUATION_SEEDS = 900_000  # above the seeds of the rounds, within a run's million
_STAGE_FITS = 900  # beyond the numbers of the rounds
_ORACLE = "oracle"
_TRAINING, _DEMONSTRATIONS = "training", "demonstrations"  # folders of bags


class ProtocolImpossible(ValueError):
    """What was asked for cannot be done for this task."""


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Listener:
    """What is told of a run while it goes on.

    Attributes:
        say: is given lines for people.
        episode: is given each episode that counts as training data, and whether it is new or was
            left by an earlier process of the run.
        round: is given the figures of each round.
    """

    say: Callable[[str], None] = print
    episode: Callable[[Episode, bool], None] = _nothing
    round: Callable[[Row], None] = _nothing


@dataclass
class TrainingRun:
    """A run in a folder. What its files hold already is read instead of done again.

    With `given` episodes, in the order of their seeds, none is collected but evaluations.
    """

    out: Path
    task: Task
    seed: int
    config: Protocol
    listener: Listener
    given: list[Episode] | None = None
    episodes: list[Episode] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    model: Ensemble | None = None
    proposal: Proposal | None = None

    def __post_init__(self) -> None:
        settings = self.config.policy
        self._policy: PolicyLearner | None = None
        self._learned = -1  # round up to which the policy's file has learned
        if settings is not None:
            change = planners.action_space(self.task).largest_change
            goals = goals_of(self.task, self.config.relabelled)
            self._policy = PolicyLearner(goals, change, self.seed, settings)
            mark = PolicyLearner.mark(self._policy_file)
            self._learned = -1 if mark is None else mark

    @property
    def folder(self) -> Path:
        """Where models and settings are kept."""
        return self.out / "training"

    @property
    def transitions(self) -> int:
        """Number of transitions collected so far."""
        return sum(map(len, self.episodes))

    @property
    def _policy_file(self) -> Path:
        return self.folder / "policy.pt"

    def propose(self, fleet: Fleet) -> None:
        """Train the proposal policy, if the protocol has one, or carry on with it.

        Raises:
            ProtocolImpossible: the task has no such training.
        """
        config = self.config.proposal
        if config is None:
            return
        if not isinstance(self.task, Baoding):
            raise ProtocolImpossible(
                f"a proposal policy can be trained for baoding, not for {self.task.name}"
            )
        if self.given is None:
            goals = {goal or self.task.goal for goal in self.config.goals}
            shown = []
            for place, (goal, count) in enumerate(sorted(config.demonstrations.items())):
                if goal in goals:
                    first = _DEMONSTRATION_SEEDS + place * _SEEDS_PER_ROUND
                    shown += self._demonstrate(config, goal, self._seeds(first, count), fleet)
        else:
            shown = [e for e in self.given if e.meta["model_version"] == _ORACLE]
            self.given = [e for e in self.given if e.meta["model_version"] != _ORACLE]
        self.proposal = train_proposal(
            self.task,
            self.config.goals,
            self.seed,
            config,
            shown,
            self.listener.say,
            self.folder / "proposal.ckpt",
            min(fleet.count, len(os.sched_getaffinity(0))),
        )

    def _demonstrate(
        self, config: ProposalTraining, goal: str, seeds: Sequence[int], fleet: Fleet
    ) -> list[Episode]:
        self.listener.say(f"plans {len(seeds)} demonstrations of {goal} on true dynamics")
        job = replace(
            self._job(_ORACLE, seeds),
            goal=goal,
            hands=1,
            noises=config.demonstration_noises,
            planner=config.oracle,
        )
        return self._run(deal(job), _DEMONSTRATIONS, fleet)

    def stage(self, stage: int, fleet: Fleet) -> Ensemble:
        """Run the rounds of a stage, and return a model fitted to all data so far.

        The last one starts from new weights: old ones remember the data of their time.
        """
        until = self.config.stages[stage]
        while self.transitions < until and not self._is_used_up:
            row = self.round(len(self.history), fleet)
            self.listener.round(row)
        if self._policy is not None and self._learned < len(self.history) - 1:
            self._save_policy(self._policy, len(self.history) - 1)
        name = f"stage_{stage:02d}_model"
        kept = checkpoint.load_model(self.folder, name)
        if kept is not None:
            self.model = kept[0]
            return self.model
        self.listener.say(f"fits a model to {self.transitions} transitions")
        is_last = stage + 1 == len(self.config.stages)
        updates = self.config.updates_last if is_last else self.config.updates_stage
        model, loss = self._fit(None if is_last else self.model, [], updates, _STAGE_FITS + stage)
        if self._policy is not None:
            model = model.with_proposal(self._policy.policy())
        checkpoint.save_model(self.folder, name, model, {"loss": loss})
        self.model = model
        return model

    def round(self, index: int, fleet: Fleet) -> Row:
        """Collect a round's episodes and learn, or read what an earlier process left of it;
        returns the round's figures."""
        began = time.monotonic()
        episodes = self._collect(index, fleet)
        self.episodes += episodes
        row = summary(self.task, episodes) | {
            "round": index,
            "transitions": self.transitions,
            "collect_s": time.monotonic() - began,
        }
        if self._policy is not None:
            self._improve(self._policy, episodes, index)
        elif self.given is None:
            row = self._refit(episodes, index, row)
        row.setdefault("seconds", time.monotonic() - began)
        self.history.append(row)
        if index % self._lines_every == 0:
            self.listener.say(self._line(index, row))
        return row

    def _improve(self, policy: PolicyLearner, episodes: list[Episode], index: int) -> None:
        policy.add(episodes)
        if index <= self._learned:
            policy.forgive()  # the file holds what was learned from these
            if index == self._learned:
                policy.load(self._policy_file)
            return
        policy.improve()
        if index % self.config.save_every == 0:
            self._save_policy(policy, index)

    def _save_policy(self, policy: PolicyLearner, index: int) -> None:
        policy.save(self._policy_file, index)
        self._learned = index

    def _refit(self, episodes: list[Episode], index: int, row: Row) -> Row:
        name = f"round_{index:03d}_model"
        kept = checkpoint.load_model(self.folder, name)
        if kept is not None:
            self.model, row = kept
            return row
        updates = self.config.updates_round if index else self.config.updates_stage
        self.model, row["loss"] = self._fit(self.model, episodes, updates, seed=index)
        checkpoint.save_model(self.folder, name, self.model, row)
        return row

    def score(self, model: Ensemble) -> dict[str, float | None]:
        """Return prediction errors on held-out episodes."""
        held_out = split(self.episodes, self.config.held_out_share)[1]
        return score(model, held_out, self.task)

    def evaluate(self, model: Ensemble, name: str, count: int, fleet: Fleet) -> Row:
        """Return how fresh episodes without noise went, all of which count; their bags go to a
        folder of that name."""
        seeds = self._seeds(_EVALUATION_SEEDS, count)
        job = replace(self._job("model", seeds, model), noises=(0.0,), cell={})
        row = summary(self.task, self._run(deal(job), f"evaluation_{name}", fleet))
        self.listener.say(f"evaluated on {count} episodes: {self._figures(row)}")
        return row | {"first_seed": float(seeds[0])}

    def lineage(self, command: str) -> Lineage:
        """Return what a model of all the data is made of."""
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
        if not index:
            return "random" if self.proposal is None else "proposal"
        return "model" if self._policy is None else "explore"

    def _seeds(self, first: int, count: int) -> range:
        start = self.seed * _SEEDS_PER_RUN + first
        return range(start, start + count)

    @property
    def _is_used_up(self) -> bool:
        return self.given is not None and len(self.episodes) >= len(self.given)

    def _collect(self, index: int, fleet: Fleet) -> list[Episode]:
        """Run episodes until the round has its transitions."""
        wanted = self.config.per_round if index else self.config.first
        episodes: list[Episode] = []
        collected = 0
        # As long as those of the round before, so that there are few that run alone at the end.
        length = self.history[-1]["length_mean"] if index > 1 else self.config.steps
        while collected < wanted:
            count = math.ceil((wanted - collected) / length)
            fresh = self._next(index, len(episodes), count, fleet)
            if not fresh:
                break
            episodes += fresh
            collected += sum(map(len, fresh))
            length = collected / len(episodes)
        return episodes

    def _next(self, index: int, offset: int, count: int, fleet: Fleet) -> list[Episode]:
        """Return a round's next episodes: collected, or those that were given."""
        if self.given is not None:
            start = len(self.episodes) + offset
            taken = self.given[start : start + count]
            for episode in taken:
                self.listener.episode(episode, False)
            return taken
        goals = self.config.goals
        seeds = self._seeds(index * _SEEDS_PER_ROUND + offset, count)
        jobs = []
        for goal in dict.fromkeys(goals):
            mine = [seed for seed in seeds if goals[seed % len(goals)] == goal]
            if mine:
                job = replace(self._job(self._source(index), mine, self.model), goal=goal)
                jobs += deal(job)
        return self._run(jobs, _TRAINING, fleet)

    def _run(self, jobs: Sequence[Job], folder: str, fleet: Fleet) -> list[Episode]:
        """Return the episodes of jobs in the order of their seeds: from their bags, and run where a
        job has not all of them."""
        bags = EpisodeBags(self.out / "bags" / folder, self.task.contract)
        ended: dict[int, Episode] = {}
        missing = []
        for job in jobs:
            kept = {seed: bags.find(job.source, seed) for seed in job.seeds}
            ended |= {seed: episode for seed, episode in kept.items() if episode is not None}
            # What ran side by side does so again: the last bits depend on it.
            if None in kept.values():
                missing.append(job)
        for episode in ended.values():
            self._tell(episode, folder, is_new=False)
        for record in fleet.run(missing):
            seed = int(record.episode.meta["seed"])
            if seed not in ended:
                ended[seed] = bags.add(record)
                self._tell(record.episode, folder, is_new=True)
        return [ended[seed] for seed in sorted(ended)]

    def _tell(self, episode: Episode, folder: str, is_new: bool) -> None:
        if folder == _TRAINING:
            self.listener.episode(episode, is_new)

    def _job(self, source: str, seeds: Sequence[int], model: Ensemble | None = None) -> Job:
        c = self.config
        return Job(
            self.task.name,
            source,  # type: ignore[arg-type]
            tuple(seeds),
            c.steps,
            c.goals[0],
            c.hands,
            c.noises,
            cell=c.cell,
            planner_name=c.planner_name,
            planner=c.planner,
            model=packed(model) if source == "model" and model is not None else None,
            proposal=self._acting(source),
        )

    def _acting(self, source: str) -> Packed | None:
        """Return the policy that acts in jobs of a source, None where none does."""
        if source == "explore" and self._policy is not None:
            return self._policy.explorer()
        if source == "proposal" and self.proposal is not None:
            return packed(self.proposal)
        return None

    def _fit(
        self, model: Ensemble | None, recent: Sequence[Episode], updates: int, seed: int
    ) -> tuple[Ensemble, float]:
        """Fit to all training episodes; with a model to go on from, recent ones count double.

        Returns the model and its last loss.
        """
        training, _ = split(self.episodes, self.config.held_out_share)
        warm = model is not None
        if model is None:
            model = new_model(self.task.name, self.seed * 1000 + seed)
        else:
            kept = {e.meta["episode_id"] for e in training}
            training = training + [e for e in recent if e.meta["episode_id"] in kept]
        windows = sum(max(len(e) - self.config.fit.steps + 1, 0) for e in training)
        epochs = max(1, round(updates * self.config.fit.batch / max(windows, 1)))
        rate = self.config.fit.learning_rate * (0.6 if warm else 1.0)
        settings = replace(self.config.fit, epochs=epochs, learning_rate=rate)
        report = fit(model, training, settings, seed=self.seed * 1000 + seed, warm_start=warm)
        if self.proposal is not None:
            model = model.with_proposal(self.proposal)
        return model, report.training_loss[-1]

    def _figures(self, row: Row) -> str:
        return (
            f"median {row['score_median']:6.4g} {self.task.progress_unit}  "
            f"success {row['success']:4.0%}  failed {row['drop_share']:4.0%}"
        )

    @property
    def _lines_every(self) -> int:
        # Rounds of a policy are short.
        return 1 if self._policy is None else self.config.save_every

    def _line(self, index: int, row: Row) -> str:
        return (
            f"round {index:3d} {self._source(index):7s} "
            f"{row['transitions']:6.0f} transitions  {self._figures(row)}  {row['seconds']:4.0f} s"
        )


def summary(task: Task, episodes: Sequence[Episode]) -> Row:
    """Return how episodes went: their number and length, and how many succeeded and dropped."""
    kept = np.array([e.meta["stop_reason"] != "dropped" for e in episodes])
    row = {
        "episodes": float(len(episodes)),
        "score_median": float(np.median([task.score(e.observations) for e in episodes])),
        "length_mean": float(np.mean([len(e) for e in episodes])),
        "drop_share": float(np.mean(~kept)),
        "success": float(np.mean([task.succeeded(e) for e in episodes])),
    }
    if isinstance(task, Baoding):
        rotations = np.array([task.final_rotation_deg(e.observations) for e in episodes])
        row |= {
            "rotation_deg_median": float(np.median(rotations)),
            "success_90": float(np.mean(kept & (rotations >= 90))),
            "success_180": float(np.mean(kept & (rotations >= 180))),
        }
    return row


def score(model: Ensemble, episodes: Sequence[Episode], task: Task) -> dict[str, float | None]:
    """Return the open-loop error after one step and after seven, of ball positions [mm] where the
    task has balls, else of all that is predicted, in units of its usual change in a step."""
    names = {1: "one_step", 7: "seven_step"}
    balls = task.contract.slices.get("ball_position")
    if balls is None:
        errors = normalised_error(model, episodes, tuple(names))
        return {f"{names[k]}_error": value for k, value in errors.items()}
    found = prediction_error(model, episodes, tuple(names), balls)
    return {
        f"{name}_{kind}_mm": value
        for steps, name in names.items()
        for kind, value in found[str(steps)].items()
    }
