# SPDX-License-Identifier: Apache-2.0
"""A contract names every element of a task's observation and action, and where it comes from."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(min_length=1, max_length=128)]


class Channel(BaseModel):
    """One block of the observation vector, read from one field of one topic.

    The sample of step k is the newest one whose stamp is not after the step's due time (hold);
    if it is older than `max_age_s` the observation is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    topic: Name
    type: Name
    field: Name
    elements: tuple[Name, ...] = Field(min_length=1, max_length=4096)
    unit: str
    frame: str = ""
    max_age_s: float = Field(gt=0.0, le=60.0)
    align: Literal["hold"] = "hold"


class Action(BaseModel):
    """The command vector: one absolute target for each joint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: Name
    applied_topic: Name
    type: Name
    elements: tuple[Name, ...] = Field(min_length=1, max_length=4096)
    unit: str
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    rate: float = Field(gt=0.0, description="largest change of a target, unit per second")
    delay_s: float = Field(ge=0.0, description="from a command's stamp to its first effect")

    @model_validator(mode="after")
    def _limits_fit(self) -> Action:
        if not len(self.elements) == len(self.lower) == len(self.upper):
            raise ValueError(
                f"{len(self.elements)} elements, {len(self.lower)} lower and {len(self.upper)} "
                "upper limits: expected as many of each"
            )
        if any(not low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError("a lower limit is not below its upper limit")
        return self


class Contract(BaseModel):
    """What goes into a model or policy and what comes out, element by element.

    Attributes:
        period_s: control period [s].
        trigger: topic whose stamps set the control steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    robot: Name
    period_s: float = Field(gt=0.0, le=10.0)
    trigger: Name
    observation: tuple[Channel, ...] = Field(min_length=1)
    action: Action

    @model_validator(mode="after")
    def _names_are_unique(self) -> Contract:
        names = [channel.name for channel in self.observation]
        if len(set(names)) != len(names):
            raise ValueError(f"contract {self.name}: channel names repeat: {names}")
        return self

    @property
    def observation_size(self) -> int:
        return sum(len(channel.elements) for channel in self.observation)

    @property
    def action_size(self) -> int:
        return len(self.action.elements)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each channel lies in the observation vector."""
        result, start = {}, 0
        for channel in self.observation:
            result[channel.name] = slice(start, start + len(channel.elements))
            start += len(channel.elements)
        return result

    def pack(self, channels: dict[str, ArrayLike]) -> NDArray[np.float32]:
        """Join channels, each [..., n], into observations [..., O].

        Raises:
            ValueError: a channel is missing, unknown or of the wrong size.
        """
        expected = {channel.name: len(channel.elements) for channel in self.observation}
        if channels.keys() != expected.keys():
            raise ValueError(
                f"contract {self.name}: channels {sorted(channels)} given, "
                f"{sorted(expected)} expected"
            )
        parts = [np.asarray(channels[name], dtype=np.float32) for name in expected]
        for part, (name, size) in zip(parts, expected.items(), strict=True):
            if part.shape[-1:] != (size,):
                raise ValueError(
                    f"contract {self.name}: channel {name} has shape {part.shape}, "
                    f"expected [..., {size}]"
                )
        return np.concatenate(parts, axis=-1)

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Contract:
        """Read a contract; raises pydantic.ValidationError (a ValueError) naming what is wrong."""
        return cls.model_validate_json(text)

    def hash(self) -> str:
        """Short hash: equal for contracts whose vectors mean the same."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def describe(self) -> list[dict[str, Any]]:
        """One row an element: index, name, unit, frame, topic and field."""
        return [
            {
                "index": index,
                "name": f"{channel.name}.{element}",
                "unit": channel.unit,
                "frame": channel.frame,
                "source": f"{channel.topic}:{channel.field}",
            }
            for index, (channel, element) in enumerate(
                (channel, element) for channel in self.observation for element in channel.elements
            )
        ]
