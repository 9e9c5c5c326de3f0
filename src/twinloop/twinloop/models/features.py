# SPDX-License-Identifier: Apache-2.0
"""What a policy network is shown of an observation: parts of it replaced, in place, by what matters
about them. A policy's file holds the settings, so that it sees the same wherever it acts."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

Range = tuple[int, int]


class Features(BaseModel):
    """Which parts are replaced; ranges are of the observation, and no two replaced ones overlap.

    Attributes:
        lag: where joints lie and where their commands do; joints are replaced by what they are
            behind their command, which tells what they push against.
        turn: where sine and cosine of an angle and of its goal lie; the goal is replaced by the
            angle that is left to it, the angle by `folds` times itself.
        folds: after a turn by 1/folds the thing that turns looks the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lag: tuple[Range, Range] | None = None
    turn: tuple[Range, Range] | None = None
    folds: int = Field(default=1, ge=1, le=360)

    @model_validator(mode="after")
    def _ranges_fit(self) -> Self:
        for name, pair in (("lag", self.lag), ("turn", self.turn)):
            sizes = [stop - start for start, stop in pair or ()]
            is_angle = name == "turn"
            if any(start < 0 for start, _ in pair or ()) or (
                sizes and (sizes[0] != sizes[1] or sizes[0] < 1 or (is_angle and sizes[0] != 2))
            ):
                expected = "of 2 elements each" if is_angle else "of one size"
                raise ValueError(f"{name} is {pair}, expected two ranges {expected}")
        return self

    @property
    def size(self) -> int:
        """How many elements an observation has to have at least."""
        return max((stop for pair in (self.lag, self.turn) for _, stop in pair or ()), default=0)

    def of(self, observation: Tensor) -> Tensor:
        """Return the features: [..., O] -> [..., O]."""
        seen = observation.clone()
        if self.lag is not None:
            joints, command = (slice(*where) for where in self.lag)
            seen[..., joints] = observation[..., command] - observation[..., joints]
        if self.turn is not None:
            angle, goal = (slice(*where) for where in self.turn)
            sine, cosine = observation[..., angle].unbind(-1)
            goal_sine, goal_cosine = observation[..., goal].unbind(-1)
            folded = self.folds * torch.atan2(sine, cosine)
            seen[..., angle] = torch.stack([torch.sin(folded), torch.cos(folded)], dim=-1)
            seen[..., goal] = torch.stack(
                [
                    goal_sine * cosine - goal_cosine * sine,
                    goal_cosine * cosine + goal_sine * sine,
                ],
                dim=-1,
            )
        return seen
