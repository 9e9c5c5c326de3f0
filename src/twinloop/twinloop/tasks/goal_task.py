# SPDX-License-Identifier: Apache-2.0
"""What tasks share whose goal is commanded from outside and so stands in the observation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from twinloop.contract import load as load_contract
from twinloop.paths import share
from twinloop.robots.base import Robot
from twinloop.yaml_files import read_yaml

if TYPE_CHECKING:
    from twinloop.learning.episode import Episode


class GoalTaskConfig(BaseModel):
    """Numbers that every such task has, in config/task/<name>.yaml.

    Attributes:
        episode_steps: control steps of an episode.
        tolerance: error below which an episode succeeded, in the task's unit.
        planner: changes to the settings of planners, by name, that suit the task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    episode_steps: int
    tolerance: float
    planner: dict[str, dict[str, Any]] = {}


_Config = TypeVar("_Config", bound=GoalTaskConfig)


def read_config(name: str, kind: type[_Config]) -> _Config:
    """Read config/task/<name>.yaml; raises ValueError naming the file and what is wrong in it."""
    path = share("config", "task", f"{name}.yaml")
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


class GoalTask(ABC):
    """A task measured by its error, which each observation gives; see `Task`.

    Attributes:
        center: pose about which joint targets are sampled [A], rad.
        progress_unit: of the error.
    """

    name: str
    goals: tuple[str, ...] = ("given",)
    goal_values: tuple[float, ...] = ()
    observes_goal = True
    progress_unit: str
    target_of: tuple[int, ...] = ()
    symmetry: tuple[int, ...] = ()

    def __init__(self, goal: str, robot: Robot, pose: str, config: GoalTaskConfig) -> None:
        goal = goal or self.goals[0]
        if goal not in self.goals:
            raise ValueError(
                f"{self.name}: goal is {goal!r}, expected one of {', '.join(self.goals)}"
            )
        self.goal = goal
        self.contract = load_contract(self.name)
        self.observation_size = self.contract.observation_size
        self.action_size = self.contract.action_size
        self.slices = self.contract.slices
        self.command = self.slices["command"]
        self.joint_position = self.slices["joint_position"]
        self.center = robot.poses[pose]
        self.episode_steps = config.episode_steps
        self.tolerance = config.tolerance

    @abstractmethod
    def error(self, observation: Tensor) -> Tensor:
        """Return how far the goal is, in the task's unit: [..., O] -> [...]."""

    @abstractmethod
    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """See `Task.cost`."""

    @abstractmethod
    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """See `Task.reward`."""

    def begin(self, observation: Tensor, seed: int) -> GoalTask:
        """Return the task itself: what varies is in the observation."""
        return self

    def targets(self, observation: Tensor, horizon: int) -> Tensor:
        """Return targets without elements, [..., H, 0]: the goal is part of the observation."""
        return observation.new_zeros(*observation.shape[:-1], horizon, 0)

    def failed(self, observation: Tensor) -> Tensor:
        """Return whether an observation is not finite: nothing else ends an episode."""
        return ~torch.isfinite(observation).all(-1)

    def score(self, observations: NDArray[np.floating]) -> float:
        """Return the error at the end of an episode: [T, O]."""
        return float(self.error(torch.as_tensor(np.asarray(observations[-1], dtype=np.float32))))

    def succeeded(self, episode: Episode) -> bool:
        """Return whether the error is within the tolerance at the end."""
        return self.score(episode.observations) <= self.tolerance

    def tracker(self) -> ErrorTracker:
        """Return a measure of a running episode's error."""
        return ErrorTracker(self)


class ErrorTracker:
    """Error of one running episode, one observation at a time."""

    def __init__(self, task: GoalTask) -> None:
        self._task = task

    def update(self, observation: NDArray[np.floating]) -> float:
        """Take the next observation [O] and return its error."""
        return self._task.score(np.asarray(observation)[None])
