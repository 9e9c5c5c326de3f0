# SPDX-License-Identifier: Apache-2.0
"""How a hand may differ from the nominal twin: a stand-in for a real robot, or for many of them.

The joints' encoders may be off: a joint that stands at q tells q + offset, and its servo, which
knows the encoder alone, holds q = target - offset. All that is outside of the twin, commands and
limits too, counts in what encoders tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24
from twinloop.yaml_files import read_yaml

Array = NDArray[np.float64]
JOINTS = len(HAND24.joint_names)
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Angle = Annotated[float, Field(ge=-0.5, le=0.5)]
Length = Annotated[float, Field(ge=-0.1, le=0.1)]
MAX_DELAY_TICKS = 8


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Kind = TypeVar("_Kind", bound=_Section)


class Variation(_Section):
    """What is other about one hand; the defaults are the nominal one."""

    ball_mass: Positive = 1.0
    """Factor, for both balls."""
    friction: Positive | None = None
    """Sliding friction of all contacts; None: the engine's setting."""
    actuator_gain: Positive = 1.0
    """Factor, for the position gain of all servos."""
    joint_offset_rad: tuple[Angle, ...] = (0.0,) * JOINTS
    """What encoders tell, less where the joints are [24]."""
    command_delay_ticks: int = Field(default=0, ge=0, le=MAX_DELAY_TICKS)
    """How much later than nominal the targets reach the servos."""
    tracker_bias_m: tuple[Length, Length, Length] = (0.0, 0.0, 0.0)
    """Added to both balls where they are seen, world axes."""

    @model_validator(mode="after")
    def _has_every_joint(self) -> Variation:
        if len(self.joint_offset_rad) != JOINTS:
            raise ValueError(
                f"joint_offset_rad has {len(self.joint_offset_rad)} values, expected {JOINTS}"
            )
        return self


class Gap(_Section):
    """A variation whose offsets and bias have random signs; fields as in `Variation`."""

    ball_mass: Positive
    friction: Positive
    actuator_gain: Positive
    joint_offset_rad: Annotated[float, Field(ge=0.0, le=0.5)]
    """Of every joint."""
    command_delay_ticks: int = Field(ge=0, le=MAX_DELAY_TICKS)
    tracker_bias_m: Annotated[float, Field(ge=0.0, le=0.1)]
    """Along every axis."""

    def draw(self, seed: int) -> Variation:
        """Return the variation with the signs of a seed."""
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), JOINTS + 3)
        x, y, z = (float(sign) * self.tracker_bias_m for sign in signs[JOINTS:])
        return Variation(
            ball_mass=self.ball_mass,
            friction=self.friction,
            actuator_gain=self.actuator_gain,
            joint_offset_rad=tuple(float(s) * self.joint_offset_rad for s in signs[:JOINTS]),
            command_delay_ticks=self.command_delay_ticks,
            tracker_bias_m=(x, y, z),
        )


Range = tuple[Positive, Positive]


class Spread(_Section):
    """From what variations are drawn where a fleet is to be of many kinds."""

    ball_mass: Range
    """Factor, drawn evenly on a logarithmic scale; so are the next two."""
    friction: Range
    actuator_gain: Range
    joint_offset_rad: NotNegative
    """Standard deviation; so is the bias."""
    command_delay_ticks: tuple[int, int]
    """Least and most, both inclusive."""
    tracker_bias_m: NotNegative

    @model_validator(mode="after")
    def _is_ordered(self) -> Spread:
        for name in ("ball_mass", "friction", "actuator_gain", "command_delay_ticks"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is {low} to {high}, expected the lower one first")
        if not 0 <= self.command_delay_ticks[0] <= self.command_delay_ticks[1] <= MAX_DELAY_TICKS:
            raise ValueError(f"command_delay_ticks are not within 0 to {MAX_DELAY_TICKS}")
        return self

    def draw(self, rng: np.random.Generator) -> Variation:
        """Return one hand's variation."""

        def factor(limits: tuple[float, float]) -> float:
            return float(np.exp(rng.uniform(*np.log(limits))))

        mass, friction, gain = map(factor, (self.ball_mass, self.friction, self.actuator_gain))
        # No error is so large that the ranges of the fields refuse it.
        offsets = np.clip(rng.normal(0.0, self.joint_offset_rad, JOINTS), -0.5, 0.5)
        x, y, z = np.clip(rng.normal(0.0, self.tracker_bias_m, 3), -0.1, 0.1).tolist()
        return Variation(
            ball_mass=mass,
            friction=friction,
            actuator_gain=gain,
            joint_offset_rad=tuple(offsets.tolist()),
            command_delay_ticks=int(rng.integers(*self.command_delay_ticks, endpoint=True)),
            tracker_bias_m=(x, y, z),
        )


def gap(name: str = "gap") -> Gap:
    """Read `config/twin/<name>.yaml` as a robot that is other than the twin.

    Raises:
        ValueError: no such file, or not as `Gap` says; the message names file and field.
    """
    return _read(name, Gap)


def spread(name: str = "spread") -> Spread:
    """Read `config/twin/<name>.yaml` as a spread of variations; raises ValueError as `gap` does."""
    return _read(name, Spread)


def _read(name: str, kind: type[_Kind]) -> _Kind:
    path = share("config", "twin") / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        raise ValueError(f"no variation {name!r}: there is no file {path}")
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


class Differences:
    """The variations of N hands, as arrays for what is outside of the engine.

    Attributes:
        joint_offset: [N, 24], rad.
        tracker_bias: [N, 3], m.
        delay: [N], ticks.
    """

    def __init__(self, hands: int) -> None:
        self.joint_offset = np.zeros((hands, JOINTS))
        self.tracker_bias = np.zeros((hands, 3))
        self.delay = np.zeros(hands, dtype=np.int64)

    def replace(self, hands: list[int], variations: Sequence[Variation]) -> None:
        """Let these hands have these variations."""
        self.joint_offset[hands] = [one.joint_offset_rad for one in variations]
        self.tracker_bias[hands] = [one.tracker_bias_m for one in variations]
        self.delay[hands] = [one.command_delay_ticks for one in variations]


def delayed(waiting: Array, targets: Array, delay: NDArray[np.int64]) -> tuple[Array, Array]:
    """Let targets arrive late.

    Args:
        waiting: the last `MAX_DELAY_TICKS` targets before [N, D, 24].
        targets: of T ticks [N, T, 24].
        delay: [N], ticks.

    Returns:
        What arrives in these ticks [N, T, 24], and what is waiting then [N, D, 24].
    """
    line = np.concatenate([waiting, targets], axis=1)
    depth, ticks = waiting.shape[1], targets.shape[1]
    arriving = depth + np.arange(ticks) - delay[:, None]
    return np.take_along_axis(line, arriving[..., None], axis=1), line[:, ticks:]
