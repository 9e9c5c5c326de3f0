# SPDX-License-Identifier: Apache-2.0
"""A contract alone as a task: something to act in, without a goal to plan for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from twinloop.contract import Contract
    from twinloop.learning.episode import Episode


class ContractTask:
    """See `Task`. Whatever happens costs nothing; episodes end when they are told to."""

    goal = ""
    goals: tuple[str, ...] = ("",)
    progress_unit = "1"
    episode_steps = 100
    goal_values: tuple[float, ...] = ()
    observes_goal = True
    target_of: tuple[int, ...] = ()
    symmetry: tuple[int, ...] = ()

    def __init__(self, contract: Contract) -> None:
        self.name = contract.name
        self.contract = contract
        self.observation_size = contract.observation_size
        self.action_size = contract.action_size
        lower, upper = np.array(contract.action.lower), np.array(contract.action.upper)
        self.center: NDArray[np.float64] = 0.5 * (lower + upper)
        # Without such a channel the command in force is not observed: empty.
        self.command = self.joint_position = slice(0, 0)
        for channel in contract.observation:
            same = channel.elements == contract.action.elements
            if channel.topic == contract.action.applied_topic and same:
                self.command = contract.slices[channel.name]
            elif same and channel.field == "position":
                self.joint_position = contract.slices[channel.name]

    def begin(self, observation: Tensor, seed: int) -> ContractTask:
        """Return the task itself."""
        return self

    def targets(self, observation: Tensor, horizon: int) -> Tensor:
        """Return targets without elements: [..., O] -> [..., H, 0]."""
        return observation.new_zeros(*observation.shape[:-1], horizon, 0)

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return zeros: [..., O] -> [...]."""
        return observation.new_zeros(observation.shape[:-1])

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return zeros: [..., O] -> [...]."""
        return before.new_zeros(before.shape[:-1])

    def failed(self, observation: Tensor) -> Tensor:
        """Return whether an observation is not finite: nothing else ends an episode."""
        return ~torch.isfinite(observation).all(-1)

    def tracker(self) -> NoProgress:
        """Return what tells of no progress."""
        return NoProgress()

    def score(self, observations: NDArray[np.floating]) -> float:
        """Return 0."""
        return 0.0

    def succeeded(self, episode: Episode) -> bool:
        """Return whether the episode was not cut short."""
        return episode.meta.get("stop_reason") == "completed"


class NoProgress:
    """Always 0."""

    def update(self, observation: NDArray[np.floating]) -> float:
        return 0.0
