# SPDX-License-Identifier: Apache-2.0
"""Stacking and pushing with the arm: LQR-FLM, and MPPI on an ensemble that learns from as much."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from twinloop.learning.episode import Episode
from twinloop.learning.fit import FitConfig, fit
from twinloop.learning.linear_actor import LinearActor, cost_of, rollouts_of
from twinloop.learning.policy_search import PolicySearch, SearchSettings, Transitions
from twinloop.learning.rollout import Actor, PlannedActor, roll_out
from twinloop.models import new_model
from twinloop.planners.linear_quadratic.cost_fit import evaluate, success_cost
from twinloop.planners.linear_quadratic.encoding import command_in, encoding_of
from twinloop.planners.linear_quadratic.policy import LinearPolicy, holding
from twinloop_sim import cells

from twinloop import planners, tasks

ROLLOUTS = 20
TRIALS = 20
_TRIAL_SEEDS = 900_000_000
_FIRST_DEVIATION = 0.005  # rad, of each step's target
# The block has 0.8 mm of room, which noise of some mm a step would blur; what is lost of the steps'
# length with it, is made up by going farther in units of it.
_STACKING = SearchSettings(
    divergence=2.0, components=10, prior_rollouts=40, calming=0.9, least_deviation=0.0007
)
# A mug that a long step sweeps aside is out of reach of the noise. What a touch does is seen by few
# of an iteration's rollouts, so those before say more.
_PUSHING = SearchSettings(
    divergence=0.5,
    least_factor=0.2,
    components=5,
    prior_strength=5.0,
    calming=0.97,
    least_deviation=0.0007,
)
# Changes of the targets, rad, as a person might show them: a push that ends beside the coaster.
_NUDGE = np.array([[-0.0023, 0.0121, 0.0053, 0.0237, -0.0059, -0.0118, 0.0081]] * 16)
_NUDGE_DEVIATION = 0.005  # rad, of each step's target
_NOISES = (0.0, 0.1, 0.2)  # of MPPI's episodes, as shares of the largest change


@dataclass(frozen=True)
class Case:
    """A task with one start.

    Attributes:
        budget: steps to learn from.
        search: how LQR-FLM improves its policy.
        cell: options of the cell.
    """

    name: str
    task: str
    budget: int
    search: SearchSettings
    cell: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("pushing", "pushing", 16_000, _PUSHING),
    *(
        Case(f"stacking from {start}", "stacking", 16_000, _STACKING, {"starts": start})
        for start in ("above", "aside", "table")
    ),
]


def shortened(case: Case, budget: int) -> Case:
    """Return a case that learns from fewer steps."""
    return replace(case, budget=min(budget, case.budget))


class Bench:
    """A case's cells, and the measure of what acts in them."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.seed = case, seed
        self.task: Any = tasks.make(case.task)
        self.steps = self.task.episode_steps
        self._cell = cells.make(case.task, ROLLOUTS, **case.cell)
        self._trials = cells.make(case.task, TRIALS, **case.cell)
        self._next = seed * 1_000_000

    def episodes(self, actor: Actor) -> list[Episode]:
        """Return episodes to learn from."""
        seeds = list(range(self._next, self._next + ROLLOUTS))
        self._next += ROLLOUTS
        return [r.episode for r in roll_out(self._cell, actor, self.task, seeds, self.steps)]

    def trials(self, make: Any) -> dict[str, Any]:
        """Return how what `make` gives for so many hands does in trials, without noise."""
        seeds = list(range(_TRIAL_SEEDS, _TRIAL_SEEDS + TRIALS))
        records = roll_out(self._trials, make(TRIALS), self.task, seeds, self.steps)
        scores = np.array([record.score for record in records])
        return {
            "success": float(np.mean([record.succeeded for record in records])),
            "error_m_median": float(np.median(scores)),
            "error_m_largest": float(scores.max()),
        }

    def close(self) -> None:
        self._cell.close()
        self._trials.close()


def lqr_flm(case: Case, seed: int, every: int) -> dict[str, Any]:
    """Learn by LQR-FLM; trials after every so many steps, which do not count as data."""
    began = time.process_time()
    bench = Bench(case, seed)
    encoding = encoding_of(bench.task)
    settings = case.search
    first = holding(
        bench.steps,
        len(encoding.encoder),
        command_in(bench.task, encoding),
        np.full(bench.task.action_size, _FIRST_DEVIATION),
    )
    search = PolicySearch(cost_of(bench.task, encoding), first, settings)
    transitions = Transitions(settings, seed)

    def actor(policy: LinearPolicy, hands: int, explores: bool) -> LinearActor:
        return LinearActor(policy, encoding, hands, explores)

    curve = []
    for used in _steps(case, bench.steps):
        episodes = bench.episodes(actor(search.policy, ROLLOUTS, True))
        states, actions = rollouts_of(episodes, encoding)
        transitions.add(states, actions)
        found = search.learn(states, actions, transitions.prior())
        if _is_due(used, every, case, bench.steps):
            trials = bench.trials(lambda hands: actor(search.policy, hands, False))
            curve.append({"steps": used, "cost": found.cost, **trials})
    bench.close()
    return {"seed": seed, "cpu_s": time.process_time() - began, "curve": curve, **curve[-1]}


