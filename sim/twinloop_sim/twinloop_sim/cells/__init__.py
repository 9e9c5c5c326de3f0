# SPDX-License-Identifier: Apache-2.0
"""The in-process cells of all tasks: one module a task, with a function `make`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

_MACHINERY = {"arm_scene", "drawing", "object_cell", "pose_tracker", "scene", "strokes"}


def available() -> list[str]:
    """Names of the tasks that have a cell."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _MACHINERY)


def make(task: str, hands: int, engine: str = "mujoco", threads: int = 1, **options: Any) -> Any:
    """Return the cell of a task: N hands that are reset, stepped and observed side by side.

    Args:
        task: name of a task.
        hands: how many.
        engine: engine of the twin.
        threads: threads that share the physics.
        options: what the task's own cell takes beside these.

    Raises:
        ValueError: no cell of that name, or an engine that it does not run on.
    """
    if task not in available():
        raise ValueError(f"no cell for task {task!r}; there are {available()}")
    module = importlib.import_module(f"{__name__}.{task}")
    return module.make(hands, engine=engine, threads=threads, **options)
