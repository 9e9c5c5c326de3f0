# SPDX-License-Identifier: Apache-2.0
"""Tasks: cost, targets, success and failure. One module a task, with a function `make`."""

from __future__ import annotations

import importlib
import pkgutil

from twinloop.tasks.base import Task

_MACHINERY = {"base", "constants", "goal_task"}


def available() -> list[str]:
    """Names of the tasks in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _MACHINERY)


def make(name: str, goal: str = "") -> Task:
    """Make a task with one of its goals, its own default for "".

    Raises:
        ValueError: there is none of that name, or it does not know the goal.
    """
    if name not in available():
        raise ValueError(f"no task {name!r}; there are {available()}")
    task: Task = importlib.import_module(f"{__name__}.{name}").make(goal)
    return task
