# SPDX-License-Identifier: Apache-2.0
"""Times of plans, of their networks' matrix products alone, and of a neighbour."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from twinloop.models import layers
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.planners.base import Planner
from twinloop.tasks.base import Task

from twinloop import planners

Call = Callable[[], object]


def interleaved(calls: dict[str, Call], rounds: int) -> dict[str, np.ndarray]:
    """Return the times of each call [ms], in turns, so that other load falls on all of them."""
    for call in calls.values():
        for _ in range(3):
            call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            spent[name].append(1e3 * (time.perf_counter() - began))
    return {name: np.array(times) for name, times in spent.items()}


def plain_ensemble(task: Task, hidden: Sequence[int], members: int = 3) -> Ensemble:
    """Return PDDM's model of a task, untrained: its time does not depend on its weights."""
    config = EnsembleConfig(
        observation_size=task.observation_size,
        action_size=task.action_size,
        members=members,
        hidden=tuple(hidden),
        known=(task.command.start, task.command.stop),
    )
    model = Ensemble(config, seed=0)
    model.requires_grad_(False)
    return model


def plan_call(planner: Planner, observation: Tensor) -> Call:
    """Return a call that plans from an observation [O]."""
    target = planner.task.targets(observation, planner.horizon)
    return lambda: planner.plan(observation, target)


def products_calls(model: Ensemble, samples: int, horizon: int) -> dict[str, Call]:
    """Return calls that do the matrix products of a plan and nothing else, in two ways: all members
    at once, and one after the other with the products that plans use, which add bias and ReLU as
    they go. Which is the quicker one depends on the processor.

    `products_*` are those of the whole network, `needed_products_*` without the outputs that are
    given, which plans leave out.
    """
    maps = [(layer.weight, layer.bias) for layer in model.network.layers]
    weight, bias = maps[-1]
    needed = [*maps[:-1], (weight[..., model.predicted], bias[..., model.predicted])]
    return {
        f"{name}_{way}": call
        for name, some in (("products", maps), ("needed_products", needed))
        for way, call in _products(some, samples, horizon).items()
    }


def _products(maps: list[layers.AffineMap], samples: int, horizon: int) -> dict[str, Call]:
    inputs = [torch.randn(len(weight), samples, weight.shape[1]) for weight, _ in maps]
    members = layers.by_member(maps)

    @torch.no_grad()
    def batched() -> None:
        for _ in range(horizon):
            for x, (weight, bias) in zip(inputs, maps, strict=True):
                torch.baddbmm(bias, x, weight)

    @torch.no_grad()
    def by_member() -> None:
        for _ in range(horizon):
            for member, x in zip(members, inputs[0], strict=True):
                layers.apply_member(member, x)

    return {"batched": batched, "by_member": by_member}


def neighbour_calls(
    model: Ensemble, task: Task, observation: Tensor, samples: int, horizon: int
) -> dict[str, Call]:
    """Return calls of pytorch_mppi at the same size, with the dynamics and the cost that we use.

    Once with the model's `predict`, and once with a step of its `rollout`, which has the scales
    worked into the weights.

    Raises:
        ImportError: it is not installed.
    """
    mppi = importlib.import_module("pytorch_mppi").MPPI
    space = planners.action_space(task)
    target = task.targets(observation, horizon)

    frozen = model.frozen_rollout()

    def one_step(state: Tensor, action: Tensor) -> Tensor:
        return frozen(state, action[None])[0]

    def make(dynamics: Callable[[Tensor, Tensor], Tensor]) -> Call:
        def step(state: Tensor, action: Tensor, t: int) -> Tensor:
            # Members come one after the other, and all try the same actions.
            state = state.view(model.members, samples, -1)
            return dynamics(state, action[:samples]).flatten(0, 1)

        planner = mppi(
            step,
            lambda state, action, t: task.cost(state, action, target[t]),
            task.observation_size,
            torch.diag(0.1 * (space.upper - space.lower)),
            num_samples=samples,
            horizon=horizon,
            rollout_samples=model.members,
            u_min=space.lower,
            u_max=space.upper,
            step_dependent_dynamics=True,
        )

        @torch.no_grad()
        def command() -> None:
            planner.command(observation)

        return command

    return {"predict": make(model.predict), "one_step_rollout": make(one_step)}
