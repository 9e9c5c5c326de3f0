# SPDX-License-Identifier: Apache-2.0
"""Move the tip of a held pencil along a path on paper (PDDM, arXiv 1909.11652: handwriting)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinloop.contract.pencil import WAYPOINTS
from twinloop.robots.hand24 import HAND24
from twinloop.tasks.goal_task import ErrorTracker, GoalTask, GoalTaskConfig, read_config


class PencilConfig(GoalTaskConfig):
    """Numbers of the task.

    Attributes:
        error_weight: cost per mm between the tip and its waypoint.
        height_weight: cost per mm between the tip and the paper.
        speed_weight: cost of the joints' mean square speed, (rad/s)².
        reward_error_mm: an error of this size earns 0, none earns 1.
        reward_effort: cost of the actions' mean square.
    """

    error_weight: float
    height_weight: float
    speed_weight: float
    reward_error_mm: float
    reward_effort: float


class Pencil(GoalTask):
    """The task; the path ahead comes with the observations, one waypoint a control step."""

    name = "pencil"
    progress_unit = "mm"

    def __init__(self, goal: str = "", config: PencilConfig | None = None) -> None:
        self.config = config or read_config(self.name, PencilConfig)
        super().__init__(goal, HAND24, "tripod", self.config)
        self._tip = slice(self.slices["tip_position"].start, self.slices["tip_position"].start + 2)
        self._height = self.slices["tip_position"].start + 2
        first = self._tip.start
        self.target_of = (first, first + 1)

    def waypoints(self, observation: Tensor) -> Tensor:
        """Return where the tip should be in the next control steps [m]: [..., O] -> [..., W, 2]."""
        return observation[..., self.slices["goal"]].unflatten(-1, (WAYPOINTS, 2))

    def targets(self, observation: Tensor, horizon: int) -> Tensor:
        """Return the waypoints of the next steps, the last repeated: [..., O] -> [..., H, 2]."""
        ahead = torch.arange(horizon, device=observation.device).clamp(max=WAYPOINTS - 1)
        return self.waypoints(observation)[..., ahead, :]

    def error(self, observation: Tensor) -> Tensor:
        """Return how far the tip is from the next waypoint [mm]: [..., O] -> [...]."""
        return self._distance(observation, self.waypoints(observation)[..., 0, :])

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return the distance to the waypoint, along the paper and off it."""
        c = self.config
        speed = observation[..., self.slices["joint_velocity"]].square().mean(-1)
        return (
            c.error_weight * self._distance(observation, target)
            + c.height_weight * 1e3 * observation[..., self._height].abs()
            + c.speed_weight * speed
        )

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return how near the tip came to the waypoint that was next, less effort."""
        c = self.config
        error = self._distance(after, self.waypoints(before)[..., 0, :])
        return 1.0 - error / c.reward_error_mm - c.reward_effort * action.square().mean(-1)

    def errors(self, observations: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the tracking error of each step [mm]: [T, O] -> [T - 1]."""
        seen = torch.as_tensor(np.asarray(observations, dtype=np.float32))
        due = self.waypoints(seen[:-1])[:, 0]
        return self._distance(seen[1:], due).double().numpy()

    def score(self, observations: NDArray[np.floating]) -> float:
        """Return the mean tracking error [mm]: [T, O]."""
        return float(self.errors(observations).mean())

    def tracker(self) -> ErrorTracker:
        """Return a measure of a running episode's error."""
        return PathTracker(self)

    def _distance(self, observation: Tensor, waypoint: Tensor) -> Tensor:
        return 1e3 * torch.linalg.vector_norm(observation[..., self._tip] - waypoint, dim=-1)


class PathTracker(ErrorTracker):
    """Mean tracking error so far of one running episode."""

    def __init__(self, task: Pencil) -> None:
        super().__init__(task)
        self._path = task
        self._before: NDArray[np.floating] | None = None
        self._errors: list[float] = []

    def update(self, observation: NDArray[np.floating]) -> float:
        """Take the next observation [O] and return the mean error so far [mm]."""
        if self._before is not None:
            pair = np.stack([self._before, observation])
            self._errors.append(float(self._path.errors(pair)[0]))
        self._before = np.asarray(observation)
        return float(np.mean(self._errors)) if self._errors else 0.0


def make(goal: str) -> Pencil:
    """Make the task; its path comes with the observations."""
    return Pencil(goal)
