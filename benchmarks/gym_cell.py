# SPDX-License-Identifier: Apache-2.0
"""Gymnasium's environments as tasks and cells: their observations, rewards and bags go through a
contract as those of robots do. Everything is observed; time is simulated."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from twinloop.contract.spec import Action, Channel, Contract


class GymTask:
    """What all of them share; see `twinloop.tasks.base.Task`."""

    goal, goals, goal_values = "", ("",), ()
    observes_goal = True
    target_of: tuple[int, ...] = ()
    symmetry: tuple[int, ...] = ()
    command = joint_position = slice(0, 0)
    progress_unit = "return"

    def __init__(self, name: str, steps: int, parts: dict[str, int], limit: list[float]) -> None:
        self.name, self.episode_steps = name, steps
        self.contract = _contract(name, parts, limit)
        self.observation_size = self.contract.observation_size
        self.action_size = self.contract.action_size
        self.center = np.zeros(self.action_size)

    def begin(self, observation: Tensor, seed: int) -> GymTask:
        return self

    def targets(self, observation: Tensor, horizon: int) -> Tensor:
        return observation.new_zeros(*observation.shape[:-1], horizon, 0)

    def failed(self, observation: Tensor) -> Tensor:
        return ~torch.isfinite(observation).all(-1)

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        raise NotImplementedError

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        return torch.zeros(observation.shape[:-1])

    def score(self, observations: NDArray[np.floating]) -> float:
        return 0.0

    def succeeded(self, episode: Any) -> bool:
        return False

    def total(self, episode: Any, units: Any) -> float:
        """Return the sum of an episode's rewards."""
        seen = torch.from_numpy(episode.observations)
        action = torch.from_numpy(units.of(episode))
        return float(self.reward(seen[:-1], action, seen[1:]).sum())


class Pendulum(GymTask):
    """Pendulum-v1: swing up and hold, by a torque of at most 2 N m."""

    def __init__(self) -> None:
        super().__init__("pendulum", 200, {"state": 3}, [2.0])

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return the environment's own reward, of the state before."""
        angle = torch.atan2(before[..., 1], before[..., 0])
        torque = 2.0 * action[..., 0]
        return -(angle.square() + 0.1 * before[..., 2].square() + 0.001 * torque.square())


class PandaReach(GymTask):
    """PandaReach-v3 (panda-gym): -1 a step until the gripper is within 5 cm of its goal."""

    def __init__(self) -> None:
        super().__init__("panda_reach", 50, {"state": 6, "achieved": 3, "goal": 3}, [1.0] * 3)
        self.achieved = self.contract.slices["achieved"]
        self.wanted = self.contract.slices["goal"]

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        apart = torch.linalg.vector_norm(
            after[..., self.achieved] - after[..., self.wanted], dim=-1
        )
        return -(apart > 0.05).float()


class GymCell:
    """One environment, as `twinloop.learning.rollout.Hands` has it."""

    hands = 1

    def __init__(self, task: GymTask, name: str) -> None:
        self._env: Any = gymnasium.make(name, max_episode_steps=10**9)
        self._parts = [channel.name for channel in task.contract.observation]
        self.command = np.zeros((1, task.action_size))
        self._seen = np.zeros((1, task.observation_size), dtype=np.float32)

    def reset(self, seeds: ArrayLike, start: object = None, hands: Any = None) -> Any:
        observation, _ = self._env.reset(seed=int(np.atleast_1d(seeds)[0]))
        return self._observe(observation)

    def step(self, action: ArrayLike) -> Any:
        space = self._env.action_space
        self.command = np.clip(np.asarray(action, dtype=np.float32), space.low, space.high)
        return self._observe(self._env.step(self.command[0])[0])

    @property
    def is_observable(self) -> NDArray[np.bool_]:
        return np.ones(1, dtype=bool)

    def close(self) -> None:
        self._env.close()

    def _observe(self, observation: Any) -> NDArray[np.float32]:
        if isinstance(observation, dict):
            names = ("observation", "achieved_goal", "desired_goal")
            observation = np.concatenate([observation[name] for name in names])
        self._seen = np.asarray(observation, dtype=np.float32)[None]
        return self._seen


def pendulum() -> tuple[Pendulum, GymCell]:
    task = Pendulum()
    return task, GymCell(task, "Pendulum-v1")


def panda_reach() -> tuple[PandaReach, GymCell]:
    import panda_gym  # noqa: F401 - registers its environments

    task = PandaReach()
    return task, GymCell(task, "PandaReach-v3")


def _contract(name: str, parts: dict[str, int], limit: list[float]) -> Contract:
    channels = tuple(
        Channel(
            name=part,
            topic=part,
            type="sensor_msgs/msg/JointState",
            field="position",
            elements=tuple(f"{part}{index}" for index in range(size)),
            unit="1",
            max_age_s=0.2,
        )
        for part, size in parts.items()
    )
    return Contract(
        name=name,
        robot=name,
        period_s=0.05,
        trigger=channels[0].topic,
        observation=channels,
        action=Action(
            topic="command",
            applied_topic="applied_command",
            type="trajectory_msgs/msg/JointTrajectory",
            elements=tuple(f"action{index}" for index in range(len(limit))),
            unit="1",
            lower=tuple(-value for value in limit),
            upper=tuple(limit),
            rate=1000.0,
            delay_s=0.0,
        ),
    )
