# SPDX-License-Identifier: Apache-2.0
"""Train a task's model from nothing, or around a proposal policy, in a fleet of twins.

From nothing (PDDM): random motion, a first fit, then rounds of planning with the model that has
been learned so far and fitting on all data. With `pretrain` a proposal policy is trained first: it
imitates demonstrations that are planned on the twin's true dynamics and improves on them in a fleet
of twins. The model then learns from what the policy does, and the rounds plan about it.

Every episode is a bag as soon as it has ended, and what is learned from is what the bags hold. So
an interrupted run carries on with the episode it was in, and a model can be made from bags alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from twinloop import planners, tasks
from twinloop.bags.errors import BagError
from twinloop.fleet import Fleet, open_fleet
from twinloop.learning import checkpoint
from twinloop.learning.episode_bags import read_bags
from twinloop.learning.fit import FitConfig
from twinloop.learning.model_file import Candidate, Lineage
from twinloop.learning.proposal import ProposalTraining
from twinloop.learning.registry import Registry
from twinloop.learning.training_run import Listener, TrainingRun
from twinloop.models import Ensemble


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
        hands: how many episodes run side by side in a worker, and are lost with it.
        planner_name, planner: name of the planner, and changes to its settings.
        oracle: changes to the settings of the one that plans demonstrations on true dynamics.
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
    hands: int = 4
    planner_name: str = planners.DEFAULT
    planner: dict[str, Any] = field(default_factory=dict)
    oracle: dict[str, Any] = field(default_factory=lambda: {"samples": 60, "horizon": 6})
    demonstration_noises: tuple[float, ...] = (0.0, 0.3, 0.6, 0.0, 0.3, 0.6, 1.0, 0.15)
    proposal: ProposalTraining | None = None
    fit: FitConfig = field(default_factory=FitConfig)
    held_out_share: float = 0.05


def pretraining(transitions: int, steps: int = 100) -> TrainConfig:
    """Return the protocol around a proposal policy, which alone makes two thirds of the data."""
    first = transitions * 2 // 3
    rounds = max(1, (transitions - first) // 2500)
    per_round = math.ceil((transitions - first) / rounds)
    return TrainConfig(first, rounds, per_round, steps, proposal=ProposalTraining())


def scratch(transitions: int, steps: int = 100) -> TrainConfig:
    """Return PDDM's protocol: an eighth is random motion, then rounds of about 500."""
    first = transitions // 8
    rounds = max(1, (transitions - first) // 500)
    return TrainConfig(first, rounds, math.ceil((transitions - first) / rounds), steps)


@dataclass(frozen=True)
class TrainResult:
    """A trained model, where it lies, and how it got there.

    Attributes:
        rounds: a row of figures for each round, and where it was evaluated, also those.
    """

    version: str
    folder: Path
    model: Ensemble
    lineage: Lineage
    metrics: dict[str, float | None]
    rounds: list[dict[str, float]]


def train(
    out: Path | str,
    task: str,
    seed: int = 0,
    transitions: int = 15_000,
    pretrain: bool = False,
    goal: str = "",
    *,
    workers: int | None = None,
    ray: str | None = None,
    evaluate: int = 20,
    evaluate_at: Sequence[int] = (),
    from_bags: Path | str | None = None,
    command: str = "",
    config: TrainConfig | None = None,
    listener: Listener | None = None,
) -> TrainResult:
    """Train a model of a task and add it to the registry at `out`.

    The run's bags are kept in `out/bags` and its intermediate models in `out/training`; called
    again with the same settings it carries on after the last episode that had ended.

    Args:
        out: registry folder; the model goes to `out/TASK/v0001` or the next free version.
        seed: sets starts, noise, first weights and minibatches. Results repeat for the same seed
            on machines with the same processor, whatever the workers.
        transitions: how many to collect in all.
        pretrain: train a proposal policy first, on top of `transitions`.
        goal: of the task; "" for its default.
        workers, ray: see `open_fleet`.
        evaluate: episodes of an evaluation, fresh and without noise; one takes place at the end,
            unless this is 0.
        evaluate_at: transitions; the first round to reach them is evaluated too.
        from_bags: a run's folder, or one of bags; what they hold is learned from in the order of
            the seeds, and nothing is collected but evaluations.
        command: what the user typed, for the model's lineage.

    Raises:
        CheckpointInvalid: `out/training` holds a run with other settings, or a damaged file.
        FitDiverged: a fit gave no finite loss.
        FleetError: the workers cannot be had, or die again and again.
        BagError: `from_bags` holds a damaged bag, or none.
        ProtocolImpossible: the task has no protocol of this kind.
    """
    out = Path(out)
    made = tasks.make(task, goal)
    steps = made.episode_steps
    config = config or (pretraining if pretrain else scratch)(transitions, steps)
    listener = listener or Listener()
    settings = asdict(config) | {
        "task": task,
        "contract": made.contract.hash(),
        "seed": seed,
        "pretrain": pretrain,
        "goal": made.goal,
        "from_bags": None if from_bags is None else str(Path(from_bags).resolve()),
    }
    torch.set_num_threads(1)
    run = TrainingRun(out, made, seed, config, listener)
    checkpoint.start_run(run.folder, settings)
    with open_fleet(workers, ray, listener.say) as fleet:
        if from_bags is None:
            _collect(run, fleet, evaluate, evaluate_at)
        else:
            episodes = read_bags(bag_folders(Path(from_bags)), made.contract)
            if not episodes:
                raise BagError(Path(from_bags), "holds no complete bag of an episode")
            run.take(episodes, fleet)
        model = run.finish()
        metrics = run.score(model)
        if evaluate:
            found = run.evaluate(model, "model", evaluate, fleet)
            metrics |= {f"evaluation_{name}": value for name, value in found.items()}
    lineage = run.lineage(command)
    registry = Registry(out, made.contract)
    version = registry.add(Candidate(model, made.contract, lineage, metrics, status="seed"))
    return TrainResult(version, registry.path(version), model, lineage, metrics, run.history)


def _collect(run: TrainingRun, fleet: Fleet, evaluate: int, evaluate_at: Sequence[int]) -> None:
    """Go through the rounds of the protocol, with evaluations after some."""
    run.propose(fleet)
    due = sorted(evaluate_at)
    for index in range(run.config.rounds + 1):
        row = run.round(index, fleet)
        reached = [count for count in due if row["transitions"] >= count]
        due = due[len(reached) :]
        if reached and evaluate and run.model is not None:
            found = run.evaluate(run.model, f"round_{index:03d}", evaluate, fleet)
            row |= {f"evaluation_{name}": value for name, value in found.items()}
        run.listener.round(row)


def bag_folders(given: Path) -> list[Path]:
    """Return where the bags that a run learned from lie: a run's folder, or one of bags."""
    of_run = [given / "bags" / name for name in ("demonstrations", "training")]
    found = [folder for folder in of_run if folder.is_dir()]
    return found or [given]
