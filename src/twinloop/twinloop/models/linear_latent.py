# SPDX-License-Identifier: Apache-2.0
"""A model of one start: linear-Gaussian dynamics of latent states, and the policy about which they
hold.

Observations become states by an encoder. Here it is a matrix; a latent model of images has another
one, and gives the planner the same dynamics and policy (SOLAR, arXiv 1808.09105).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from twinloop.models.base import ModelInvalid
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.models.linear_gaussian import LinearGaussian
from twinloop.planners.linear_quadratic.backward import forward
from twinloop.planners.linear_quadratic.encoding import Encoding
from twinloop.planners.linear_quadratic.policy import LinearPolicy


class LinearLatentConfig(EnsembleConfig):
    """Sizes; `members` is one, and nothing is hidden."""

    kind: Literal["linear_latent"] = "linear_latent"  # type: ignore[assignment]
    members: int = Field(default=1, ge=1, le=1)
    hidden: tuple[int, ...] = ()
    state_size: int = Field(gt=0, le=1024)
    steps: int = Field(gt=0, le=10_000)

    @model_validator(mode="after")
    def _is_small(self) -> Self:
        size = self.steps * self.state_size * (self.state_size + self.action_size)
        if size > 50_000_000:
            raise ValueError(
                f"the dynamics would have {size} elements, expected at most 50 million"
            )
        return self


class LinearLatent(Ensemble):
    """Time-varying dynamics and policy over T steps; X state, U action elements.

    `predict` knows no time: it takes the step whose mean state is nearest.
    """

    Config: type[EnsembleConfig] = LinearLatentConfig
    config: LinearLatentConfig
    encoder: Tensor
    decoder: Tensor
    transition: Tensor
    offset: Tensor
    noise: Tensor
    start_mean: Tensor
    start_covariance: Tensor
    state_mean: Tensor
    state_scale: Tensor
    gain: Tensor
    policy_offset: Tensor
    policy_covariance: Tensor

    def _build(self, generator: torch.Generator) -> None:
        c = self.config
        t, x, u, o = c.steps, c.state_size, c.action_size, c.observation_size
        shapes = {
            "encoder": (x, o),
            "decoder": (o, x),
            "transition": (t, x, x + u),
            "offset": (t, x),
            "noise": (t, x, x),
            "start_mean": (x,),
            "start_covariance": (x, x),
            "state_mean": (t, x),
            "state_scale": (x,),
            "gain": (t, u, x),
            "policy_offset": (t, u),
            "policy_covariance": (t, u, u),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    @classmethod
    def of(cls, dynamics: LinearGaussian, policy: LinearPolicy, encoding: Encoding) -> LinearLatent:
        """Return the model of dynamics that were fitted, and a policy to be executed."""
        size, observed = encoding.encoder.shape
        config = LinearLatentConfig(
            observation_size=observed,
            action_size=dynamics.action_size,
            state_size=size,
            steps=dynamics.steps,
        )
        model = cls(config)
        marginals = forward(dynamics, policy)
        mean = marginals.state_mean[:-1]
        values = {
            "encoder": encoding.encoder,
            "decoder": encoding.decoder,
            "transition": dynamics.transition,
            "offset": dynamics.offset,
            "noise": dynamics.noise,
            "start_mean": dynamics.start_mean,
            "start_covariance": dynamics.start_covariance,
            "state_mean": mean,
            "state_scale": mean.std(axis=0) + 1e-3 * (mean.std() + 1e-9),
            "gain": policy.gain,
            "policy_offset": policy.offset,
            "policy_covariance": policy.covariance,
            "observation_mean": encoding.decoder @ mean.mean(axis=0),
            "action_mean": marginals.arrival_mean[:, size:].mean(axis=0),
        }
        for name, value in values.items():
            getattr(model, name).copy_(torch.from_numpy(value))
        model.requires_grad_(False)
        return model.eval()

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the model as `Ensemble` does.

        Raises:
            ModelInvalid: as there, or the policy's noise has no positive definite covariance.
        """
        model = super().from_tensors(config, tensors)
        _, failed = torch.linalg.cholesky_ex(model.policy_covariance)
        if bool(failed.any()):
            raise ModelInvalid("tensor policy_covariance is not positive definite at every step")
        if not bool((model.state_scale > 0).all()):
            raise ModelInvalid("tensor state_scale has values <= 0, expected > 0")
        return model

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.encoder.numpy(), self.decoder.numpy())

    @property
    def policy(self) -> LinearPolicy:
        """Return the policy to be executed; its noise explores."""
        return LinearPolicy(
            self.gain.numpy(), self.policy_offset.numpy(), self.policy_covariance.numpy()
        )

    @property
    def dynamics(self) -> LinearGaussian:
        """Return the dynamics, which were fitted about the policy before."""
        return LinearGaussian(
            self.transition.numpy(),
            self.offset.numpy(),
            self.noise.numpy(),
            self.start_mean.numpy(),
            self.start_covariance.numpy(),
        )

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the next observations: [E, N, O], [E, N, A] or [N, A] -> [E, N, O]."""
        state = observation.double() @ self.encoder.T
        away = (state[..., None, :] - self.state_mean) / self.state_scale
        step = away.square().sum(-1).argmin(-1)
        action = action.double().expand(*state.shape[:-1], -1)
        joint = torch.cat([state, action], dim=-1)
        after = (self.transition[step] @ joint[..., None])[..., 0] + self.offset[step]
        change = (after - state) @ self.decoder.T
        return observation + change.to(observation.dtype)

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Predict H steps open loop: [E, N, O], [H, N, A] -> [H, E, N, O]."""
        states = []
        for action in actions:
            observation = self.predict(observation, action)
            states.append(observation)
        return torch.stack(states)
