# SPDX-License-Identifier: Apache-2.0
"""Actions that never push beyond a limit: ±1 spans what limits leave of the largest change.

Bags hold what was applied. If a push beyond a joint's limit were an action, it would be recorded as
no change, critics would never learn what it is worth, and policies would come to rest there.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

_LEAST = 1e-3  # of a span, where a command is beyond its limits


class Room(BaseModel):
    """Limits of targets that are changed step by step.

    Attributes:
        command: where the command in force lies in the observation.
        lower, upper: limits of the targets [A], in the contract's unit.
        largest: change in a step, in the same unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    command: tuple[int, int]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    largest: float = Field(gt=0)

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        start, stop = self.command
        if not 0 <= start < stop or {len(self.lower), len(self.upper)} != {stop - start}:
            raise ValueError(
                f"command is {self.command} with {len(self.lower)} lower and {len(self.upper)} "
                "upper limits, expected one of each for each element"
            )
        if any(low >= high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError("room: the lower limits are not below the upper ones")
        return self

    def changes(self, observation: Tensor, actions: Tensor) -> Tensor:
        """Return changes in units of the largest one: [..., O], actions in ±1 [..., A] ->
        [..., A]."""
        low, half = self._span(observation)
        return low + half * (actions + 1.0)

    def actions(self, observation: Tensor, changes: Tensor) -> Tensor:
        """Return the actions in ±1 that make these changes: [..., O], [..., A] -> [..., A]."""
        low, half = self._span(observation)
        return ((changes - low) / half - 1.0).clamp(-1.0, 1.0)

    def _span(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest change, and half of the span from there to the highest."""
        command = observation[..., slice(*self.command)]
        low, high = (
            ((command.new_tensor(limit) - command) / self.largest).clamp(-1.0, 1.0)
            for limit in (self.lower, self.upper)
        )
        return low, 0.5 * (high - low).clamp(min=_LEAST)
