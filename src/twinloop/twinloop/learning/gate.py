# SPDX-License-Identifier: Apache-2.0
"""The gate: is a candidate better than the running model on episodes that neither was trained on?

The mean error alone misleads: it is lowest where the hand is stuck, since little moves there. So
errors are also taken per band of the balls' angle, and the mean over bands decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from twinloop.contract import Contract
from twinloop.learning.episode import Episode
from twinloop.learning.replay import windows
from twinloop.models.base import DynamicsModel

HORIZON = 7
BAND_DEG = 30
CHANNEL = "ball_position"


class GateConfig(BaseModel):
    """Margins of the gate; shares are of the running model's error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The seven-step error, averaged over bands, has to fall by at least this share.
    improvement: float = Field(default=0.01, ge=0.0, lt=1.0)
    # Nor may these errors grow by more than their shares.
    overall_tolerance: float = Field(default=0.02, ge=0.0)
    one_step_tolerance: float = Field(default=0.05, ge=0.0)
    band_tolerance: float = Field(default=0.25, ge=0.0)
    # Fewer windows than these say nothing: of a band, and of all held-out episodes.
    band_windows: int = Field(default=30, ge=1)
    total_windows: int = Field(default=40, ge=1)
    # At most so many windows are scored, evenly spread, so that the gate's time is bounded.
    limit: int = Field(default=4000, ge=1)
    # Of policies: fewer episodes than these of both say nothing; a loss that chance alone gives
    # less often than this takes the new one back. Of four and four it gives 1 in 70.
    returns_episodes: int = Field(default=4, ge=1)
    returns_level: float = Field(default=0.02, gt=0.0, lt=1.0)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BandScore(_Record):
    """Errors of windows that start with the balls' line at `from_deg` to `to_deg`."""

    from_deg: int
    to_deg: int
    windows: int
    one_step_mm: FiniteFloat | None
    seven_step_mm: FiniteFloat | None


class Score(_Record):
    """Distances between predicted and observed balls after open-loop steps [mm].

    None stands for an error that is NaN or infinite.
    """

    windows: int
    one_step_mm: FiniteFloat | None
    seven_step_mm: FiniteFloat | None
    seven_step_median_mm: FiniteFloat | None
    seven_step_banded_mm: FiniteFloat | None  # mean over the bands with enough windows
    bands: tuple[BandScore, ...]

    @property
    def is_finite(self) -> bool:
        figures = (self.one_step_mm, self.seven_step_mm, self.seven_step_banded_mm)
        return all(figure is not None for figure in figures)


class Returns(_Record):
    """What the whole episodes of a policy earned, beside those of the policy before."""

    episodes: int
    mean: FiniteFloat
    former_episodes: int
    former_mean: FiniteFloat
    chance: FiniteFloat  # of a difference as large if both were alike


class Decision(_Record):
    """What the gate decided, why, and every figure it decided on.

    Scores are None for policies, which predict nothing; `returns` are theirs, once they have acted.
    """

    verdict: Literal["promoted", "rejected"]
    reason: str
    compared_with: str | None  # version of the running model
    candidate: Score | None
    running: Score | None
    still: Score | None  # of a model that predicts no motion
    returns: Returns | None = None
    held_out: tuple[str, ...]  # episode ids
    margins: GateConfig
    decided_at: str


class NotEnoughHeldOut(ValueError):
    """The held-out episodes are too few or too short to judge a model by."""


