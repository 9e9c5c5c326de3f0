# SPDX-License-Identifier: Apache-2.0
"""Execute a policy network, where the others plan: an observation in, the next targets out.

A policy that gives chunks of actions is asked again after `every` steps; over `blend` steps the
chunk before fades into the new one, so that the targets do not jump where the two disagree.
"""

from __future__ import annotations

import time
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from twinloop.models.base import DynamicsModel
from twinloop.planners.base import PlanStats
from twinloop.planners.space import ActionSpace
from twinloop.tasks.base import Task


@runtime_checkable
class Acts(Protocol):
    """What is asked of a policy beside what all models have."""

    def act(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return actions in units of ±1: [B, O], [B, C, A] -> [B, C, A]."""
        ...

    def targets(self, actions: Tensor, command: Tensor) -> Tensor:
        """Return targets of such actions: [..., A], [..., A] -> [..., A]."""
        ...


@runtime_checkable
class HoldsCode(Protocol):
    """A policy whose file is a program."""

    def run_code(self) -> None:
        """Let it run."""
        ...


class RandomMotion:
    """What is done before there is a policy: changes of the targets, or targets where the command
    is not observed, drawn evenly from all that may be commanded in a step."""

    def __init__(self, task: Task, space: ActionSpace) -> None:
        self._size = task.action_size
        self._changes = task.command.stop > task.command.start
        self._space = space

    def act(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return actions in units of ±1: [B, O], normal numbers [B, 1, A] -> [B, 1, A]."""
        if noise is None:
            return torch.zeros(len(observation), 1, self._size)
        return torch.erf(noise / 2**0.5)

    def targets(self, actions: Tensor, command: Tensor) -> Tensor:
        """Return targets of such actions: [..., A], [..., A] -> [..., A]."""
        if self._changes:
            return command + self._space.largest_change * actions
        lower, upper = self._space.lower, self._space.upper
        return 0.5 * (upper + lower) + 0.5 * (upper - lower) * actions


class PolicyConfig(BaseModel):
    """Settings.

    Attributes:
        sampled: whether it acts with its own noise, as learning needs; with a model that is no
            policy it then moves at random, until it is given one.
        every: steps after which it is asked again; at most a chunk's.
        blend: steps over which a chunk fades into the next; below `every`.
        smoothing: share of the action before in each one, which keeps noise from shaking a robot.
        runs_code: policies whose file is a program (TorchScript) are let run; else they are
            refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampled: bool
    every: int = Field(ge=1, le=200)
    blend: int = Field(ge=0, le=200)
    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    runs_code: bool = False


class PolicyPlanner:
    """The planner; see `planners.base.Planner`. It looks no further ahead than its chunk.

    Raises:
        ValueError: the model is no policy or of another size, its chunk is shorter than `every`
            and `blend` together, or another device than a CPU.
    """

    Config = PolicyConfig

    def __init__(
        self,
        model: DynamicsModel,
        task: Task,
        space: ActionSpace,
        config: PolicyConfig,
        seed: int,
        device: str = "cpu",
    ) -> None:
        if device != "cpu":
            raise ValueError(f"device is {device!r}: a policy runs on the cpu")
        self.config = config
        self.task = task
        self.largest_change = space.largest_change
        self._space = space
        self._acts: Acts = RandomMotion(task, space)
        self.model = model
        self.reset(seed)

    @property
    def model(self) -> DynamicsModel:
        return self._model

    @model.setter
    def model(self, model: DynamicsModel) -> None:
        if (model.observation_size, model.action_size) != (
            self.task.observation_size,
            self.task.action_size,
        ):
            raise ValueError(
                f"model of {model.observation_size} observed and {model.action_size} action "
                f"elements, task {self.task.name} has {self.task.observation_size} and "
                f"{self.task.action_size}"
            )
        if isinstance(model, HoldsCode) and self.config.runs_code:
            model.run_code()
        acts = self._acts_of(model)
        chunk = acts.act(torch.zeros(1, model.observation_size)).shape[1]
        if self.config.every + self.config.blend > max(chunk, 1) and chunk > 1:
            raise ValueError(
                f"a chunk has {chunk} actions, expected at least every + blend, "
                f"{self.config.every} + {self.config.blend}"
            )
        self._model, self._acts, self._chunk = model, acts, chunk
        self._every = self.config.every if chunk > 1 else 1
        self._ask_again = True  # a chunk of the model before is blended into its first one

    def _acts_of(self, model: DynamicsModel) -> Acts:
        if isinstance(model, Acts):
            return model
        if self.config.sampled and isinstance(self._acts, RandomMotion):
            return self._acts
        kind = model.config_json().get("kind")
        raise ValueError(f"the model is of kind {kind!r}, expected a policy, such as an actor")

    @property
    def horizon(self) -> int:
        return 1

    def reset(self, seed: int) -> None:
        """Begin an episode of one robot."""
        self.reset_batch([seed])

    def reset_batch(self, seeds: list[int]) -> None:
        """Begin episodes of as many robots."""
        self._generators = [torch.Generator() for _ in seeds]
        self._at = np.zeros(len(seeds), dtype=int)  # steps since the chunk began
        self._now: list[Tensor | None] = [None] * len(seeds)
        self._before: list[Tensor | None] = [None] * len(seeds)
        self._done: list[Tensor | None] = [None] * len(seeds)  # the actions before
        self._last = torch.full((len(seeds), self.task.action_size), torch.nan)
        for row, seed in enumerate(seeds):
            self.reset_row(row, seed)

    def reset_row(self, row: int, seed: int) -> None:
        """Begin an episode of one robot in a batch."""
        self._generators[row].manual_seed(seed)
        self._now[row] = self._before[row] = self._done[row] = None
        self._last[row] = torch.nan

    def plan(self, observation: Tensor, target: Tensor) -> tuple[Tensor, PlanStats]:
        """Return the next joint targets [rad]: [O], [H, T] -> [A]."""
        actions, stats = self.plan_batch(observation[None], target[None])
        return actions[0], stats[0]

    @torch.no_grad()
    def plan_batch(self, observation: Tensor, target: Tensor) -> tuple[Tensor, list[PlanStats]]:
        """Return the next joint targets [rad] of B robots: [B, O], [B, H, T] -> [B, A].

        Targets are within limits and at most `largest_change` away from the command in force, or
        where that is not observed, from the last target. A policy that gives what is not finite
        has that command held; where there is none yet, the result is not finite, which guards
        refuse.

        Raises:
            ValueError: another number of observations than of seeds.
        """
        started = time.perf_counter()
        if len(observation) != len(self._generators):
            raise ValueError(f"{len(observation)} observations for {len(self._generators)} seeds")
        command = self._in_force(observation)
        actions = torch.stack([self._next(row, seen) for row, seen in enumerate(observation)])
        self._ask_again = False
        wish = self._acts.targets(actions, command)
        is_finite = torch.isfinite(wish).all(1)
        wish = torch.where(is_finite[:, None], wish, command)
        wish = wish.clamp(self._space.lower, self._space.upper)
        change = (wish - command).clamp(-self.largest_change, self.largest_change)
        reached = torch.where(torch.isfinite(command), command + change, wish)
        self._last = reached
        elapsed_ms = 1e3 * (time.perf_counter() - started)
        return reached, [_stats(elapsed_ms, finite) for finite in is_finite.tolist()]

    def _in_force(self, observation: Tensor) -> Tensor:
        """Return the command in force [B, A], NaN where it is not known."""
        where = self.task.command
        return observation[:, where] if where.stop > where.start else self._last

    def _next(self, row: int, observation: Tensor) -> Tensor:
        """Return a robot's next action in units of ±1 [A], asking the policy where it is due."""
        now = self._now[row]
        at = int(self._at[row])
        if now is None or self._ask_again or at >= self._every:
            self._before[row] = None if now is None else now[min(at, len(now) - 1) :]
            noise = None
            if self.config.sampled:
                size = (1, self._chunk, self.task.action_size)
                noise = torch.randn(size, generator=self._generators[row])
            now = self._now[row] = self._acts.act(observation[None], noise)[0]
            at = 0
        self._at[row] = at + 1
        action, before = now[at], self._before[row]
        if before is not None and at < min(self.config.blend, len(before)):
            share = (at + 1) / (self.config.blend + 1)
            action = torch.lerp(before[at], action, share)
        done = self._done[row]
        # What is not finite is not done, and does not linger.
        if done is not None and bool(torch.isfinite(done).all()):
            action = torch.lerp(action, done, self.config.smoothing)
        self._done[row] = action
        return action


def _stats(elapsed_ms: float, finite: bool) -> PlanStats:
    return PlanStats(
        plan_ms=elapsed_ms,
        best_return=0.0,
        mean_return=0.0,
        disagreement=0.0,
        samples=1,
        horizon=1,
        nan_rollouts=int(not finite),
    )


PLANNER: Any = PolicyPlanner
