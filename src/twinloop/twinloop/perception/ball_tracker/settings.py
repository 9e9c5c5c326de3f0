# SPDX-License-Identifier: Apache-2.0
"""Numbers of the ball tracker, checked once."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from twinloop.perception.ball_tracker.eyes import FOCAL_PX

_DEPTH_M = 0.41
Positive = Annotated[float, Field(gt=0.0)]


class TrackerSettings(BaseModel):
    """How balls look, move and are lost.

    Attributes:
        radius_m: of the balls.
        least_fraction: of a disc that has to be seen to be a ball.
        deviation_scale: standard deviation of a centre, in units of what the detector expects.
        deviation_floor_px: added to it, in squares.
        acceleration_density: power density of a ball's acceleration in the palm, per axis of the
            palm's frame, m^2/s^3.
        decay_s: time in which its velocity in the palm falls to 1 / e, per axis, s.
        surprise: squared Mahalanobis distance of a sight from which on the ball was hit or let go.
        hit_density: of the acceleration then, m^2/s^3.
        initial_velocity_std: of a ball that was just found, m/s.
        stale_after_s: time without evidence after which a position counts no more.
        most_std_m: along the axis that is known worst; a position known worse counts no more.
        bias_std_m: what no filtering removes, added to the reported covariance, per axis.
        align: whether the rig's place is corrected by the hand's outline.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    radius_m: float = Field(default=0.028, gt=0.0, lt=0.2)
    least_fraction: float = Field(default=0.06, gt=0.0, lt=1.0)
    deviation_scale: float = Field(default=1.3, gt=0.0)
    deviation_floor_px: float = Field(default=0.05, ge=0.0)
    acceleration_density: tuple[Positive, Positive, Positive] = (0.03, 0.008, 0.03)
    decay_s: tuple[Positive, Positive, Positive] = (1.5, 0.15, 1.5)
    surprise: float = Field(default=9.0, gt=0.0)
    hit_density: float = Field(default=5.0, gt=0.0)
    initial_velocity_std: float = Field(default=0.15, ge=0.0)
    stale_after_s: float = Field(default=0.1, gt=0.0)
    most_std_m: float = Field(default=0.012, gt=0.0)
    bias_std_m: float = Field(default=0.001, ge=0.0)
    align: bool = True

    @property
    def least_area(self) -> float:
        """Of a ball that counts, pixels, in an eye at the usual distance."""
        return float(self.least_fraction * np.pi * (FOCAL_PX * self.radius_m / _DEPTH_M) ** 2)
