# SPDX-License-Identifier: Apache-2.0
"""Turn a cube in the palm to an orientation (PDDM, arXiv 1909.11652)."""

from __future__ import annotations

import torch
from torch import Tensor

from twinloop.robots.hand24 import HAND24
from twinloop.tasks.constants import constant
from twinloop.tasks.goal_task import GoalTask, GoalTaskConfig, read_config


class CubeConfig(GoalTaskConfig):
    """Numbers of the task; palm frame, m and rad.

    Attributes:
        error_weight: cost per rad between the cube and its goal.
        center_m, center_weight: where the cube should stay, and the cost per m away from there.
        safe_lower_m, safe_upper_m: a cube whose centre is outside this box has dropped.
        spill_margin_m, spill_weight: cost per m nearer to the box's faces than the margin.
        drop_cost: of a step outside.
        speed_weight: cost of the joints' mean square speed, (rad/s)².
        reward_turn: progress that earns 1 in a step; reward_effort, reward_drop: what costs.
    """

    error_weight: float
    center_m: tuple[float, float, float]
    center_weight: float
    safe_lower_m: tuple[float, float, float]
    safe_upper_m: tuple[float, float, float]
    spill_margin_m: float
    spill_weight: float
    drop_cost: float
    speed_weight: float
    reward_turn: float
    reward_effort: float
    reward_drop: float


class Cube(GoalTask):
    """The task; the goal orientation comes with the observations."""

    name = "cube"
    progress_unit = "rad"

    def __init__(self, goal: str = "", config: CubeConfig | None = None) -> None:
        self.config = config or read_config(self.name, CubeConfig)
        super().__init__(goal, HAND24, "cup", self.config)

    def error(self, observation: Tensor) -> Tensor:
        """Return the angle [rad] of the rotation that is still to be made: [..., O] -> [...]."""
        cube = _axes(observation[..., self.slices["cube_rotation"]])
        goal = _axes(observation[..., self.slices["goal"]])
        trace = (cube * goal).sum((-1, -2))
        return torch.acos((0.5 * (trace - 1.0)).clamp(-1.0 + 1e-6, 1.0 - 1e-6))

    def clearance(self, observation: Tensor) -> Tensor:
        """Return the distance [m] to the nearest face of the safe box: [..., O] -> [...]."""
        place = observation[..., self.slices["cube_position"]]
        lower = constant(self.config.safe_lower_m, place)
        upper = constant(self.config.safe_upper_m, place)
        return torch.minimum(place - lower, upper - place).amin(-1)

    def failed(self, observation: Tensor) -> Tensor:
        """Return whether the cube has dropped: [..., O] -> bool [...]. NaN counts as failed."""
        return ~(self.clearance(observation) >= 0.0)

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return the error, the distance from the middle of the palm, and drops."""
        c = self.config
        place = observation[..., self.slices["cube_position"]]
        away = torch.linalg.vector_norm(place - constant(c.center_m, place), dim=-1)
        inside = self.clearance(observation)
        spill = (c.spill_margin_m - inside).clamp(min=0.0)
        speed = observation[..., self.slices["joint_velocity"]].square().mean(-1)
        return (
            c.error_weight * self.error(observation)
            + c.center_weight * away
            + c.spill_weight * spill
            + c.drop_cost * (inside < 0)
            + c.speed_weight * speed
        )

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return the turn towards the goal, up to 1 for being there, less effort and drops."""
        c = self.config
        error = self.error(after)
        turn = (self.error(before) - error) / c.reward_turn
        near = (1.0 - error / (2.0 * self.tolerance)).clamp(min=0.0)
        return (
            turn.clamp(-1.0, 1.0)
            + near
            - c.reward_effort * action.square().mean(-1)
            - c.reward_drop * self.failed(after)
        )


def _axes(columns: Tensor) -> Tensor:
    """Return rotation matrices, as columns [..., 3, 3], of their first two, made orthonormal:
    [..., 6]. Predictions are not quite rotations."""
    first, second = columns.unflatten(-1, (2, 3)).unbind(-2)
    first = torch.nn.functional.normalize(first, dim=-1)
    second = second - (first * second).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def make(goal: str) -> Cube:
    """Make the task; its goal orientation comes with the observations."""
    return Cube(goal)
