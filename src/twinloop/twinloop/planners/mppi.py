# SPDX-License-Identifier: Apache-2.0
"""Model-predictive path integral control as in PDDM (arXiv 1909.11652, section 4.2).

Each call samples noisy action sequences about the last plan, smooths them over time, rolls them
out through every ensemble member, and averages them with weights exp(kappa * return).

Unlike the reference code, actions are limited before they are rolled out and averaged, so the plan
that is scored is the plan that can be executed; a rollout that is not finite counts for nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from twinloop.models.base import DynamicsModel
from twinloop.paths import share
from twinloop.planners.base import PlanStats
from twinloop.robots.hand24 import HAND24
from twinloop.tasks.base import Task


class MPPIConfig(BaseModel):
    """Settings of the sampler. Noise is in units in which ±1 spans the joint range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(ge=2, le=100_000)
    horizon: int = Field(ge=1, le=200)
    kappa: float = Field(gt=0)  # sharpness of the weights, per unit of return
    beta: float = Field(gt=0, le=1)  # share of the new value in the smoothing over time
    sigma: float = Field(gt=0)
    proposal_sigma: float = Field(ge=0)  # in its place, about a model's proposal
    fine_share: float = Field(ge=0, le=1)  # share of samples with `fine_scale` of the noise
    fine_scale: float = Field(gt=0, le=1)
    disagreement_weight: float = Field(ge=0)  # times the members' standard deviation of return
    joint_speed: float = Field(gt=0)  # rad/s
    step_s: float = Field(gt=0)
    range_share: float = Field(gt=0, le=1)  # of the joint range that ±1 spans about the middle


def load_config(path: Path | None = None, **changes: Any) -> MPPIConfig:
    """Read `config/planner/mppi.yaml` (or `path`), with `changes` on top.

    Raises:
        pydantic.ValidationError: a value is missing, unknown or out of range.
    """
    path = share("config", "planner", "mppi.yaml") if path is None else path
    return MPPIConfig(**{**yaml.safe_load(path.read_text()), **changes})


@dataclass(frozen=True)
class ActionSpace:
    """Limits and the pose about which actions are sampled, each [A], rad."""

    lower: Tensor
    upper: Tensor
    center: Tensor

    def __post_init__(self) -> None:
        if not bool(((self.lower <= self.center) & (self.center <= self.upper)).all()):
            raise ValueError("action space: center is outside the limits")


