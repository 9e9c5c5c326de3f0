# SPDX-License-Identifier: Apache-2.0
"""The claw's valve by soft actor-critic, from what its sensors give; each episode is reset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from twinloop.learning.episode import Episode
from twinloop.learning.off_policy import OffPolicyLearner
from twinloop.learning.policy_run import PolicyRunSettings, learn_policy, try_policy
from twinloop.learning.policy_training import online_settings

from twinloop import tasks

TASK = "valve"
_STEPS_AN_HOUR = 36_000
_TRIALS = 50
SIDE_BY_SIDE = 10  # robots, whose time is added up


def learned(folder: Path, seed: int, stages: list[int]) -> dict[str, Any]:
    """Learn until the last stage, and measure the policy after each of them."""
    from twinloop_sim import cells

    task: Any = tasks.make(TASK)
    cell, other = cells.make(TASK, SIDE_BY_SIDE), cells.make(TASK, SIDE_BY_SIDE)
    curve: list[dict[str, float]] = []

    def note(learner: OffPolicyLearner, _episode: Episode) -> None:
        if len(curve) < len(stages) and learner.transitions >= stages[len(curve)]:
            curve.append(measured(task, other, learner, seed))

    run = PolicyRunSettings(stages[-1], task.episode_steps)
    work = folder / f"{TASK}-{seed}"
    settings = online_settings(TASK)
    learner = learn_policy(work, task, cell, run, settings, seed, note)
    if len(curve) < len(stages):  # where an interrupted run had passed them
        curve.append(measured(task, other, learner, seed))
    cell.close()
    other.close()
    return {"seed": seed, "updates": learner.updates, "curve": curve}


def measured(task: Any, cell: Any, learner: OffPolicyLearner, seed: int) -> dict[str, float]:
    """Return how fresh episodes of the policy end."""
    records = try_policy(task, cell, learner.actor(), task.episode_steps, seed, _TRIALS)
    return {
        "transitions": learner.transitions,
        "robot_hours": learner.transitions / _STEPS_AN_HOUR,
        "success": float(np.mean([record.succeeded for record in records])),
        "error_median_rad": float(np.median([record.score for record in records])),
        "trials": len(records),
    }


def model_based(result: Path) -> list[dict[str, float]]:
    """Return what the model-based learner reached by its own benchmark's committed result."""
    seeds = json.loads(result.read_text())["figures"][TASK]["seeds"]
    return [
        {
            "seed": int(seed),
            "transitions": stage["transitions"],
            "robot_hours": stage["transitions"] / _STEPS_AN_HOUR,
            "success": stage["success"],
        }
        for seed, run in seeds.items()
        for stage in run["stages"]
    ]
