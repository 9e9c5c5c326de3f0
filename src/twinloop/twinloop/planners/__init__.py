# SPDX-License-Identifier: Apache-2.0
"""Planners: an observation, a model and a task in, an action out. One module a planner, with a
function `make`."""

from __future__ import annotations

import importlib
import pkgutil

from twinloop.models.base import DynamicsModel
from twinloop.planners.base import Planner
from twinloop.tasks.base import Task

_MACHINERY = {"base", "control", "schedule"}


def available() -> list[str]:
    """Names of the planners in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _MACHINERY)


def make(name: str, model: DynamicsModel, task: Task, seed: int) -> Planner:
    """Make a planner with the settings of its file under config/planner.

    Raises:
        ValueError: there is none of that name, or model and task do not fit.
    """
    if name not in available():
        raise ValueError(f"no planner {name!r}; there are {available()}")
    planner: Planner = importlib.import_module(f"{__name__}.{name}").make(model, task, seed)
    return planner
