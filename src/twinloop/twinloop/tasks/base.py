# SPDX-License-Identifier: Apache-2.0
"""What planners, learners and nodes ask of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from twinloop.contract import Contract
    from twinloop.learning.episode import Episode


class Progress(Protocol):
    """How far a running episode has come, one observation at a time."""

    def update(self, observation: NDArray[np.floating]) -> float:
        """Take the next observation [O]; return the progress so far, in the task's own unit."""
        ...


class Task(Protocol):
    """A cost, its targets and its ends, on batches of observations. Pure: no side effects.

    Leading dimensions are free: one observation [O], a batch [N, O], or whole ensemble rollouts
    [E, N, H, O] go through the same code.
    """

    name: str
    goal: str  # what is wanted of it, such as ccw; one of `goals`
    goals: tuple[str, ...]
    progress_unit: str  # of `score` and of what `tracker` tells
    episode_steps: int  # usual length of an episode, control steps
    goal_values: tuple[float, ...]  # numbers that go with the goal, such as places; mostly none
    observes_goal: bool  # all that varies of the goal, if anything, stands in the observation
    contract: Contract
    observation_size: int
    action_size: int
    center: NDArray[np.float64]  # joint targets about which a task's motion is [A], rad
    command: slice  # where the previous command lies in the observation
    joint_position: slice  # where the joints that it commands lie
    target_of: tuple[int, ...]  # observation elements that target elements are about, () for none
    # Index by which an equivalent observation and target [O + T] is read, () where there is none.
    symmetry: tuple[int, ...]

    def begin(self, observation: Tensor, seed: int) -> Task:
        """Return the task of an episode that starts here, itself if nothing of it varies: [O]."""
        ...

    def targets(self, observation: Tensor, horizon: int) -> Tensor:
        """Return what to aim at over the next `horizon` steps: [..., O] -> [..., H, T]."""
        ...

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        """Return the cost of arriving at `observation` by `action`: [..., O], [..., A], [..., T]
        -> [...]. Lower is better."""
        ...

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Return what a policy earns by a step, about 1 for a good one: [..., O], [..., A],
        [..., O] -> [...]. `action` is the change of the targets in units of the largest one."""
        ...

    def failed(self, observation: Tensor) -> Tensor:
        """Return whether the episode ends here as a failure: [..., O] -> bool [...]."""
        ...

    def tracker(self) -> Progress:
        """Return a fresh measure of a running episode's progress."""
        ...

    def score(self, observations: NDArray[np.floating]) -> float:
        """Return what an episode is measured by, in the progress unit: [T, O]."""
        ...

    def succeeded(self, episode: Episode) -> bool:
        """Return whether a finished episode reached the task's goal."""
        ...
