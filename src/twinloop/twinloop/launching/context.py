# SPDX-License-Identifier: Apache-2.0
"""What a launch file sees while it is read: its variables, the environment, its own place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# ROS 2's launch keeps the pushed namespace among the variables, under this name.
NAMESPACE = "ros_namespace"


class LaunchContext:
    """Variables and environment of a launch, both scoped by groups."""

    def __init__(self, variables: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self.environment = dict(environment)
        self.file: Path | None = None

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Undo at the end whatever happened to variables and environment inside."""
        variables, environment = dict(self.variables), dict(self.environment)
        try:
            yield
        finally:
            self.variables, self.environment = variables, environment

    @contextmanager
    def inside(self, file: Path) -> Iterator[None]:
        """Take `file` as the launch file being read."""
        outer, self.file = self.file, file
        try:
            yield
        finally:
            self.file = outer
