# SPDX-License-Identifier: Apache-2.0
"""What a page shows, as plain values: one object for all windows that are open."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_STEPS = 300  # of the plots, half a minute at ten steps a second
KEPT_FAULTS = 30


def _steps() -> deque[float]:
    return deque(maxlen=KEPT_STEPS)


@dataclass
class Ball:
    """A ball in the frame of the palm."""

    position: NDArray[np.float64]  # [3] m
    is_stale: bool = False


@dataclass
class Series:
    """Figures of the last control steps, one value a step; NaN where there is none."""

    time_s: deque[float] = field(default_factory=_steps)
    rotation: deque[float] = field(default_factory=_steps)  # in the unit of the goal
    cost: deque[float] = field(default_factory=_steps)
    plan_ms: deque[float] = field(default_factory=_steps)
    lateness_ms: deque[float] = field(default_factory=_steps)
    prediction_mm: deque[float] = field(default_factory=_steps)
    disagreement: deque[float] = field(default_factory=_steps)

    def add(self, **figures: float) -> None:
        """Take the figures of a step; what is not given is not known."""
        for name in self.__dataclass_fields__:
            getattr(self, name).append(figures.get(name, float("nan")))


@dataclass
class Episode:
    """Where the running episode stands."""

    id: str = ""
    index: int = 0
    total: int = 0
    phase: str = "idle"
    step: int = 0
    steps: int = 0
    goal: str = ""
    rotation: float = 0.0
    model: str = ""
    stop_reason: str = ""


@dataclass(frozen=True)
class EpisodeRow:
    """An episode that has ended."""

    id: str
    goal: str
    steps: int
    rotation: float
    model: str
    end: str


@dataclass(frozen=True)
class ModelRow:
    """A model version."""

    version: str
    status: str
    transitions: int
    one_step_mm: float
    seven_step_mm: float
    reason: str


@dataclass(frozen=True)
class BagRow:
    """A bag on disk."""

    name: str
    seconds: float
    messages: int
    megabytes: float
    state: str


@dataclass
class NodeRow:
    """A node, as its heartbeat tells."""

    name: str
    state: str
    message: str
    is_fault: bool
    is_warning: bool
    beat_s: float
    """Steady time of the last heartbeat."""
    pid: int = 0
    rss_mb: float = 0.0


@dataclass(frozen=True)
class TopicRow:
    """A topic: how often it comes, and how old its newest sample may be."""

    name: str
    rate_hz: float
    age_s: float
    max_age_s: float

    @property
    def is_stale(self) -> bool:
        return self.age_s > self.max_age_s


@dataclass
class CellState:
    """All that a page shows of a cell. Changed by its owner in one thread, the page's own."""

    task: str = "baoding"
    goals: tuple[str, ...] = ()
    """What the running planner can be asked to pursue."""
    unit: str = "deg"
    joints: dict[str, float] = field(default_factory=dict)  # rad or m
    balls: list[Ball] = field(default_factory=list)
    plan: NDArray[np.void] | None = None  # views.plan_points
    image: NDArray[np.uint8] | None = None  # [H, W, 3], with the tracks
    episode: Episode = field(default_factory=Episode)
    series: Series = field(default_factory=Series)
    episodes: list[EpisodeRow] = field(default_factory=list)
    models: dict[str, ModelRow] = field(default_factory=dict)
    bags: list[BagRow] = field(default_factory=list)
    nodes: dict[str, NodeRow] = field(default_factory=dict)
    topics: list[TopicRow] = field(default_factory=list)
    faults: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_FAULTS))
    guard: str = "unknown"
    guard_reason: str = ""
    is_pressed: bool | None = None
    """The emergency stop; None where nobody has said so yet."""
    is_paused: bool = False
    control: str = ""
    """Who commands the hand; empty where no pilot may."""
    alpha: float = float("nan")
    is_sharing: bool = False
    disk_free_gb: float = float("nan")
    memory_free_gb: float = float("nan")
    notice: str = ""
    """What came of the last thing that somebody asked for."""
    more: dict[str, Any] = field(default_factory=dict)
    """What parts of the page that are added from outside show."""
