# SPDX-License-Identifier: Apache-2.0
"""Push a mug onto its coaster with a half-open gripper, after SOLAR (arXiv 1808.09105)."""

from __future__ import annotations

import torch
from torch import Tensor

from twinloop.robots.panda import PANDA
from twinloop.tasks.goal_task import GoalTask, GoalTaskConfig, read_config
from twinloop.tasks.panda_tool import tool


class PushingConfig(GoalTaskConfig):
    """Numbers of the task.

    Attributes:
        soft_m: errors below this cost quadratically, larger ones linearly.
        error_weight: cost per m.
        touch_m: from the mug's axis to the tool's where they touch.
        touch_weight: cost per m² that the tool is off that distance.
        tool_height_m, height_weight: where the tool should stay, and cost per m² off.
        tilt_weight: cost of a tool that does not point down, square of the sine.
        speed_weight: cost of the joints' square speed, (rad/s)².
        change_weight: cost of how far targets are ahead of the joints, rad².
        reward_m: progress that earns 1 in a step.
    """

    soft_m: float
    error_weight: float
    touch_m: float
    touch_weight: float
    tool_height_m: float
    height_weight: float
    tilt_weight: float
    speed_weight: float
    change_weight: float
    reward_m: float


class Pushing(GoalTask):
    """The task; mug and coaster vary a little from episode to episode."""

    name = "pushing"
    progress_unit = "m"
    relative = {"mug_position": "goal"}  # noqa: RUF012
    # Where the tool is from the mug tells what a push does, and the goal where the mug is.
    keeps_goal = True

    def __init__(self, goal: str = "", config: PushingConfig | None = None) -> None:
        self.config = config or read_config(self.name, PushingConfig)
        super().__init__(goal, PANDA, "ready", self.config)
        self._velocity = self.slices["joint_velocity"]

    def error(self, observation: Tensor) -> Tensor:
        """Return how far the mug is from its coaster's middle [m]: [..., O] -> [...]."""
        return torch.linalg.vector_norm(self._off(observation)[..., :2], dim=-1)

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return a price on the mug's distance, on a tool that leaves its height or the mug, and on
        haste.

        Where the tool has left the mug, nothing that it does moves the mug, and its distance alone
        would not tell how to go on.
        """
        c = self.config
        square = self._off(observation)[..., :2].square().sum(-1)
        speed = observation[..., self._velocity].square().sum(-1)
        place, direction = tool(observation[..., self.joint_position])
        away = place[..., :2] - observation[..., self.slices["mug_position"]][..., :2]
        gap = torch.sqrt(away.square().sum(-1) + 1e-8) - c.touch_m
        height = (place[..., 2] - c.tool_height_m).square()
        tilt = direction[..., :2].square().sum(-1)
        ahead = (action - observation[..., self.joint_position]).square().sum(-1)
        return (
            c.error_weight * (torch.sqrt(square + c.soft_m**2) - c.soft_m)
            + c.touch_weight * gap.square()
            + c.height_weight * height
            + c.tilt_weight * tilt
            + c.speed_weight * speed
            + c.change_weight * ahead
        )

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return progress towards the coaster, and 1 a step on it."""
        error = self.error(after)
        gain = (self.error(before) - error) / self.config.reward_m
        return gain.clamp(-1.0, 1.0) + (error <= self.tolerance).to(after.dtype)

    def _off(self, observation: Tensor) -> Tensor:
        return observation[..., self.slices["mug_position"]] - observation[..., self.slices["goal"]]


def make(goal: str) -> Pushing:
    """Make the task; the coaster's place comes with the observations."""
    return Pushing(goal)
