# SPDX-License-Identifier: Apache-2.0
"""Ensemble dynamics after PDDM and PETS: E networks that predict normalised differences.

The members differ in their first weights and see different minibatches. What is known is not
predicted: the next `command` in the observation *is* the action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from twinloop.models import layers
from twinloop.models.base import ModelInvalid, check_tensors
from twinloop.models.layers import BatchedMLP, FoldedMLP
from twinloop.models.proposal import Proposal, ProposalConfig

_UNSEEN = 1e6


class EnsembleConfig(BaseModel):
    """Sizes of an ensemble; JSON-able."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ensemble"] = "ensemble"
    observation_size: int = Field(gt=0, le=4096)
    action_size: int = Field(gt=0, le=1024)
    members: int = Field(default=3, gt=0, le=64)
    hidden: tuple[int, ...] = (250, 250)
    # observation[known[0]:known[1]] after a step equals the action; None where nothing is known
    known: tuple[int, int] | None = None
    # observation[constant[0]:constant[1]] stays as it is, such as a goal; None: nothing does
    constant: tuple[int, int] | None = None
    # a policy that goes with the model, about whose actions a planner may sample
    proposal: ProposalConfig | None = None

    @model_validator(mode="after")
    def _known_fits(self) -> Self:
        if self.known is not None:
            start, stop = self.known
            if not 0 <= start < stop <= self.observation_size or stop - start != self.action_size:
                raise ValueError(
                    f"known is {self.known}, expected a range of {self.action_size} elements in "
                    f"[0, {self.observation_size}]"
                )
        if self.constant is not None:
            start, stop = self.constant
            if not 0 <= start < stop <= self.observation_size:
                raise ValueError(
                    f"constant is {self.constant}, expected a range in [0, {self.observation_size}]"
                )
        if not self.predicted_ranges:
            raise ValueError("known and constant are all of the observation: nothing is predicted")
        proposal = self.proposal
        if proposal is not None and (proposal.observation_size, proposal.action_size) != (
            self.observation_size,
            self.action_size,
        ):
            raise ValueError(
                f"proposal is for {proposal.observation_size} observed and "
                f"{proposal.action_size} action elements, the model has "
                f"{self.observation_size} and {self.action_size}"
            )
        layers.check_widths("hidden", self.hidden)
        return self

    @property
    def predicted_ranges(self) -> list[slice]:
        """Return the elements of the observation that are predicted, as ranges in their order."""
        ranges, first = [], 0
        given = [part for part in (self.known, self.constant) if part is not None]
        for start, stop in [*sorted(given), (self.observation_size, self.observation_size)]:
            if first < start:
                ranges.append(slice(first, start))
            first = max(first, stop)
        return ranges