def sparse(case: Case, seed: int, every: int) -> dict[str, Any]:
    """Push by a reward of one on the coaster and nothing elsewhere, as by a key press.

    Nothing leads there from where the mug stands, so the first policy is a push that was shown, and
    misses; its noise finds the reward. The cost is how unlikely a state is among those in which the
    key was pressed, in any episode so far.
    """
    began = time.process_time()
    bench = Bench(case, seed)
    encoding = encoding_of(bench.task)
    settings = SearchSettings()
    command = command_in(bench.task, encoding)
    still = holding(
        bench.steps,
        len(encoding.encoder),
        command,
        np.full(bench.task.action_size, _NUDGE_DEVIATION),
    )
    ahead = np.zeros_like(still.offset)
    ahead[: len(_NUDGE)] = _NUDGE
    first = LinearPolicy(still.gain, ahead, still.covariance)
    search = PolicySearch(None, first, settings)
    transitions = Transitions(settings, seed)
    arrived: list[NDArray[np.float64]] = []
    pressed: list[NDArray[np.bool_]] = []
    curve = []
    for used in _steps(case, bench.steps):
        episodes = bench.episodes(LinearActor(search.policy, encoding, ROLLOUTS, explores=True))
        states, actions = rollouts_of(episodes, encoding)
        transitions.add(states, actions)
        errors = np.stack([_errors(bench.task, episode) for episode in episodes])
        paid = (errors > bench.task.tolerance).astype(np.float64)
        arrived.append(states[:, 1:].reshape(-1, states.shape[2]))
        pressed.append(paid.ravel() < 1.0)
        if np.concatenate(pressed).any():
            quadratic = success_cost(
                np.concatenate(arrived),
                np.concatenate(pressed),
                bench.steps,
                bench.task.action_size,
            )
            told = evaluate(quadratic, states, actions)
            search.learn(states, actions, transitions.prior(), (told, quadratic))
        if _is_due(used, every, case, bench.steps):
            policy = search.policy
            trials = bench.trials(
                lambda hands, policy=policy: LinearActor(policy, encoding, hands, False)
            )
            curve.append({"steps": used, "cost": float(paid.sum(axis=1).mean()), **trials})
    bench.close()
    return {"seed": seed, "cpu_s": time.process_time() - began, "curve": curve, **curve[-1]}


def _errors(task: Any, episode: Episode) -> NDArray[np.float64]:
    """Return the error after each step [T]."""
    return np.asarray(task.error(torch.from_numpy(episode.observations[1:])), dtype=np.float64)


def mppi(case: Case, seed: int, every: int) -> dict[str, Any]:
    """Learn an ensemble that MPPI plans with: the first episodes as those of LQR-FLM, then its own
    plans with disturbances; the model is fitted on after each ten episodes."""
    began = time.process_time()
    torch.set_num_threads(1)
    bench = Bench(case, seed)
    encoding = encoding_of(bench.task)
    first = holding(
        bench.steps,
        len(encoding.encoder),
        command_in(bench.task, encoding),
        np.full(bench.task.action_size, _FIRST_DEVIATION),
    )
    model = new_model(case.task, seed, members=3, hidden=(200, 200))
    data: list[Episode] = []
    curve: list[dict[str, Any]] = []

    def planned(hands: int, noises: Sequence[float] = (0.0,)) -> PlannedActor:
        planner = planners.make("mppi", model, bench.task, seed)
        return PlannedActor(planner, bench.task, hands, noises)

    for used in _steps(case, bench.steps):
        explorer = LinearActor(first, encoding, ROLLOUTS, explores=True)
        is_first = len(data) < 2 * ROLLOUTS
        data += bench.episodes(explorer if is_first else planned(ROLLOUTS, _NOISES))
        config = FitConfig(steps=4, batch=256, epochs=_epochs(len(data) * bench.steps))
        fit(model, data, config, seed + used, warm_start=len(data) > 2 * ROLLOUTS)
        if _is_due(used, every, case, bench.steps):
            curve.append({"steps": used, **bench.trials(planned)})
    bench.close()
    return {"seed": seed, "cpu_s": time.process_time() - began, "curve": curve, **curve[-1]}


def _steps(case: Case, steps: int) -> range:
    """Return the numbers of steps after each batch of episodes."""
    return range(ROLLOUTS * steps, case.budget + 1, ROLLOUTS * steps)


def _is_due(used: int, every: int, case: Case, steps: int) -> bool:
    return used % every == 0 or used + ROLLOUTS * steps > case.budget


def _epochs(transitions: int, updates: int = 250, batch: int = 256) -> int:
    """Return epochs of about so many updates."""
    return max(2, round(updates * batch / transitions))
