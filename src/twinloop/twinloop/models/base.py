# SPDX-License-Identifier: Apache-2.0
"""What planners and learners ask of a dynamics model, and the one error a bad model raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from twinloop.models.proposal import Proposal


class ModelInvalid(ValueError):
    """A model file or its tensors cannot be used; the message names what was found."""


class DynamicsModel(Protocol):
    """An ensemble that predicts the next observation.

    E members, N rows, O observation and A action elements.
    """

    @property
    def members(self) -> int: ...

    @property
    def observation_size(self) -> int: ...

    @property
    def action_size(self) -> int: ...

    @property
    def difference_scale(self) -> Tensor:
        """Standard deviation of one step's change [O]."""
        ...

    @property
    def predicted(self) -> Tensor:
        """Bool [O], False where the next value is known from the action."""
        ...

    @property
    def proposal(self) -> Proposal | None:
        """A policy to sample about, where one goes with the model."""
        ...

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the next observations: [E, N, O], [E, N, A] (or [N, A]) -> [E, N, O]."""
        ...

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Predict H steps open loop: [E, N, O], [H, N, A] -> [H, E, N, O]."""
        ...

    def config_json(self) -> dict[str, Any]:
        """Return the architecture as JSON-able values, with its `kind`."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """Return every tensor that `from_tensors` needs, detached and contiguous."""
        ...


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare tensors by name, dtype, shape and finiteness.

    Raises:
        ModelInvalid: at the first difference, naming the tensor, what it is and what is expected.
    """
    missing = sorted(set(expected) - set(found))
    unknown = sorted(set(found) - set(expected))
    if missing or unknown:
        raise ModelInvalid(f"tensors missing: {missing or 'none'}; not expected: {unknown}")
    for name, want in expected.items():
        have = found[name]
        if have.dtype != want.dtype:
            raise ModelInvalid(f"tensor {name} is {have.dtype}, expected {want.dtype}")
        if have.shape != want.shape:
            raise ModelInvalid(
                f"tensor {name} has shape {list(have.shape)}, expected {list(want.shape)}"
            )
        if not torch.isfinite(have).all():
            bad = int((~torch.isfinite(have)).sum())
            raise ModelInvalid(f"tensor {name} has {bad} values that are NaN or infinite")
