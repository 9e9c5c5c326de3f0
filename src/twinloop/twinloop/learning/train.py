# SPDX-License-Identifier: Apache-2.0
"""Train a task's model in a fleet of twins: random motion first, then rounds of what was learned.

A policy may act: it learns off policy from all episodes (`learning/policy.py`) and explores by its
own noise; a dynamics model is fitted to the same data, and a planner then samples about what the
policy proposes. Or the planner acts, with a model that is refitted after every round (PDDM,
arXiv 1909.11652); what it plans about may be a policy that was trained before, in twins, from
demonstrations planned on their true dynamics (`learning/proposal.py`).

What acts sees what the robot's sensors give and nothing else.

Every episode is a bag as soon as it has ended, and what is learned from is what the bags hold. So
an interrupted run carries on with the episode it was in, and a model can be made from bags alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from twinloop import tasks
from twinloop.bags.errors import BagError
from twinloop.fleet import open_fleet
from twinloop.learning import checkpoint
from twinloop.learning.episode_bags import read_bags
from twinloop.learning.model_file import Candidate, Lineage
from twinloop.learning.protocol import Protocol, protocol
from twinloop.learning.registry import Registry
from twinloop.learning.training_run import Listener, TrainingRun
from twinloop.models import Ensemble


@dataclass(frozen=True)
class TrainResult:
    """Trained models, the last of which is the result, and how they got there.

    Attributes:
        versions: one a stage.
        folder: of the last version.
        rounds: a row of figures for each round.
    """

    versions: tuple[str, ...]
    folder: Path
    model: Ensemble
    lineage: Lineage
    metrics: dict[str, float | None]
    rounds: list[dict[str, float]]

    @property
    def version(self) -> str:
        return self.versions[-1]


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
    from_bags: Path | str | None = None,
    command: str = "",
    config: Protocol | None = None,
    listener: Listener | None = None,
) -> TrainResult:
    """Train a model of a task and add a version for each stage to the registry at `out`.

    The run's bags are kept in `out/bags` and its intermediate models in `out/training`; called
    again with the same settings it carries on after the last episode that had ended.

    Args:
        out: registry folder; models go to `out/TASK/v0001` or the next free versions.
        seed: sets starts, noise, first weights and minibatches. Results repeat for the same seed
            on machines with the same processor, whatever the workers.
        transitions: how many to collect in all.
        pretrain: use what only twins offer.
        goal: the only one to train for; "" for those of the protocol, or the task's default.
        workers, ray: see `open_fleet`.
        evaluate: episodes that each version is measured by, fresh and without noise; 0 for none.
        from_bags: a run's folder, or one of bags; what they hold is learned from in the order of
            the seeds, and nothing is collected but evaluations.
        command: what the user typed, for the model's lineage.
        config: default: the task's protocol, see `protocol`.

    Raises:
        CheckpointInvalid: `out/training` holds a run with other settings, or a damaged file.
        FitDiverged: a fit gave no finite loss.
        FleetError: the workers cannot be had, or die again and again.
        BagError: `from_bags` holds a damaged bag, or none.
        ProtocolImpossible: the task has no training of a proposal policy.
        ValueError: the protocol's file has an unknown setting or a bad value.
    """
    out = Path(out)
    config = config or protocol(task, transitions, pretrain, goal)
    made = tasks.make(task, config.goals[0])
    listener = listener or Listener()
    settings = asdict(config) | {
        "task": task,
        "contract": made.contract.hash(),
        "seed": seed,
        "pretrain": pretrain,
        "from_bags": None if from_bags is None else str(Path(from_bags).resolve()),
    }
    given = None
    if from_bags is not None:
        given = read_bags(bag_folders(Path(from_bags)), made.contract)
        if not given:
            raise BagError(Path(from_bags), "holds no complete bag of an episode")
    torch.set_num_threads(1)
    run = TrainingRun(out, made, seed, config, listener, given)
    checkpoint.start_run(run.folder, settings)
    registry = Registry(out, made.contract)
    versions: list[str] = []
    with open_fleet(workers, ray, listener.say) as fleet:
        run.propose(fleet)
        for stage in range(len(config.stages)):
            model = run.stage(stage, fleet)
            version = checkpoint.version_of(run.folder, stage)
            if version is None:
                metrics = run.score(model)
                if evaluate:
                    found = run.evaluate(model, f"stage_{stage:02d}", evaluate, fleet)
                    metrics |= {f"evaluation_{name}": value for name, value in found.items()}
                lineage = run.lineage(command)
                version = registry.add(
                    Candidate(model, made.contract, lineage, metrics, status="seed")
                )
                checkpoint.keep_version(run.folder, stage, version)
            versions.append(version)
    last = registry.manifest(versions[-1])
    return TrainResult(
        tuple(versions),
        registry.path(versions[-1]),
        model,
        last.lineage,
        dict(last.metrics),
        run.history,
    )


def bag_folders(given: Path) -> list[Path]:
    """Return where the bags that a run learned from lie: a run's folder, or one of bags."""
    of_run = [given / "bags" / name for name in ("demonstrations", "training")]
    found = [folder for folder in of_run if folder.is_dir()]
    return found or [given / "bags" if (given / "bags").is_dir() else given]
