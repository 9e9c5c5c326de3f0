# SPDX-License-Identifier: Apache-2.0
"""The words of the command guard: states, reasons, verdicts, counters, settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray


class GuardState(IntEnum):
    """What the guard lets through; numbers are those of the GuardStatus message."""

    HOLDING = 0
    ACTIVE = 1
    STOPPED = 2
    EMERGENCY_STOP = 3


class Refusal(StrEnum):
    """Why a command was refused."""

    POINTS = "not one trajectory point"
    LENGTH = "wrong length"
    NAMES = "wrong joint names"
    NON_FINITE = "non-finite position"
    UNNAMED = "no source named"
    STALE = "stale stamp"
    FUTURE = "stamp in the future"
    REPEATED = "stamp not newer than the last"
    EMERGENCY_STOP = "emergency stop"
    STOPPED = "stopped"
    FOREIGN = "another source holds the lease"


@dataclass(frozen=True)
class Verdict:
    """What became of one command.

    Attributes:
        goal: what will be applied, [J] rad in the robot's order; None where refused.
        refusal: why it was refused; None where accepted.
        detail: one sentence for a person; empty where nothing was changed or refused.
        clamped: joints whose target was outside the position limits.
        limited: joints whose target was further from the last goal than one step may go.
        stamp_ns: the command's stamp on the ROS clock as it is now, ns; 0 where refused.
    """

    goal: NDArray[np.float64] | None
    refusal: Refusal | None = None
    detail: str = ""
    clamped: tuple[str, ...] = ()
    limited: tuple[str, ...] = ()
    stamp_ns: int = 0

    @property
    def is_accepted(self) -> bool:
        return self.refusal is None


@dataclass(frozen=True)
class GoalChange:
    """A goal that the guard set by itself, to be recorded like an applied command.

    Attributes:
        stamp_ns: ROS time from which it holds, ns.
        goal: [J] rad.
        reason: why.
    """

    stamp_ns: int
    goal: NDArray[np.float64]
    reason: str


@dataclass
class GuardCounters:
    """How often the guard did what, since it was made."""

    accepted: int = 0
    refused: int = 0
    clamped: int = 0
    limited: int = 0
    non_finite: int = 0
    stale: int = 0
    foreign: int = 0
    holds: int = 0
    emergency_stops: int = 0
    by_reason: dict[Refusal, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GuardSettings:
    """Times and speeds of a command guard.

    Attributes:
        tick_s: time between two `tick` calls, s of ROS time.
        period_s: time between two commands of a source, s of ROS time.
        joint_speed: largest mean speed that a command may ask for, rad/s: targets move by at most
            `joint_speed * period_s` from one command to the next.
        command_delay_s: from a command's stamp to its first effect, s of ROS time.
        max_age_s: a command whose stamp is older on arrival is refused, s of ROS time.
        max_ahead_s: how far in the future a stamp may lie, s of ROS time.
        command_timeout_s: silence of the source after which the goal is held, s of steady time.
            With the default a source that misses its turn is held within 100 ms of that turn.
        lease_s: silence after which another source may take over, s of steady time.
        heartbeat_timeout_s: silence of the emergency stop that counts as pressed, s of steady time.
        requires_emergency_stop: whether the guard is stopped until the emergency stop was heard
            and it was re-armed; otherwise its heartbeat is watched from the first one on.
    """

    tick_s: float = 0.01
    period_s: float = 0.1
    joint_speed: float = 1.5
    command_delay_s: float = 0.05
    max_age_s: float = 0.2
    max_ahead_s: float = 0.05
    command_timeout_s: float = 0.17
    lease_s: float = 0.5
    heartbeat_timeout_s: float = 0.23
    requires_emergency_stop: bool = False

    def __post_init__(self) -> None:
        for name, lowest in (
            ("tick_s", 1e-4),
            ("period_s", self.tick_s),
            ("joint_speed", 1e-3),
            ("command_delay_s", 0.0),
            ("max_age_s", 1e-3),
            ("max_ahead_s", 0.0),
            ("command_timeout_s", 1e-3),
            ("lease_s", self.command_timeout_s),
            ("heartbeat_timeout_s", 1e-3),
        ):
            value = getattr(self, name)
            if not lowest <= value < 1e6:
                raise ValueError(f"guard setting {name} is {value}, expected at least {lowest}")
