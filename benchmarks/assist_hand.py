# SPDX-License-Identifier: Apache-2.0
"""Sharing the hand: a pilot turns the balls coarsely, and the copilot keeps them from dropping.

The pilot is the shipped proposal policy seen through bad hands: he sees the balls late, moves every
joint at full speed or not at all, and goes on with a motion for a while. The copilot plans with the
shipped model, from the sensors' observations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from twinloop.learning.model_file import load_model
from twinloop.learning.rollout import Aims, roll_out
from twinloop.models.proposal import Proposal
from twinloop.nodes.planner import shipped_model
from twinloop.planners.base import PlanStats
from twinloop.planners.shared import SharedMPPI, make
from twinloop.tasks.base import Task
from twinloop_sim import cells

from twinloop import tasks

ALPHAS = (0.0, 0.1, 0.5, 0.9, 1.0)
PILOTS = ("coarse",)
STEPS = 100
LATE = 1  # control steps by which he sees late
KEEPS = 2  # control steps for which he goes on with a motion
LEAST = 0.5  # of the largest change: what he would move by less he does not move
_FIRST_SEED = 70_000_000


class CoarsePilot:
    """Joint targets of pilots with bad hands [N, A]."""

    def __init__(self, proposal: Proposal, task: Task, hands: int) -> None:
        self._proposal = proposal
        self._aims = Aims(task, hands)
        self._seen: list[Tensor] = []
        self._change = torch.zeros(hands, task.action_size)
        self._command = task.command
        self._step = 0

    @torch.no_grad()
    def wish(self, observation: Tensor) -> Tensor:
        """Return what they command: [N, O] -> [N, A], rad."""
        self._seen = [*self._seen, observation][-1 - LATE :]
        command = observation[:, self._command]
        if self._step % KEEPS == 0:
            late = self._seen[0]
            targets = self._aims.targets(late, 1)[:, 0]
            largest = self._proposal.config.max_change
            change = self._proposal(late, targets) - late[:, self._command]
            self._change = largest * change.sign() * (change.abs() >= LEAST * largest)
        self._step += 1
        return command + self._change


class SharedActor:
    """Acts as pilots command, or as a planner shares them."""

    def __init__(self, pilot: CoarsePilot, planner: SharedMPPI | None, task: Task, hands: int):
        self._pilot, self._planner = pilot, planner
        self._aims = Aims(task, hands)
        if planner is not None:
            planner.reset_batch([0] * hands)
        self.shares: list[list[float]] = [[] for _ in range(hands)]

    def start(self, hand: int, seed: int) -> None:
        if self._planner is not None:
            self._planner.reset_row(hand, seed)

    def aim(self, hand: int, task: Task) -> None:
        self._aims.set(hand, task)

    def act(
        self, observations: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], list[PlanStats] | None]:
        seen = torch.as_tensor(observations, dtype=torch.float32)
        wish = self._pilot.wish(seen)
        if self._planner is None:
            return wish.double().numpy(), None
        self._planner.pilot = wish
        targets = self._aims.targets(seen, self._planner.horizon)
        actions, stats = self._planner.plan_batch(seen, targets)
        for kept, one in zip(self.shares, stats, strict=True):
            kept.append(float(one.pilot_share or 0.0))
        return actions.double().numpy(), stats


def episodes(pilot: str, alpha: float, count: int) -> dict[str, Any]:
    """Return how one episode for each seed went, all side by side; α = 0 is the pilot alone."""
    torch.set_num_threads(1)
    task: Any = tasks.make("baoding", "ccw")
    model = load_model(shipped_model("baoding"), task.contract).model
    assert model.proposal is not None
    planner = make(model, task, 0, alpha) if alpha > 0.0 else None
    cell = cells.make("baoding", count)
    actor = SharedActor(CoarsePilot(model.proposal, task, count), planner, task, count)
    seeds = list(range(_FIRST_SEED, _FIRST_SEED + count))
    records = roll_out(cell, actor, task, seeds, STEPS)
    cell.close()
    kept = np.array([record.stop_reason == "completed" for record in records])
    turned = np.array([record.score for record in records])
    times = [_time_to_goal(task, record.episode.observations) for record in records]
    known = [time for time in times if time is not None]
    # Hands are begun in the order of their seeds; what they do after their end does not count.
    ends = [len(record.episode.actions) for record in records]
    shares = [np.mean(one[:end]) for one, end in zip(actor.shares, ends, strict=True)]
    return {
        "pilot": pilot,
        "alpha": alpha,
        "episodes": count,
        "kept": float(kept.mean()),
        "success": float(np.mean([record.succeeded for record in records])),
        "median_rotation_deg": float(np.median(turned)),
        "time_to_goal_s": float(np.median(known)) if known else None,
        "pilot_share": float(np.mean(shares)) if planner is not None else 1.0,
    }


def _time_to_goal(task: Any, observations: NDArray[np.floating]) -> float | None:
    """Return when an episode had turned the balls far enough [s], None for never."""
    there = np.flatnonzero(task.rotation_deg(observations) >= task.config.goal_deg)
    return float(there[0]) * float(task.contract.period_s) if len(there) else None


def jobs(folder: Path, full: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the protocol's parts by name: the pilot at each α."""
    alphas = ALPHAS if full else (0.0, 0.5)
    count = 50 if full else 3
    return {
        f"hand-{pilot}-{alpha:g}": partial(episodes, pilot, alpha, count)
        for pilot in PILOTS
        for alpha in alphas
    }


def summary(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as they are."""
    return done
