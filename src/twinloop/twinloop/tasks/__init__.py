# SPDX-License-Identifier: Apache-2.0
"""Tasks: cost, targets, success and failure. One module a task, with a function `make`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence

from twinloop.tasks.base import Task

_MACHINERY = {"base", "constants", "equivalents", "goal_task", "of_contract", "panda_tool"}


def available() -> list[str]:
    """Names of the tasks in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _MACHINERY)


def make(name: str, goal: str = "", places: Sequence[float] = ()) -> Task:
    """Make a task with one of its goals, its own default for "", and numbers that go with it.

    Raises:
        ValueError: there is none of that name, or it does not know the goal or its numbers.
    """
    if name not in available():
        raise ValueError(f"no task {name!r}; there are {available()}")
    maker = importlib.import_module(f"{__name__}.{name}").make
    takes_places = "places" in inspect.signature(maker).parameters
    if len(places) and not takes_places:
        raise ValueError(f"{name}: its goals take no numbers, got {len(places)}")
    task: Task = maker(goal, places) if takes_places else maker(goal)
    return task
