# SPDX-License-Identifier: Apache-2.0
"""What a worker is asked to do: a few episodes, told by values that any process can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from twinloop import planners
from twinloop.models.ensemble import Ensemble
from twinloop.models.proposal import Proposal

Source = Literal["random", "explore", "oracle", "proposal", "model"]
Packed = tuple[dict[str, Any], dict[str, Tensor]]  # config and tensors of a network


def packed(network: Proposal | Ensemble) -> Packed:
    """Return a network as what another process can build it from."""
    if isinstance(network, Proposal):
        return network.config.model_dump(mode="json"), dict(network.state_dict())
    return network.config_json(), network.state_tensors()


@dataclass(frozen=True)
class Job:
    """Episodes for one worker to run side by side.

    Attributes:
        task: name of the task.
        source: `random` motion, a policy in training that is to `explore`, the `oracle` that plans
            on the twin's true dynamics, the `proposal` policy alone, or planning with the `model`.
        seeds: one an episode.
        goal: of the task; "" for its default.
        hands: how many run side by side.
        noises: disturbances of the actions, as shares of the largest change in a step; an episode
            takes the one at its seed modulo their number.
        engine: of the twin.
        cell: further options of the task's cell.
        planner_name, planner: name of the planner, and changes to its settings.
        model: config and tensors of the model, for source `model`.
        proposal: config and tensors of the policy, for sources `explore` and `proposal`.
        model_name: what the episodes say they were planned with.
    """

    task: str
    source: Source
    seeds: tuple[int, ...]
    steps: int
    goal: str = ""
    hands: int = 1
    noises: tuple[float, ...] = (0.0,)
    engine: str = "mujoco"
    cell: dict[str, Any] = field(default_factory=dict)
    planner_name: str = planners.DEFAULT
    planner: dict[str, Any] = field(default_factory=dict)
    model: Packed | None = None
    proposal: Packed | None = None
    model_name: str = ""

    def __post_init__(self) -> None:
        if self.hands < 1:
            raise ValueError(f"hands is {self.hands}, expected at least 1")


@dataclass(frozen=True)
class Networks:
    """What the jobs of a round share, and a worker is sent once: see `Job`."""

    model: Packed | None = None
    proposal: Packed | None = None

    def into(self, job: Job) -> Job:
        """Return a job with these networks."""
        return replace(job, model=self.model, proposal=self.proposal)


def deal(job: Job, seeds: Sequence[int] | None = None) -> list[Job]:
    """Split a job into parts of at most `hands` episodes, of nearly equal size.

    The parts follow from the job alone: a sum of products changes in its last bits with the size of
    the batch, so what runs side by side must not depend on how many workers there are.
    """
    seeds = job.seeds if seeds is None else tuple(seeds)
    count = -(-len(seeds) // job.hands)
    return [replace(job, seeds=tuple(seeds[part::count])) for part in range(count)]
