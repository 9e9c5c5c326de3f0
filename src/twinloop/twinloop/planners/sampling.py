# SPDX-License-Identifier: Apache-2.0
"""What planners share that sample action sequences and score them with an ensemble.

A planner of this kind is a subclass in its own module with `_improve`: candidates about a nominal
plan, scored, and a better plan made of them. Candidates are limited before they are rolled out, so
the plan that is scored is the plan that can be executed, and a rollout that is not finite counts
for nothing.

Plans are laid out with their steps first, [H, B, N, A]: horizon, robots, candidates, action.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor

from twinloop.models.actor import Actor
from twinloop.models.base import DynamicsModel
from twinloop.models.ensemble import Ensemble
from twinloop.planners.base import PlanStats
from twinloop.planners.capture import CudaGraph
from twinloop.planners.rollouts import Rollouts, cheapest
from twinloop.planners.settings import C, SamplingConfig
from twinloop.planners.space import ActionSpace
from twinloop.tasks.base import Task


@dataclass(frozen=True)
class Scores:
    """What the ensemble thinks of candidates, each [B, N]."""

    value: Tensor  # mean return less the penalty for disagreement; -inf where not finite
    spread: Tensor  # standard deviation of the return over members

    @property
    def is_finite(self) -> Tensor:
        return torch.isfinite(self.value)

    @property
    def best(self) -> Tensor:
        """Highest value of each robot [B], -inf where no rollout was finite."""
        return self.value.amax(1)


Rate = Callable[[Tensor], Scores]  # [H, B, N, A] -> [B, N]


class SamplingPlanner(ABC, Generic[C]):
    """A planner for B robots at once; `plan` is the case of one.

    The whole plan is one function of tensors, `_solve`. On a CPU it runs as it stands; on a CUDA
    device the same function is captured as a graph at the first call, and again after the model,
    the task or the number of robots has changed.

    Raises:
        ValueError: model and task are of different sizes, or there is no CUDA device.
    """

    Config: ClassVar[type[SamplingConfig]]
    config: C

    def __init__(
        self,
        model: DynamicsModel,
        task: Task,
        space: ActionSpace,
        config: C,
        seed: int,
        device: str = "cpu",
    ) -> None:
        if model.observation_size != task.observation_size:
            raise ValueError(
                f"model observes {model.observation_size} elements, "
                f"task {task.name} has {task.observation_size}"
            )
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda', and torch finds no CUDA device; use 'cpu'")
        self.config = config
        self.device = torch.device(device)
        self.largest_change = space.largest_change
        self._lower, self._upper = space.lower.to(self.device), space.upper.to(self.device)
        self._scale = 0.5 * config.range_share * (self._upper - self._lower)  # [A]
        self.model = model
        self.task = task
        self._set_up()
        self.keeps_rollouts = False
        self._tried: list[tuple[Tensor, Tensor]] = []
        self._generators: list[torch.Generator] = []
        self.reset(seed)

    def _set_up(self) -> None:
        """Make the constants of the subclass, once."""

    @abstractmethod
    def _improve(
        self, previous: Tensor, nominal: Tensor, rate: Rate
    ) -> tuple[Tensor, Tensor, Scores]:
        """Return the next action [B, A], the plan to go on from [H, B, A] and all scores [B, N].

        Args:
            previous: targets in force [B, 1, A].
            nominal: what to sample about [H, B, 1, A].
            rate: scores candidates [H, B, N, A].
        """

    @property
    @abstractmethod
    def _noise_shape(self) -> tuple[int, ...]:
        """Shape [F, N, A] of the normal numbers that a robot needs for a plan."""

    def _carried(self, batch: int) -> dict[str, Tensor]:
        """Return zeros for what is carried from plan to plan, by name."""
        shape = (self.config.horizon, batch, self.task.action_size)
        return {"plan": torch.zeros(shape, device=self.device)}

    @property
    def samples(self) -> int:
        """Rollouts that a plan takes, for each robot."""
        return self.config.samples

    @property
    def horizon(self) -> int:
        return self.config.horizon

    @property
    def sigma(self) -> float:
        """Deviation of the noise, which is smaller about a proposal."""
        has_proposal = self.model.proposal is not None
        return self.config.proposal_sigma if has_proposal else self.config.sigma

    @property
    def model(self) -> DynamicsModel:
        return self._model

    @model.setter
    def model(self, model: DynamicsModel) -> None:
        if isinstance(model, Actor):
            raise ValueError(
                "the model is a policy, which acts and predicts nothing; expected one that "
                "predicts, or planner 'policy'"
            )
        if self.device.type != "cpu":
            moved: Any = copy.deepcopy(model)
            model = moved.to(self.device)
        # What is made of an ensemble's weights is made once.
        rollout = model.frozen_rollout() if isinstance(model, Ensemble) else model.rollout
        self._model, self._rollout = model, rollout
        self._graph: CudaGraph | None = None

    @property
    def task(self) -> Task:
        return self._task

    @task.setter
    def task(self, task: Task) -> None:
        self._task = task
        self._graph = None

    def reset(self, seed: int) -> None:
        """Forget the last plan; the next call plans one robot."""
        self.reset_batch([seed])

    def reset_batch(self, seeds: list[int]) -> None:
        """Forget the last plans; the next call plans one robot for each seed."""
        if len(seeds) != len(self._generators):
            batch = len(seeds)
            where = "cuda" if self.device.type == "cuda" else "cpu"
            self._generators = [torch.Generator(where) for _ in seeds]
            self._is_fresh = torch.ones(batch, dtype=torch.bool, device=self.device)
            # One block of numbers a robot, so that it draws what it would draw alone.
            self._noise = torch.zeros((batch, *self._noise_shape), device=self.device)
            self._carry = self._carried(batch)
            self._graph = None
        for row, seed in enumerate(seeds):
            self.reset_row(row, seed)

    def reset_row(self, row: int, seed: int) -> None:
        """Forget the last plan of one robot in a batch, which starts anew from `seed`."""
        self._generators[row].manual_seed(seed)
        self._is_fresh[row] = True

    def plan(self, observation: Tensor, target: Tensor) -> tuple[Tensor, PlanStats]:
        """Return the next joint targets [rad]: [O], [H, T] -> [A]."""
        actions, stats = self.plan_batch(observation[None], target[None])
        return actions[0], stats[0]

    @torch.no_grad()
    def best_rollouts(self, count: int) -> Rollouts | None:
        """Return the cheapest rollouts of the last plan for one robot, for viewers.

        None where there are none: before a plan, or with `keeps_rollouts` off. Turning that on
        costs a plan nothing but the memory of its rollouts.
        """
        return cheapest(self._tried, count) if self._tried else None

    @torch.no_grad()
    def plan_batch(self, observation: Tensor, target: Tensor) -> tuple[Tensor, list[PlanStats]]:
        """Return the next joint targets [rad] of B robots: [B, O], [B, H, T] -> [B, A].

        Targets are absolute, within limits, and at most `largest_change` away from the previous
        command in the observation. Where no rollout is finite, that command is held.
        `plan_ms` is the time of the whole call.

        Raises:
            ValueError: another number of observations than of seeds.
        """
        started = time.perf_counter()
        if len(observation) != len(self._generators):
            raise ValueError(f"{len(observation)} observations for {len(self._generators)} seeds")
        self._draw()
        if self.device.type == "cuda":
            if self._graph is None:
                state = [*self._carry.values(), self._is_fresh]
                self._graph = CudaGraph(self._solve, (observation, target), state, self.device)
            solution = self._graph(observation, target)
        else:
            solution = self._solve(observation, target)
        actions, figures = solution.cpu().split([self.task.action_size, 4], dim=1)
        elapsed_ms = 1e3 * (time.perf_counter() - started)
        stats = [
            PlanStats(
                plan_ms=elapsed_ms,
                best_return=best,
                mean_return=mean,
                disagreement=spread,
                samples=self.samples,
                horizon=self.horizon,
                nan_rollouts=int(lost),
            )
            for best, mean, spread, lost in figures.tolist()
        ]
        return actions, stats

    def _draw(self) -> None:
        """Fill the noise of the next plan: each robot's own numbers, made where they are used."""
        for row, generator in zip(self._noise, self._generators, strict=True):
            row.normal_(generator=generator)

    def _solve(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return actions and figures [B, A + 4] from [B, O] and [B, H, T], and carry the plan on.

        Everything stays on the device, and nothing depends on a value on the host.
        """
        self._tried.clear()
        previous = observation[:, None, self.task.command]
        if self.model.proposal is None:
            carried = self._carry["plan"]
            nominal = torch.where(self._is_fresh[:, None], previous[:, 0], carried)
        else:
            nominal = self._propose(observation, target)
        rate = partial(self._rate, observation, target)
        action, plan, scores = self._improve(previous, nominal[:, :, None], rate)
        is_usable = torch.isfinite(scores.best)[:, None]
        action = torch.where(is_usable, action, previous[:, 0])
        plan = torch.where(is_usable, plan, previous[:, 0])
        self._carry["plan"].copy_(_shifted(plan))
        self._is_fresh.zero_()
        finite = scores.is_finite
        count = finite.sum(1)
        figures = [
            scores.best,
            torch.where(finite, scores.value, 0.0).sum(1) / count,
            torch.where(finite, scores.spread, 0.0).sum(1) / count,
            finite.shape[1] - count,
        ]
        return torch.cat([action, torch.stack(figures, dim=1)], dim=1)

    def _propose(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return what the proposal does if the members' mean comes true: [B, O], [B, H, T] ->
        [H, B, A]."""
        assert self.model.proposal is not None
        state = observation.expand(self.model.members, -1, -1)
        steps = []
        for h in range(self.horizon):
            steps.append(self.model.proposal(state.mean(0), target[:, h]))
            if h + 1 < self.horizon:
                state = self.model.predict(state, steps[-1])
        return torch.stack(steps)

    def _reachable(self, previous: Tensor, wish: Tensor) -> Tensor:
        """Return the plans nearest to wishes, within limits and a step apart: [B, 1, A],
        [H, B, N, A] -> [H, B, N, A]."""
        plans = wish.clamp(self._lower, self._upper)
        command = previous
        for step in plans:
            step.sub_(command).clamp_(-self.largest_change, self.largest_change).add_(command)
            command = step
        return plans

    def _rate(self, observation: Tensor, target: Tensor, candidates: Tensor) -> Scores:
        """Roll out through every member: [B, O], [B, H, T], [H, B, N, A] -> [B, N]."""
        batch, samples = candidates.shape[1:3]
        state = observation[:, None].expand(-1, samples, -1).reshape(1, batch * samples, -1)
        states = self._rollout(state.expand(self.model.members, -1, -1), candidates.flatten(1, 2))
        cost = self.task.cost(
            states.unflatten(2, (batch, samples)),
            candidates[:, None],
            target.transpose(0, 1)[:, None, :, None],
        )
        total = -cost.sum(0)
        mean = total.mean(0)
        # Ten times quicker than torch.std over so few rows.
        spread = (total - mean).square_().mean(0).sqrt_()
        value = mean - self.config.disagreement_weight * spread
        scores = Scores(torch.where(torch.isfinite(value), value, -torch.inf), spread)
        # Of a captured graph they are kept always: every replay fills the same tensors.
        if batch == 1 and (self.keeps_rollouts or self.device.type == "cuda"):
            self._tried.append((states, scores.value[0]))
        return scores


def weighted_plan(scores: Scores, candidates: Tensor, kappa: float) -> Tensor:
    """Return the mean of candidates [H, B, N, A] with weights exp(kappa * value): [H, B, A]."""
    best = scores.best[:, None]
    weight = torch.exp(kappa * (scores.value - torch.where(torch.isfinite(best), best, 0.0)))
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-30)
    return torch.matmul(weight[:, None], candidates)[..., 0, :]


def _shifted(plan: Tensor) -> Tensor:
    """Return a plan [H, ...] a step later; its last step is held."""
    return torch.cat([plan[1:], plan[-1:]])
