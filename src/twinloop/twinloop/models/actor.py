# SPDX-License-Identifier: Apache-2.0
"""A policy network: observations in, a chunk of actions out. It is kept and swapped as a model is.

Layers and distributions are those of soft actor-critic and of proximal policy optimisation, so that
checkpoints of other libraries can be converted (`learning/stable_baselines.py`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.models.features import Features
from twinloop.models.room import Room

_LOG_DEVIATION = (-20.0, 2.0)


class ActorConfig(EnsembleConfig):
    """Sizes and conventions of a policy.

    Attributes:
        activation: after hidden layers.
        squashes: the mean, and what is sampled about it, go through tanh; else they are clipped.
        deviation: of what is sampled: from the state, as in SAC, one for all, as in PPO, or none.
        chunk: actions ahead that one call gives.
        acts: in units of ±1 an action is a change of the targets, or the targets; `action_mean` and
            `action_scale` give them their unit.
        features: what it is shown of an observation; None: all of it, as it is.
        room: limits that its changes keep to; None: it may push beyond them.
    """

    kind: Literal["actor"] = "actor"  # type: ignore[assignment]
    members: int = Field(default=1, ge=1, le=1)
    hidden: tuple[int, ...] = (256, 256)
    activation: Literal["relu", "tanh"] = "relu"
    squashes: bool = True
    deviation: Literal["state", "fixed", "none"] = "state"
    chunk: int = Field(default=1, ge=1, le=200)
    acts: Literal["change", "target"] = "target"
    features: Features | None = None
    room: Room | None = None

    @model_validator(mode="after")
    def _has_layers(self) -> Self:
        if not self.hidden or len(self.hidden) > 16:
            raise ValueError(f"hidden is {self.hidden}, expected 1 to 16 layers")
        if self.features is not None and self.features.size > self.observation_size:
            raise ValueError(
                f"features reach to element {self.features.size}, expected at most "
                f"observation_size, {self.observation_size}"
            )
        if self.room is not None:
            start, stop = self.room.command
            if (
                self.acts != "change"
                or self.chunk != 1
                or stop > self.observation_size
                or stop - start != self.action_size
            ):
                raise ValueError(
                    f"room is about elements {self.room.command}, expected {self.action_size} of "
                    f"the observation's {self.observation_size}, single actions (chunk is "
                    f"{self.chunk}), and acts to be change (it is {self.acts})"
                )
        return self


class Actor(Ensemble):
    """The policy. As a model of dynamics it predicts that nothing moves."""

    Config: type[EnsembleConfig] = ActorConfig
    config: ActorConfig

    def _build(self, generator: torch.Generator) -> None:
        c = self.config
        sizes = [c.observation_size, *c.hidden]
        out = c.action_size * c.chunk
        self.layers = nn.ModuleList(
            nn.Linear(size, following) for size, following in pairwise(sizes)
        )
        self.mean = nn.Linear(sizes[-1], out)
        self.log_deviation: nn.Linear | nn.Parameter | None = None
        if c.deviation == "state":
            self.log_deviation = nn.Linear(sizes[-1], out)
        elif c.deviation == "fixed":
            self.log_deviation = nn.Parameter(torch.zeros(c.action_size))
        for parameter in self.parameters():
            if parameter.device.type == "meta":
                continue
            with torch.no_grad():
                if parameter.dim() > 1:
                    bound = parameter.shape[1] ** -0.5
                    parameter.uniform_(-bound, bound, generator=generator)
                else:  # as torch makes them they would not depend on the seed alone
                    parameter.zero_()

    def moments(self, observation: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean and logarithm of the deviation, before they are squashed or clipped:
        [B, O] -> [B, chunk, A], and as much or [A]; None where there is no noise."""
        c = self.config
        if c.features is not None:
            observation = c.features.of(observation)
        x = (observation - self.observation_mean) / self.observation_scale
        bend = torch.relu if c.activation == "relu" else torch.tanh
        for layer in self.layers:
            x = bend(layer(x))
        mean: Tensor = self.mean(x).unflatten(-1, (c.chunk, c.action_size))
        log: Tensor | None = None
        if isinstance(self.log_deviation, nn.Linear):
            log = self.log_deviation(x).unflatten(-1, (c.chunk, c.action_size))
        elif self.log_deviation is not None:
            log = self.log_deviation
        return mean, None if log is None else log.clamp(*_LOG_DEVIATION)

    @torch.no_grad()
    def act(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return actions in units of ±1: [B, O] -> [B, chunk, A].

        Args:
            noise: normal numbers [B, chunk, A]; None: what is likeliest.
        """
        actions, log = self.moments(observation)
        if noise is not None and log is not None:
            actions = actions + noise * log.exp()
        actions = torch.tanh(actions) if self.config.squashes else actions.clamp(-1.0, 1.0)
        if self.config.room is not None:
            actions = self.config.room.changes(observation[:, None], actions)
        return actions

    def targets(self, actions: Tensor, command: Tensor) -> Tensor:
        """Return joint targets [rad] of actions in units of ±1: [..., A], [..., A] -> [..., A]."""
        scaled = self.action_mean + self.action_scale * actions
        return command + scaled if self.config.acts == "change" else scaled

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the observations as they are: [E, N, O] -> [E, N, O]."""
        return observation.clone()

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Return them H times: [E, N, O], [H, N, A] -> [H, E, N, O]."""
        return observation.expand(len(actions), *observation.shape).clone()
