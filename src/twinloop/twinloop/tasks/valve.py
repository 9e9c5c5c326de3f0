# SPDX-License-Identifier: Apache-2.0
"""Turn a valve to an angle with a claw of three fingers (PDDM, arXiv 1909.11652; ROBEL's D'Claw,
arXiv 1909.11639)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twinloop.models.features import Features
from twinloop.robots.dclaw import DCLAW
from twinloop.tasks.constants import constant
from twinloop.tasks.equivalents import Equivalent
from twinloop.tasks.goal_task import GoalTask, GoalTaskConfig, read_config

_FINGERS = 3  # as many as spokes, with three joints each, of which the first moves sideways


class ValveConfig(GoalTaskConfig):
    """Numbers of the task; angles in rad.

    Attributes:
        error_weight: cost per rad of error.
        near_angle, near_bonus: an error below this one costs up to so much less.
        reach_weight: cost of joints far from the pose about the valve, mean square.
        speed_weight: cost of the joints' mean square speed, (rad/s)².
        reward_turn: progress that earns 1 in a step.
    """

    error_weight: float
    near_angle: float
    near_bonus: float
    reach_weight: float
    speed_weight: float
    reward_turn: float
    reward_effort: float


class Valve(GoalTask):
    """The task; every episode has its own start and goal angle.

    Attributes:
        wanted, achieved: where an observation holds the goal angle and the valve's.
        features: spokes look alike, and what is left to the goal is what matters about it.
        equivalents: turns by a third, fingers in each other's place, and their mirror images.
    """

    name = "valve"
    progress_unit = "rad"

    def __init__(self, goal: str = "", config: ValveConfig | None = None) -> None:
        self.config = config or read_config(self.name, ValveConfig)
        super().__init__(goal, DCLAW, "grasp", self.config)
        self._center = tuple(self.center.tolist())
        self._velocity = self.slices["joint_velocity"]
        self.wanted, self.achieved = self.slices["goal"], self.slices["valve_angle"]
        at = {name: (where.start, where.stop) for name, where in self.slices.items()}
        self.features = Features(
            lag=(at["joint_position"], at["command"]),
            turn=(at["valve_angle"], at["goal"]),
            folds=_FINGERS,
        )
        self.equivalents = tuple(
            self._equivalent(turns, mirrored)
            for mirrored in (False, True)
            for turns in range(_FINGERS)
        )

    def error(self, observation: Tensor) -> Tensor:
        """Return the angle [rad] between the valve and its goal: [..., O] -> [...] in 0..pi."""
        sine, cosine = observation[..., self.slices["valve_angle"]].unbind(-1)
        goal_sine, goal_cosine = observation[..., self.slices["goal"]].unbind(-1)
        return torch.atan2(
            goal_sine * cosine - goal_cosine * sine, goal_cosine * cosine + goal_sine * sine
        ).abs()

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return the error, less a bonus near the goal, and a price on leaving the valve."""
        c = self.config
        error = self.error(observation)
        near = (1.0 - error / c.near_angle).clamp(min=0.0)
        away = (
            (observation[..., self.joint_position] - constant(self._center, observation))
            .square()
            .mean(-1)
        )
        speed = observation[..., self._velocity].square().mean(-1)
        return (
            c.error_weight * error
            - c.near_bonus * near
            + c.reach_weight * away
            + c.speed_weight * speed
        )

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return the turn towards the goal, 1 a step that ends near it, less effort."""
        c = self.config
        error = self.error(after)
        turn = (self.error(before) - error) / c.reward_turn
        near = (1.0 - error / c.near_angle).clamp(min=0.0)
        return turn.clamp(-1.0, 1.0) + near - c.reward_effort * action.square().mean(-1)

    def _equivalent(self, turns: int, mirrored: bool) -> Equivalent:
        """Return the symmetry of so many turns by a third, after a mirror in the first finger's
        plane or not."""
        sign = -1.0 if mirrored else 1.0
        each = torch.diag(torch.tensor([sign, 1.0, 1.0]))  # a finger's joints in the mirror
        sources = [int(sign) * (finger - turns) % _FINGERS for finger in range(_FINGERS)]
        fingers = torch.eye(_FINGERS)[sources]
        action = torch.kron(fingers, each)
        angle = 2.0 * math.pi * turns / _FINGERS
        sine, cosine = math.sin(angle), math.cos(angle)
        # Of (sine, cosine), in this order.
        turn = torch.tensor([[sign * cosine, sine], [-sign * sine, cosine]])
        parts = [turn if c.field == "sin_cos" else action for c in self.contract.observation]
        parts[self._channel("valve_velocity")] = torch.tensor([[sign]])
        return Equivalent(torch.block_diag(*parts), action)

    def _channel(self, name: str) -> int:
        return [channel.name for channel in self.contract.observation].index(name)


def make(goal: str) -> Valve:
    """Make the task; its goal angle comes with the observations."""
    return Valve(goal)
