# SPDX-License-Identifier: Apache-2.0
"""What a supervisor goes by: times, bounds, and who depends on whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """Times in seconds."""

    heartbeat_timeout_s: float = 0.7
    """Silence after which a node counts as dead or hung."""
    kill_after_s: float = 3.0
    """Silence after which its process is killed, should it still be there."""
    start_timeout_s: float = 60.0
    """Until the first heartbeat of a process, from the beginning or from a loss."""
    transition_timeout_s: float = 60.0
    """Configuring and activating may keep a node from beating for so long."""
    stop_timeout_s: float = 5.0
    """Deactivating may."""
    settle_s: float = 0.3
    """From a process's first heartbeat to its first transition. Asked earlier, it may not have
    discovered the supervisor's side yet, and DDS then repeats the request only after seconds."""
    request_timeout_s: float = 4.0
    """A node that beats on and has not begun a transition after this did not get the request."""
    max_restarts: int = 3
    restart_window_s: float = 120.0
    """Restarts longer ago than this do not count."""
    retry_delay_s: float = 1.0
    """Before a node whose transition failed, or that stopped itself, is tried again."""


def parse_dependencies(entries: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the dependencies in texts such as `planner_node: twin_node, recorder_node`.

    Raises:
        ValueError: a text without a colon or with an empty name, or a node named twice.
    """
    dependencies: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        name, separator, others = entry.partition(":")
        name = name.strip()
        if not separator or not name:
            raise ValueError(f"dependency '{entry}' is not of the form 'node: other, other'")
        if name in dependencies:
            raise ValueError(f"the dependencies of '{name}' are given twice")
        dependencies[name] = tuple(other.strip() for other in others.split(",") if other.strip())
    return dependencies