class Ensemble(nn.Module):
    """PDDM's model: one network a member over the whole observation and action vector."""

    Config: type[EnsembleConfig] = EnsembleConfig

    def __init__(self, config: EnsembleConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        size = config.observation_size
        self.register_buffer("observation_mean", torch.zeros(size))
        self.register_buffer("observation_scale", torch.ones(size))
        self.register_buffer("action_mean", torch.zeros(config.action_size))
        self.register_buffer("action_scale", torch.ones(config.action_size))
        self.register_buffer("difference_scale", torch.ones(size))
        self._build(generator)
        self.proposal = None if config.proposal is None else Proposal(config.proposal)

    observation_mean: Tensor
    observation_scale: Tensor
    action_mean: Tensor
    action_scale: Tensor
    difference_scale: Tensor

    def _build(self, generator: torch.Generator) -> None:
        c = self.config
        inputs = c.observation_size + c.action_size
        self.network = BatchedMLP(c.members, inputs, c.hidden, c.observation_size, generator)

    @property
    def members(self) -> int:
        return self.config.members

    @property
    def observation_size(self) -> int:
        return self.config.observation_size

    @property
    def action_size(self) -> int:
        return self.config.action_size

    @property
    def predicted(self) -> Tensor:
        """Return which elements are predicted: bool [O]."""
        mask = torch.zeros(self.observation_size, dtype=torch.bool)
        for where in self.config.predicted_ranges:
            mask[where] = True
        return mask

    def with_proposal(self, proposal: Proposal) -> Self:
        """Return a copy of this model that goes with a proposal policy."""
        config = self.config.model_copy(update={"proposal": proposal.config})
        own = {k: v for k, v in self.state_tensors().items() if not k.startswith("proposal.")}
        policy = {f"proposal.{k}": v.detach().clone() for k, v in proposal.state_dict().items()}
        return type(self).from_tensors(config.model_dump(mode="json"), own | policy)

    def normalise(self, observation: Tensor, action: Tensor, following: Tensor) -> None:
        """Set the scales from transitions: [M, O], [M, A], [M, O].

        An element that never changes gets scale 1, so that it neither divides by zero nor counts.
        """
        _set_moments(self.observation_mean, self.observation_scale, observation)
        _set_moments(self.action_mean, self.action_scale, action)
        _set_moments(None, self.difference_scale, following - observation)
        if self.config.constant is not None:
            # What is wanted says nothing about what happens: the networks do not see it.
            self.observation_scale[slice(*self.config.constant)] = _UNSEEN

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the next observations: [E, N, O], [E, N, A] or [N, A] -> [E, N, O]."""
        following = observation + self.difference(observation, action) * self.difference_scale
        if self.config.known is not None:
            following[..., slice(*self.config.known)] = action  # shared by members if [N, A]
        if self.config.constant is not None:
            constant = slice(*self.config.constant)
            following[..., constant] = observation[..., constant]
        return following

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Predict H steps open loop, members apart: [E, N, O], [H, N, A] -> [H, E, N, O]."""
        if self._is_plain and not torch.is_grad_enabled():
            return self._rollout_folded(self._folded(), observation, actions)
        states = []
        for action in actions:
            observation = self.predict(observation, action)
            states.append(observation)
        return torch.stack(states)

    @torch.no_grad()
    def frozen_rollout(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return `rollout` for many calls without gradients.

        That of this class is of the weights as they are now. A subclass that predicts in its own
        way gives its `rollout` as it is, which sees later changes.
        """
        if not self._is_plain or type(self).rollout is not Ensemble.rollout:
            return self.rollout
        return partial(self._rollout_folded, self._folded())

    @property
    def _is_plain(self) -> bool:
        kind = type(self)
        return (kind.difference, kind.predict) == (Ensemble.difference, Ensemble.predict)

    def _folded(self) -> FoldedMLP:
        return self.network.folded(
            torch.cat([self.observation_mean, self.action_mean]),
            torch.cat([self.observation_scale, self.action_scale]),
            self.difference_scale,
            self.config.predicted_ranges,
        )

    def _rollout_folded(self, network: FoldedMLP, observation: Tensor, actions: Tensor) -> Tensor:
        """Roll out with the scales worked into the weights and each step written in place.

        All steps lie in one block of rows (observation, action), each of which is what the network
        reads; what is given is written once, and not predicted. Little is left to do beside the
        matrix products.
        """
        size, (horizon, rows, _) = self.observation_size, actions.shape
        steps = observation.new_empty((self.members, horizon + 1, rows, size + self.action_size))
        states = steps[..., :size]
        states[:, 0] = observation
        steps[:, :-1, :, size:] = actions
        if self.config.known is not None:
            states[:, 1:, :, slice(*self.config.known)] = actions
        if self.config.constant is not None:
            constant = slice(*self.config.constant)
            states[:, 1:, :, constant] = observation[:, None, :, constant]
        network.roll(steps)
        return states[:, 1:].transpose(0, 1)

    def difference(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return changes in units of their scale: [E, N, O], [E, N, A] or [N, A] -> [E, N, O].

        Those of elements that are given mean nothing. What is predicted is the observation and
        its change: `predict` and the loss of `learning/fit.py` both build on that.
        """
        scaled = (action - self.action_mean) / self.action_scale
        x = torch.cat(
            [
                (observation - self.observation_mean) / self.observation_scale,
                scaled.expand(observation.shape[0], -1, -1),
            ],
            dim=-1,
        )
        out: Tensor = self.network(x)
        return out

    def config_json(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    def state_tensors(self) -> dict[str, Tensor]:
        return {k: v.detach().clone().contiguous() for k, v in self.state_dict().items()}

    @classmethod
    def from_tensors(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build the model that `config_json` and `state_tensors` describe.

        Raises:
            ModelInvalid: the config is not one of this kind, or a tensor is missing, unknown, of
                another type or shape, or not finite.
        """
        try:
            parsed = cls.Config.model_validate(dict(config))
        except ValidationError as error:
            raise ModelInvalid(f"model config: {error}") from error
        try:
            # Without memory: whoever declares more than the tensors are gets none.
            with torch.device("meta"):
                expected = cls(parsed).state_dict()
        except (IndexError, RuntimeError) as error:
            raise ModelInvalid(f"model config: {error}") from error
        check_tensors(expected, tensors)
        model = cls(parsed)
        model.load_state_dict(dict(tensors))
        scales = ["observation_scale", "action_scale", "difference_scale"]
        for name in [*scales, *(["proposal.scale"] if parsed.proposal else [])]:
            if not bool((tensors[name] > 0).all()):
                raise ModelInvalid(f"tensor {name} has values <= 0, expected > 0")
        model.requires_grad_(False)
        return model.eval()


def _set_moments(mean: Tensor | None, scale: Tensor, values: Tensor) -> None:
    deviation = values.std(0) if len(values) > 1 else torch.zeros_like(scale)
    scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))
    if mean is not None:
        mean.copy_(values.mean(0))
