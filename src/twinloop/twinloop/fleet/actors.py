# SPDX-License-Identifier: Apache-2.0
"""What acts in a job's episodes: random motion, an oracle, a policy, or a planner."""

from __future__ import annotations

from typing import Any, get_args

from twinloop import planners
from twinloop.fleet.job import Job, Source
from twinloop.learning.goals import goals_of
from twinloop.learning.policy import ExploringActor
from twinloop.learning.rollout import Actor, PlannedActor, ProposalActor, random_motion
from twinloop.models import from_tensors
from twinloop.models.proposal import Proposal, ProposalConfig
from twinloop.tasks.base import Task


def make_actor(job: Job, cell: Any, task: Task) -> Actor:
    """Return what acts for all hands of a job's cell.

    Raises:
        ValueError: the job lacks the network that its source needs, or its source is unknown.
    """
    hands = cell.hands
    if job.source == "random":
        return random_motion(task, hands)
    if job.source in ("explore", "proposal") and job.proposal is None:
        raise ValueError(f"a job with source {job.source!r} needs a proposal")
    if job.source == "explore":
        assert job.proposal is not None
        return ExploringActor(job.proposal, goals_of(task), hands)
    if job.source == "proposal":
        assert job.proposal is not None
        proposal = Proposal(ProposalConfig.model_validate(job.proposal[0]))
        proposal.load_state_dict(job.proposal[1])
        return ProposalActor(proposal, task, hands, job.noises)
    if job.source == "oracle":
        from twinloop_sim.oracle import TrueDynamics

        truth = TrueDynamics(cell)
        planner = planners.make(job.planner_name, truth, task, 0, **job.planner)
        return PlannedActor(planner, task, hands, job.noises, see=truth.observe)
    if job.source == "model":
        if job.model is None:
            raise ValueError("a job with source 'model' needs a model")
        model = from_tensors(*job.model)
        planner = planners.make(job.planner_name, model, task, 0, **job.planner)
        return PlannedActor(planner, task, hands, job.noises)
    raise ValueError(f"source is {job.source!r}, expected one of {get_args(Source)}")
