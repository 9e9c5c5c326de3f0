# SPDX-License-Identifier: Apache-2.0
"""LQR-FLM: execute time-varying linear-Gaussian feedback, and improve it between episodes.

It takes any model with an encoding of observations, linear-Gaussian dynamics of the states, and the
policy about which these hold, such as `models/linear_latent.py`. A step of an episode is one matrix
product; what is optimised (`improved`), is so between episodes by whoever fits the next model.

With a model that has no policy, it explores: the command in force is repeated, with noise. What
comes of that is where learning begins.
"""

from __future__ import annotations

import time
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from twinloop.models.base import DynamicsModel
from twinloop.models.linear_gaussian import LinearGaussian
from twinloop.planners.base import PlanStats
from twinloop.planners.linear_quadratic.encoding import Encoding, command_in, encoding_of
from twinloop.planners.linear_quadratic.policy import LinearPolicy, holding
from twinloop.planners.space import ActionSpace
from twinloop.tasks.base import Task


@runtime_checkable
class LinearGaussianModel(Protocol):
    """What the planner asks of a model beside what all models have."""

    @property
    def encoding(self) -> Encoding:
        """Observations to states."""
        ...

    @property
    def dynamics(self) -> LinearGaussian:
        """Dynamics of the states."""
        ...

    @property
    def policy(self) -> LinearPolicy:
        """What is executed."""
        ...


class LQRFLMConfig(BaseModel):
    """Settings.

    Attributes:
        explores: with the policy's noise, which learning needs, or with its mean alone.
        first_deviation: of the targets' change in a step of the first policy, rad.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    explores: bool
    first_deviation: float = Field(gt=0)


def first_policy(task: Task, encoding: Encoding, deviation: float) -> LinearPolicy:
    """Return the policy with which a task begins: its command repeated, with noise [rad]."""
    return holding(
        task.episode_steps,
        len(encoding.encoder),
        command_in(task, encoding),
        np.full(task.action_size, deviation),
    )


class LQRFLM:
    """The planner; see `planners.base.Planner`.

    Raises:
        ValueError: model and task are of different sizes, or another device than a CPU.
    """

    Config = LQRFLMConfig

    def __init__(
        self,
        model: DynamicsModel,
        task: Task,
        space: ActionSpace,
        config: LQRFLMConfig,
        seed: int,
        device: str = "cpu",
    ) -> None:
        if device != "cpu":
            raise ValueError(f"device is {device!r}: lqr_flm runs on the cpu, a product a step")
        self.config = config
        self.task = task
        self.largest_change = space.largest_change
        self._lower, self._upper = (bound.double().numpy() for bound in (space.lower, space.upper))
        self.model = model
        self.reset(seed)

    @property
    def model(self) -> DynamicsModel:
        return self._model

    @model.setter
    def model(self, model: DynamicsModel) -> None:
        if model.observation_size != self.task.observation_size:
            raise ValueError(
                f"model observes {model.observation_size} elements, "
                f"task {self.task.name} has {self.task.observation_size}"
            )
        self._model = model
        if isinstance(model, LinearGaussianModel):
            self._encoding, self._policy = model.encoding, model.policy
        else:
            self._encoding = encoding_of(self.task)
            self._policy = first_policy(self.task, self._encoding, self.config.first_deviation)

    @property
    def horizon(self) -> int:
        return 1

    def reset(self, seed: int) -> None:
        """Begin an episode of one robot."""
        self.reset_batch([seed])

    def reset_batch(self, seeds: list[int]) -> None:
        """Begin episodes of as many robots."""
        self._steps = np.zeros(len(seeds), dtype=int)
        self._rng = [np.random.default_rng([seed, 5]) for seed in seeds]

    def reset_row(self, row: int, seed: int) -> None:
        """Begin an episode of one robot in a batch."""
        self._steps[row] = 0
        self._rng[row] = np.random.default_rng([seed, 5])

    def plan(self, observation: Tensor, target: Tensor) -> tuple[Tensor, PlanStats]:
        """Return the next joint targets [rad]: [O], [H, T] -> [A]."""
        actions, stats = self.plan_batch(observation[None], target[None])
        return actions[0], stats[0]

    def plan_batch(self, observation: Tensor, target: Tensor) -> tuple[Tensor, list[PlanStats]]:
        """Return the next joint targets [rad] of B robots: [B, O], [B, H, T] -> [B, A].

        Targets are within limits and at most `largest_change` away from the command in force. A
        policy that asks for what is not finite has that command held.

        Raises:
            ValueError: another number of observations than of seeds.
        """
        started = time.perf_counter()
        if len(observation) != len(self._rng):
            raise ValueError(f"{len(observation)} observations for {len(self._rng)} seeds")
        seen = observation.double().numpy()
        states = self._encoding.encode(seen)
        command = seen[:, self.task.command]
        wish = np.empty_like(command)
        for row, (step, state) in enumerate(zip(self._steps, states, strict=True)):
            if self.config.explores:
                noise = np.asarray(self._rng[row].normal(size=(wish.shape[1],)))
                wish[row] = self._policy.sample(step, state, noise)
            else:
                wish[row] = self._policy.mean(step, state)
        self._steps += 1
        is_finite = np.isfinite(wish).all(axis=1)
        wish = np.where(is_finite[:, None], np.clip(wish, self._lower, self._upper), command)
        change = np.clip(wish - command, -self.largest_change, self.largest_change)
        elapsed_ms = 1e3 * (time.perf_counter() - started)
        stats = [
            PlanStats(
                plan_ms=elapsed_ms,
                best_return=0.0,
                mean_return=0.0,
                disagreement=0.0,
                samples=1,
                horizon=1,
                nan_rollouts=int(not finite),
            )
            for finite in is_finite
        ]
        return torch.from_numpy(command + change).float(), stats


PLANNER: Any = LQRFLM
