# SPDX-License-Identifier: Apache-2.0
"""How a task's model is trained: what acts, how much data, and how long to learn from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from twinloop import planners, tasks
from twinloop.learning.fit import FitConfig
from twinloop.learning.policy import PolicyConfig
from twinloop.learning.proposal import ProposalTraining
from twinloop.paths import share
from twinloop.yaml_files import read_yaml

# Where a model is made on the way, besides at the end.
_STAGES = (5_000, 10_000, 20_000, 50_000)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Protocol:
    """A training run, apart from its seed.

    Attributes:
        stages: transitions after which a model is made; the last is the run's end.
        first: transitions of random motion.
        per_round: transitions, at least, between two updates of what acts.
        steps: control steps of an episode.
        policy: how a policy learns that acts, or None where the planner acts.
        proposal: how a policy is trained in twins, from demonstrations planned on their true
            dynamics, before anything else; it makes the first data instead of random motion, and
            the planner acts about it. None: without one.
        goals: of the task, in turn; "" for its default.
        relabelled: share of what the policy learns that is for another goal than the episode's.
        cell: options of the twin's cell.
        hands: how many episodes run side by side in a worker, and are lost with it.
        noises: disturbances of planned episodes in turn, as shares of the largest change in a step.
        planner_name, planner: name of the planner, and changes to its settings.
        fit: how the dynamics model is fitted.
        updates_stage, updates_round, updates_last: its gradient steps at a stage, after a round
            where the planner acts, and at the end from new weights.
        held_out_share: of episodes, which the dynamics model is never trained on.
        save_every: rounds after which the policy is saved, and a run can carry on.
    """

    stages: tuple[int, ...]
    first: int = 2500
    per_round: int = 500
    steps: int = 100
    policy: PolicyConfig | None = None
    proposal: ProposalTraining | None = None
    goals: tuple[str, ...] = ("",)
    relabelled: float = 0.0
    cell: dict[str, Any] = field(default_factory=dict)
    hands: int = 4
    noises: tuple[float, ...] = (0.0, 0.3, 0.0, 0.6, 0.15)
    planner_name: str = planners.DEFAULT
    planner: dict[str, Any] = field(default_factory=dict)
    fit: FitConfig = field(default_factory=FitConfig)
    updates_stage: int = 400
    updates_round: int = 120
    updates_last: int = 1600
    held_out_share: float = 0.05
    save_every: int = 10

    def __post_init__(self) -> None:
        if not self.stages or list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages are {self.stages}, expected one or more that grow")
        for name in ("first", "per_round", "steps", "hands", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.goals:
            raise ValueError("goals are empty, expected one or more")
        if self.policy is not None and self.proposal is not None:
            raise ValueError("policy and proposal are both given, expected one of them at most")


def protocol(task: str, transitions: int, pretrain: bool = False, goal: str = "") -> Protocol:
    """Return the protocol of a task: config/training/<task>.yaml, where there is one.

    Args:
        transitions: to collect in all.
        pretrain: use what only twins offer: the section `pretrain` instead of `scratch`.
        goal: the only goal to train for; "" for those of the file, or the task's default.

    Raises:
        ValueError: the file has an unknown setting or a bad value; the message names both.
    """
    path = share("config", "training") / f"{task}.yaml"
    sections = read_yaml(path) if path.is_file() else {}
    found: dict[str, Any] = {
        "stages": (*(stage for stage in _STAGES if stage < transitions), transitions),
        "steps": tasks.make(task).episode_steps,
    }
    found |= sections.get("pretrain" if pretrain else "scratch") or {}
    try:
        # In Python's mode a list is no tuple.
        made = TypeAdapter(Protocol).validate_python(found, strict=False)
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error
    # Random motion teaches less than what comes after it; what a policy does is worth more.
    share_of_first = 2 / 3 if made.proposal is not None else 1 / 4
    first = max(1, min(made.first, round(share_of_first * transitions)))
    return replace(made, first=first, goals=(goal,) if goal else made.goals)