class MPPI:
    """The planner for B robots at once; `plan` is the case of one.

    Every robot has its own random numbers, so what it does depends on its seed alone and not on
    which others are planned beside it.
    """

    def __init__(
        self, model: DynamicsModel, task: Task, space: ActionSpace, config: MPPIConfig, seed: int
    ) -> None:
        if model.observation_size != task.observation_size:
            raise ValueError(
                f"model observes {model.observation_size} elements, "
                f"task {task.name} has {task.observation_size}"
            )
        self.model = model
        self.task = task
        self.config = config
        self._space = space
        self._scale = 0.5 * config.range_share * (space.upper - space.lower)
        self.largest_change = config.joint_speed * config.step_s  # rad in a step
        fine = round(config.fine_share * config.samples)
        spread = torch.ones(config.samples, 1, 1)
        spread[config.samples - fine :] *= config.fine_scale
        spread[0] = 0.0  # the plan itself is always among the candidates
        self._spread = spread
        self.reset(seed)

    @property
    def horizon(self) -> int:
        return self.config.horizon

    def reset(self, seed: int) -> None:
        """Forget the last plan; the next call plans one robot."""
        self.reset_batch([seed])

    def reset_batch(self, seeds: list[int]) -> None:
        """Forget the last plans; the next call plans one robot for each seed."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._is_fresh = torch.ones(len(seeds), dtype=torch.bool)
        shape = (len(seeds), self.config.horizon, self.task.action_size)
        self._mean = torch.zeros(shape)  # [B, H, A] rad

    def reset_row(self, row: int, seed: int) -> None:
        """Forget the last plan of one robot in a batch, which starts anew from `seed`."""
        self._generators[row] = torch.Generator().manual_seed(seed)
        self._is_fresh[row] = True

    def plan(self, observation: Tensor, target: Tensor) -> tuple[Tensor, PlanStats]:
        """Return the next joint targets [rad]: [O], [H, T] -> [A]."""
        actions, stats = self.plan_batch(observation[None], target[None])
        return actions[0], stats[0]

    @torch.no_grad()
    def plan_batch(self, observation: Tensor, target: Tensor) -> tuple[Tensor, list[PlanStats]]:
        """Return the next joint targets [rad] of B robots: [B, O], [B, H, T] -> [B, A].

        Targets are absolute, within limits, and at most `joint_speed * step_s` away from the
        previous command in the observation. Where no rollout is finite, that command is held.
        `plan_ms` is the time of the whole call.
        """
        started = time.perf_counter()
        batch, config = len(observation), self.config
        if batch != len(self._generators):
            raise ValueError(f"{batch} observations for {len(self._generators)} seeds")
        previous = observation[:, self.task.command]
        if self.model.proposal is None:
            candidates = self._about_last_plan(previous)
        else:
            candidates = self._about_proposal(previous, self._propose(observation, target))
        returns = self._returns(observation, candidates, target)  # [E, B, N]
        score = returns.mean(0) - config.disagreement_weight * returns.std(0, correction=0)
        finite = torch.isfinite(score)
        score = torch.where(finite, score, -torch.inf)
        best = score.amax(1, keepdim=True)
        usable = torch.isfinite(best)
        weight = torch.exp(config.kappa * (score - torch.where(usable, best, 0.0)))
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-30)
        mean = torch.einsum("bn,bnha->bha", weight, candidates)
        mean = torch.where(usable[:, :, None], mean, previous[:, None])
        self._mean = torch.cat([mean[:, 1:], mean[:, -1:]], dim=1)
        self._is_fresh[:] = False
        elapsed_ms = 1e3 * (time.perf_counter() - started)
        spread = returns.std(0, correction=0)
        stats = [
            PlanStats(
                plan_ms=elapsed_ms,
                best_return=float(best[b]),
                mean_return=float(score[b][finite[b]].mean()),
                disagreement=float(spread[b][finite[b]].mean()),
                samples=config.samples,
                horizon=config.horizon,
                nan_rollouts=int((~finite[b]).sum()),
            )
            for b in range(batch)
        ]
        return mean[:, 0], stats

    def _noise(self) -> Tensor:
        """Return white noise of unit deviation, nothing for the first candidate: [B, N, H, A]."""
        shape = (self.config.samples, self.config.horizon, self.task.action_size)
        noise = torch.stack([torch.randn(shape, generator=g) for g in self._generators])
        return noise * self._spread

    def _propose(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return what the proposal does if the members' mean comes true: [B, O], [B, H, T] ->
        [B, H, A]."""
        assert self.model.proposal is not None
        state = observation.expand(self.model.members, -1, -1)
        steps = []
        for h in range(self.config.horizon):
            steps.append(self.model.proposal(state.mean(0), target[:, h]))
            if h + 1 < self.config.horizon:
                state = self.model.predict(state, steps[-1])
        return torch.stack(steps, dim=1)

    def _about_proposal(self, previous: Tensor, plan: Tensor) -> Tensor:
        """Return candidates about a proposed plan: [B, A], [B, H, A] -> [B, N, H, A].

        Noise alone is smoothed, so the plan itself stays what was proposed.
        """
        c = self.config
        white = c.proposal_sigma * self._scale * self._noise()
        command, smooth = previous[:, None], torch.zeros_like(white[:, :, 0])
        steps = []
        for h in range(c.horizon):
            smooth = torch.lerp(smooth, white[:, :, h], c.beta)
            command = self._reachable(command, plan[:, None, h] + smooth)
            steps.append(command)
        return torch.stack(steps, dim=2)

    def _reachable(self, command: Tensor, wish: Tensor) -> Tensor:
        """Return the target nearest to a wish, within limits and a step away from the last."""
        goal = wish.clamp(self._space.lower, self._space.upper)
        return command + (goal - command).clamp(-self.largest_change, self.largest_change)

    def _about_last_plan(self, previous: Tensor) -> Tensor:
        """Return candidate targets [rad] that can be executed: [B, A] -> [B, N, H, A]."""
        c = self.config
        noise = c.sigma * self._scale * self._noise()
        mean = torch.where(self._is_fresh[:, None, None], previous[:, None], self._mean)
        wish = mean[:, None] + noise
        command = smooth = previous[:, None]
        steps = []
        for h in range(c.horizon):
            # The first candidate has no noise and is the plan itself: smoothing would bend it.
            smoothed = torch.lerp(smooth.expand(-1, c.samples, -1), wish[:, :, h], c.beta)
            smooth = torch.where(self._spread[:, 0] == 0, wish[:, :, h], smoothed)
            command = self._reachable(command, smooth)
            steps.append(command)
        return torch.stack(steps, dim=2)

    def _returns(self, observation: Tensor, candidates: Tensor, target: Tensor) -> Tensor:
        """Roll out through every member: [B, O], [B, N, H, A], [B, H, T] -> [E, B, N]."""
        batch, samples = candidates.shape[:2]
        state = observation[:, None].expand(-1, samples, -1).reshape(1, batch * samples, -1)
        state = state.expand(self.model.members, -1, -1)
        actions = candidates.flatten(0, 1).transpose(0, 1)  # [H, B * N, A]
        states = self.model.rollout(state, actions).unflatten(2, (batch, samples))
        cost = self.task.cost(
            states,
            actions.unflatten(1, (batch, samples))[:, None],
            target.transpose(0, 1)[:, None, :, None],
        )
        return -cost.sum(0)


def make(model: DynamicsModel, task: Task, seed: int) -> MPPI:
    """Make the planner with the settings of `config/planner/mppi.yaml`, about the cup pose."""
    lower, upper, center = (
        torch.tensor(array, dtype=torch.float32)
        for array in (HAND24.lower, HAND24.upper, HAND24.poses["cup"])
    )
    return MPPI(model, task, ActionSpace(lower, upper, center), load_config(), seed)
