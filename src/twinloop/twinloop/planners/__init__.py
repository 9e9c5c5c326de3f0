# SPDX-License-Identifier: Apache-2.0
"""Planners: an observation, a model and a task in, an action out.

One module a planner, with its class as `PLANNER` and its settings in config/planner.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from twinloop.models.base import DynamicsModel
from twinloop.planners.base import Planner
from twinloop.planners.sampling import SamplingPlanner
from twinloop.planners.settings import SamplingConfig, load
from twinloop.planners.space import ActionSpace, action_space
from twinloop.tasks.base import Task

__all__ = [
    "ActionSpace",
    "Planner",
    "action_space",
    "available",
    "kind",
    "load_config",
    "make",
    "samplers",
]

DEFAULT = "mppi"
_MACHINERY = {
    "base",
    "capture",
    "control",
    "linear_quadratic",
    "pilot",
    "rollouts",
    "sampling",
    "schedule",
    "settings",
    "shared",
    "space",
}


def available() -> list[str]:
    """Names of the planners in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _MACHINERY)


def load_config(name: str, task: str = "", **changes: Any) -> SamplingConfig:
    """Return a planner's settings, for a task where it has its own, with `changes` on top.

    Raises:
        ValueError: there is no planner of that name, or a value is unknown or out of range.
    """
    return load(kind(name).Config, name, task, **changes)


def make(
    name: str,
    model: DynamicsModel,
    task: Task,
    seed: int,
    *,
    space: ActionSpace | None = None,
    device: str = "cpu",
    **changes: Any,
) -> Planner:
    """Make a planner with the settings of its file under config/planner and of the task.

    Args:
        seed: of its random numbers.
        space: what may be commanded; default: what the task's contract states.
        device: where it plans, `cpu` or `cuda`; there, a captured graph is replayed.
        changes: to the settings.

    Raises:
        ValueError: there is none of that name, model and task do not fit, there is no such device,
            or a setting is unknown or out of range.
    """
    config = load_config(name, task.name, **changes)
    planner: Planner = kind(name)(model, task, space or action_space(task), config, seed, device)
    return planner


def samplers() -> list[str]:
    """Names of the planners that sample action sequences and roll them out."""
    return [name for name in available() if issubclass(kind(name), SamplingPlanner)]


def kind(name: str) -> Any:
    """Return a planner's class.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in available():
        raise ValueError(f"no planner {name!r}; there are {available()}")
    return importlib.import_module(f"{__name__}.{name}").PLANNER
