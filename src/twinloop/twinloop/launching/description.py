# SPDX-License-Identifier: Apache-2.0
"""What a launch file comes to, once its arguments are known: processes to run and lines to log."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from twinloop.launching.parameters import Value


@dataclass(frozen=True)
class Argument:
    """A declared launch argument."""

    name: str
    default: str | None
    """Default as written, substitutions unresolved; None where a value must be given."""
    description: str
    choices: tuple[str, ...]
    is_conditional: bool
    """Declared where `if` or `unless` decides whether it is read."""


@dataclass(frozen=True)
class ParameterSet:
    """Values that reach a node through a parameter file written when it starts."""

    node: str
    """Fully qualified node name, or `/**`."""
    values: dict[str, Value]


@dataclass(frozen=True)
class ProcessSpec:
    """One process, ready to run."""

    label: str
    """Unique in the launch, such as `planner_node-2`; stands before each of its lines."""
    command: tuple[str | ParameterSet, ...]
    environment: dict[str, str] = field(repr=False)
    cwd: str | None = None
    is_shell_command: bool = False
    output: str = "log"
    respawn: bool = False
    respawn_delay_s: float = 0.0
    respawn_max_retries: int = -1
    """Negative: no end."""
    ends_launch: bool = False
    """Its exit shuts the whole launch down (`on_exit="shutdown"`)."""
    sigterm_after_s: float = 3.0
    """From the interrupt of a shutdown to SIGTERM."""
    sigkill_after_s: float = 1.5
    """From SIGTERM to SIGKILL."""


@dataclass(frozen=True)
class LogMessage:
    """A line to print, from `<log>`."""

    text: str


@dataclass(frozen=True)
class Step:
    """Something to do when `delay_s` has passed since the launch began."""

    delay_s: float
    action: ProcessSpec | LogMessage


@dataclass(frozen=True)
class LaunchDescription:
    """A launch file with its arguments applied."""

    path: Path
    arguments: dict[str, str]
    """Every declared argument with the value it took."""
    steps: tuple[Step, ...]

    @property
    def processes(self) -> tuple[ProcessSpec, ...]:
        return tuple(step.action for step in self.steps if isinstance(step.action, ProcessSpec))