@torch.no_grad()
def score(
    model: DynamicsModel | None,
    episodes: Sequence[Episode],
    contract: Contract,
    config: GateConfig | None = None,
) -> Score:
    """Score a model's ensemble mean, or no motion where the model is None.

    Raises:
        NotEnoughHeldOut: fewer than `total_windows` windows of seven steps.
    """
    config = GateConfig() if config is None else config
    long_enough = [episode for episode in episodes if len(episode) >= HORIZON]
    count = sum(len(episode) - HORIZON + 1 for episode in long_enough)
    if count < config.total_windows:
        raise NotEnoughHeldOut(
            f"{len(episodes)} held-out episodes have {count} windows of {HORIZON} steps, "
            f"expected at least {config.total_windows}"
        )
    data = windows(long_enough, HORIZON)
    observations, actions = data.batch(torch.arange(0, count, math.ceil(count / config.limit)))
    where = contract.slices[_channel(contract)]
    one, seven = _errors(model, observations, actions, where)
    has_bands = _channel(contract) == CHANNEL
    band = _band(observations[:, 0, where]) if has_bands else torch.zeros(len(observations))
    bands = []
    for index in range(180 // BAND_DEG if has_bands else 0):
        inside = band == index
        bands.append(
            BandScore(
                from_deg=index * BAND_DEG,
                to_deg=(index + 1) * BAND_DEG,
                windows=int(inside.sum()),
                one_step_mm=_mean(one[inside]),
                seven_step_mm=_mean(seven[inside]),
            )
        )
    known = [b.seven_step_mm for b in bands if b.windows >= config.band_windows]
    overall = _mean(seven)
    banded = (
        overall if not known else _mean(torch.tensor([math.nan if e is None else e for e in known]))
    )
    return Score(
        windows=len(observations),
        one_step_mm=_mean(one),
        seven_step_mm=overall,
        seven_step_median_mm=_finite(float(seven.median())),
        seven_step_banded_mm=banded,
        bands=tuple(bands),
    )


def judge(
    candidate: DynamicsModel,
    running: DynamicsModel | None,
    running_version: str | None,
    held_out: Sequence[Episode],
    contract: Contract,
    config: GateConfig | None = None,
) -> Decision:
    """Compare a candidate with the running model, or with no motion where none runs.

    Raises:
        NotEnoughHeldOut: there is too little to judge by.
    """
    config = GateConfig() if config is None else config
    new = score(candidate, held_out, contract, config)
    old = None if running is None else score(running, held_out, contract, config)
    still = score(None, held_out, contract, config)
    objection = _objection(new, old, still, config)
    return Decision(
        verdict="promoted" if objection is None else "rejected",
        reason=objection or _praise(new, old, still),
        compared_with=running_version if old is not None else None,
        candidate=new,
        running=old,
        still=still,
        held_out=tuple(str(episode.meta.get("episode_id", "")) for episode in held_out),
        margins=config,
        decided_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _objection(new: Score, old: Score | None, still: Score, config: GateConfig) -> str | None:
    """Return why the candidate is not promoted, None where it is."""
    if not new.is_finite:
        return "its predictions are NaN or infinite"
    if old is None or not old.is_finite:
        if not _value(new.seven_step_mm) < _value(still.seven_step_mm):
            return (
                f"seven-step error {new.seven_step_mm:.2f} mm is not below the "
                f"{still.seven_step_mm:.2f} mm of no motion"
            )
        return None
    bound = (1 - config.improvement) * _value(old.seven_step_banded_mm)
    if not _value(new.seven_step_banded_mm) <= bound:
        return (
            f"seven-step error over bands is {new.seven_step_banded_mm:.2f} mm, expected at most "
            f"{bound:.2f} mm ({config.improvement:.0%} below {old.seven_step_banded_mm:.2f} mm)"
        )
    for name, ours, theirs, tolerance in (
        ("seven-step error", new.seven_step_mm, old.seven_step_mm, config.overall_tolerance),
        ("one-step error", new.one_step_mm, old.one_step_mm, config.one_step_tolerance),
        *(
            (
                f"seven-step error at {ours.from_deg}-{ours.to_deg} deg",
                ours.seven_step_mm,
                theirs.seven_step_mm,
                config.band_tolerance,
            )
            for ours, theirs in zip(new.bands, old.bands, strict=True)
            if ours.windows >= config.band_windows
        ),
    ):
        if not _value(ours) <= (1 + tolerance) * _value(theirs):
            return f"{name} is {ours:.2f} mm, more than {tolerance:.0%} above {theirs:.2f} mm"
    return None


def _praise(new: Score, old: Score | None, still: Score) -> str:
    if old is None or not old.is_finite:
        return (
            f"seven-step error {new.seven_step_mm:.2f} mm against {still.seven_step_mm:.2f} mm of "
            "no motion, and no usable model runs"
        )
    return (
        f"seven-step error over bands {old.seven_step_banded_mm:.2f} -> "
        f"{new.seven_step_banded_mm:.2f} mm, one-step {old.one_step_mm:.2f} -> "
        f"{new.one_step_mm:.2f} mm"
    )


def _errors(
    model: DynamicsModel | None, observations: Tensor, actions: Tensor, where: slice
) -> tuple[Tensor, Tensor]:
    """Return the errors after one and after seven steps: [W, 8, O], [W, 7, A] -> [W], [W] mm."""
    guess = observations[:, 0]
    state = guess if model is None else guess.expand(model.members, -1, -1)
    after = []
    for step in range(HORIZON):
        if model is not None:
            state = model.predict(state, actions[:, step])
            guess = state.mean(0)
        if step in (0, HORIZON - 1):
            miss = (guess - observations[:, step + 1])[:, where].unflatten(-1, (-1, 3))
            after.append(torch.linalg.vector_norm(miss, dim=-1).mean(-1) * 1e3)
    return after[0], after[1]


def _channel(contract: Contract) -> str:
    """Return the channel by which models are judged: where what is moved is, m.

    Raises:
        ValueError: the contract has none.
    """
    if CHANNEL in contract.slices:
        return CHANNEL
    for channel in contract.observation:
        if channel.name.endswith("_position") and channel.unit == "m":
            return channel.name
    raise ValueError(f"contract {contract.name} has no channel of positions to judge a model by")


def _band(positions: Tensor) -> Tensor:
    """Return the band of the line between the balls, seen along the palm normal: [W, 6] -> [W].

    Balls are alike, so a line and the same line turned by half a turn are one state.
    """
    line = positions[:, :3] - positions[:, 3:6]
    angle = torch.rad2deg(torch.atan2(line[:, 2], line[:, 0])) % 180.0
    return (angle / BAND_DEG).long().clamp(max=180 // BAND_DEG - 1)


def _mean(values: Tensor) -> float | None:
    return _finite(float(values.mean())) if len(values) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _value(figure: float | None) -> float:
    """Return the figure, NaN for None: a comparison with it is never true."""
    return math.nan if figure is None else figure
