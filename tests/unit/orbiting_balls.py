# SPDX-License-Identifier: Apache-2.0
"""A task small enough to learn in a second: two balls on a circle, pushed along by one joint.

The next observation is linear in the observation and the action, so a model's error is known.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from twinloop.contract import Action, Channel, Contract
from twinloop.learning.episode import Episode
from twinloop.models.ensemble import Ensemble, EnsembleConfig

TURN = 0.12  # [rad] a step
PUSH = 0.004  # [m] a step that an action of 1 lifts the balls by, off the palm
AXES = tuple(f"ball{ball}.{axis}" for ball in (0, 1) for axis in "xyz")


def contract(name: str = "orbit") -> Contract:
    """Observation [7]: the command in force and two balls; action: one joint."""
    return Contract(
        name=name,
        robot="ring",
        period_s=0.1,
        trigger="joint_states",
        observation=(
            Channel(
                name="command",
                topic="applied_command",
                type="trajectory_msgs/msg/JointTrajectory",
                field="positions",
                elements=("push",),
                unit="rad",
                max_age_s=0.35,
            ),
            Channel(
                name="ball_position",
                topic="balls",
                type="twinloop_interfaces/msg/TrackedBallArray",
                field="position",
                elements=AXES,
                unit="m",
                max_age_s=0.25,
            ),
        ),
        action=Action(
            topic="command",
            applied_topic="applied_command",
            type="trajectory_msgs/msg/JointTrajectory",
            elements=("push",),
            unit="rad",
            lower=(-1.0,),
            upper=(1.0,),
            rate=1.5,
            delay_s=0.05,
        ),
    )


def following(observation: Tensor, action: Tensor, turn: float = TURN) -> Tensor:
    """Return the true next observations: [..., 7], [..., 1] -> [..., 7]."""
    balls = observation[..., 1:].unflatten(-1, (2, 3))
    x, y, z = balls.unbind(-1)
    cos, sin = math.cos(turn), math.sin(turn)
    moved = torch.stack([cos * x - sin * z, y + PUSH * action, sin * x + cos * z], dim=-1)
    return torch.cat([action, moved.flatten(-2)], dim=-1)


def episode(seed: int, steps: int = 60, radius_m: float = 0.03) -> Episode:
    """Return an episode with random actions from a random angle."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * math.pi)
    x, z = radius_m * math.cos(angle), radius_m * math.sin(angle)
    state = torch.tensor([0.0, x, 0.0, z, -x, 0.0, -z])
    actions = torch.from_numpy(random.uniform(-1, 1, (steps, 1)).astype(np.float32))
    states = [state]
    for action in actions:
        states.append(following(states[-1], action))
    return Episode(
        torch.stack(states).numpy(), actions.numpy(), {"episode_id": f"orbit-{seed:04d}"}
    )


def new_model(seed: int = 0, members: int = 2, width: int = 24) -> Ensemble:
    """Return an untrained ensemble of the task's sizes."""
    config = EnsembleConfig(
        observation_size=7, action_size=1, members=members, hidden=(width,), known=(0, 1)
    )
    return Ensemble(config, seed)


class Known:
    """A model whose error is set: it turns by `turn` and is off by `offset_m` a step."""

    members = 2
    proposal = None
    observation_size = 7
    action_size = 1
    difference_scale = torch.ones(7)
    predicted = torch.ones(7, dtype=torch.bool)

    def __init__(self, turn: float = TURN, offset_m: float = 0.0) -> None:
        self._turn, self._offset_m = turn, offset_m

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        result = following(observation, action.expand(*observation.shape[:-1], 1), self._turn)
        result[..., 1:] += self._offset_m
        return result

    def config_json(self) -> dict[str, object]:
        return {}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}
