# SPDX-License-Identifier: Apache-2.0
"""Put a Lego-like block onto another, after SOLAR (arXiv 1808.09105, section 5.2).

The block is in the gripper; it sits when its bottom is on the other block's top, with the studs
inside. From aside it has to be lifted over them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinloop.robots.panda import PANDA
from twinloop.tasks.goal_task import GoalTask, GoalTaskConfig, read_config


class StackingConfig(GoalTaskConfig):
    """Numbers of the task.

    Attributes:
        lift_m: height that the block is wanted at while it is far aside.
        slope: of the cone over the seat along which it is to come down, height per distance aside.
        tip_m: how round the cone's tip is.
        press_m: how far below its seat it is pushed.
        soft_m: errors below this cost quadratically, larger ones linearly.
        aside_weight, height_weight: cost per m.
        near_weight, near_m: cost of the logarithm of the block's square distance from its seat,
            and the distance below which it says nothing more.
        turn_weight: cost of the block's turn, square of the columns' error.
        speed_weight: cost of the joints' square speed, (rad/s)².
        change_weight: cost of the square change of the targets in a step, rad².
        aside_m: farthest aside that counts as stacked.
        reward_m: progress that earns 1 in a step.
    """

    lift_m: float
    slope: float
    tip_m: float
    press_m: float
    soft_m: float
    aside_weight: float
    height_weight: float
    near_weight: float
    near_m: float
    turn_weight: float
    speed_weight: float
    change_weight: float
    aside_m: float
    reward_m: float


class Stacking(GoalTask):
    """The task; the other block's place varies from episode to episode."""

    name = "stacking"
    progress_unit = "m"
    relative = {"block_position": "goal"}  # noqa: RUF012

    def __init__(self, goal: str = "", config: StackingConfig | None = None) -> None:
        self.config = config or read_config(self.name, StackingConfig)
        super().__init__(goal, PANDA, "ready", self.config)
        self._velocity = self.slices["joint_velocity"]

    def error(self, observation: Tensor) -> Tensor:
        """Return how far the block is from its seat [m]: the height over it, or, where it is not
        over the studs, the whole distance: [..., O] -> [...]."""
        off = self._off(observation)
        aside = torch.linalg.vector_norm(off[..., :2], dim=-1)
        is_over = aside <= self.config.aside_m
        return torch.where(is_over, off[..., 2].abs(), torch.linalg.vector_norm(off, dim=-1))

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return a price on distance, on being low while aside, and on turning the block.

        Resting on the studs is millimetres from the seat, which a price per metre hardly feels; the
        logarithm does (a term of Levine et al. 2016, arXiv 1504.00702).
        """
        c = self.config
        off = self._off(observation)
        square = off[..., :2].square().sum(-1)
        # A cone pulls in as hard from anywhere on it, where a narrow well is felt at its rim alone.
        cone = c.slope * (torch.sqrt(square + c.tip_m**2) - c.tip_m)
        lift = c.lift_m * torch.tanh(cone / c.lift_m) - c.press_m
        near = torch.log1p(off.square().sum(-1) / c.near_m**2)
        columns = observation[..., self.slices["block_rotation"]]
        turn = (columns - _identity(columns)).square().sum(-1)
        speed = observation[..., self._velocity].square().sum(-1)
        # The command in force after a step is its action; the joints lag behind it.
        ahead = (action - observation[..., self.joint_position]).square().sum(-1)
        return (
            c.aside_weight * (torch.sqrt(square + c.soft_m**2) - c.soft_m)
            + c.height_weight * (torch.sqrt((off[..., 2] - lift).square() + c.soft_m**2) - c.soft_m)
            + c.near_weight * near
            + c.turn_weight * turn
            + c.speed_weight * speed
            + c.change_weight * ahead
        )

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return progress towards the seat, and 1 a step on it."""
        error = self.error(after)
        gain = (self.error(before) - error) / self.config.reward_m
        return gain.clamp(-1.0, 1.0) + (error <= self.tolerance).to(after.dtype)

    def _off(self, observation: Tensor) -> Tensor:
        return (
            observation[..., self.slices["block_position"]] - observation[..., self.slices["goal"]]
        )


def _identity(columns: Tensor) -> Tensor:
    """Return the columns of no turn, made on the device of the others: [..., 6] -> [6]."""
    eye = torch.eye(3, dtype=columns.dtype, device=columns.device)
    return eye[:, :2].T.reshape(6)


def make(goal: str) -> Stacking:
    """Make the task; the seat's place comes with the observations."""
    return Stacking(goal)
