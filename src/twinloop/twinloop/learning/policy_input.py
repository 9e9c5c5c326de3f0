# SPDX-License-Identifier: Apache-2.0
"""What the networks of a task's policy are given: features of observations, scaled, and actions
between limits; and transitions that the task's symmetries make of recorded ones."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from twinloop import planners
from twinloop.learning.action_units import units_of
from twinloop.models.actor import Actor, ActorConfig
from twinloop.models.features import Features
from twinloop.models.room import Room
from twinloop.tasks.base import Task
from twinloop.tasks.equivalents import HasEquivalents


@runtime_checkable
class HasFeatures(Protocol):
    """A task that knows what matters about its observation."""

    features: Features


class PolicyInput:
    """Features and scales of one task; scales are 1 until they are set.

    Attributes:
        mean, scale: of the features [O].
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._units = units_of(task)
        self._features = task.features if isinstance(task, HasFeatures) else None
        self._room = _room_of(task) if self._units.acts == "change" else None
        equivalents = task.equivalents if isinstance(task, HasEquivalents) else ()
        self._equivalents = tuple(torch.stack(each) for each in zip(*equivalents, strict=True))
        self.mean = torch.zeros(task.observation_size)
        self.scale = torch.ones(task.observation_size)

    def of(self, observations: Tensor) -> Tensor:
        """Return what networks are given: [..., O] -> [..., O]."""
        if self._features is not None:
            observations = self._features.of(observations)
        return (observations - self.mean) / self.scale

    def set_scales(self, observations: Tensor) -> None:
        """Let inputs about these observations [R, O], and their equivalents, be of mean 0 and
        deviation 1; one that does not vary keeps its unit."""
        if self._equivalents:
            observations = (observations @ self._equivalents[0].mT).flatten(0, 1)
        seen = observations if self._features is None else self._features.of(observations)
        deviation = seen.std(0)
        self.mean = seen.mean(0)
        self.scale = torch.where(deviation > 1e-6, deviation, 1.0)

    def actions(self, observations: Tensor, changes: Tensor) -> Tensor:
        """Return the actions in ±1 of a network that made recorded ones, in units of the task's
        largest change: [..., O], [..., A] -> [..., A]. Targets are what they are."""
        return changes if self._room is None else self._room.actions(observations, changes)

    def mirrored(
        self, observations: Tensor, actions: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return runs as they are or as one of their equivalents, at random:
        [B, K + 1, O], [B, K, A]."""
        if not self._equivalents:
            return observations, actions
        count = len(self._equivalents[0])
        chosen = torch.randint(count, (len(observations),), generator=generator)
        seen, done = (each[chosen].mT for each in self._equivalents)
        return observations @ seen, actions @ done

    def shown_to(self, actor: Actor) -> Actor:
        """Return a frozen copy of an actor that is given the same, in the units of the task's
        actions."""
        config = actor.config.model_dump(mode="json") | {"acts": self._units.acts}
        if self._features is not None:
            config["features"] = self._features.model_dump(mode="json")
        if self._room is not None:
            config["room"] = self._room.model_dump(mode="json")
        made = Actor(ActorConfig.model_validate(config))
        made.load_state_dict(actor.state_dict())
        made.observation_mean.copy_(self.mean)
        made.observation_scale.copy_(self.scale)
        made.action_mean.copy_(torch.from_numpy(self._units.middle))
        made.action_scale.copy_(torch.from_numpy(self._units.half))
        return made.requires_grad_(False).eval()


def _room_of(task: Task) -> Room:
    action = task.contract.action
    return Room(
        command=(task.command.start, task.command.stop),
        lower=action.lower,
        upper=action.upper,
        largest=planners.action_space(task).largest_change,
    )
