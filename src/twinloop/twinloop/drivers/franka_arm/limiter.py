# SPDX-License-Identifier: Apache-2.0
"""Follows a reference, millisecond by millisecond, inside the arm's limits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinloop.drivers.franka_arm.limits import LIMITS, ArmLimits

Array = NDArray[np.float64]

STEP_S = 0.001
_POSITION_GAIN = 25.0  # 1/s
_VELOCITY_GAIN = 100.0  # 1/s; four times the other: critically damped
_REST = 2e-4  # rad/s


class Limiter:
    """A point that follows a reference with bounded velocity, acceleration and jerk.

    A reference that keeps to the limits is followed exactly; one that does not, with a lag, and
    where it jumps, without a jump. Velocity is bounded as it depends on position, so the arm comes
    to rest inside its limits whatever the reference is.

    Velocities and accelerations are differences of positions a step apart, as the arm itself takes
    them.

    Attributes:
        position, velocity, acceleration: of the point [7]: rad, rad/s, rad/s^2.
    """

    def __init__(self, position: Array, limits: ArmLimits = LIMITS) -> None:
        self.limits = limits
        self.rebase(position, np.zeros(7), np.zeros(7))

    def rebase(self, position: Array, velocity: Array, acceleration: Array) -> None:
        """Go on from another state, each [7]: rad, rad/s, rad/s^2."""
        self.position = np.array(position, dtype=np.float64)
        self.velocity = np.array(velocity, dtype=np.float64)
        self.acceleration = np.array(acceleration, dtype=np.float64)

    @property
    def is_at_rest(self) -> bool:
        return bool(np.abs(self.velocity).max() < _REST)

    def follow(self, position: Array, velocity: Array, acceleration: Array) -> Array:
        """Advance a step towards where the reference is then; returns the position [7], rad.

        Args: each [7]: rad, rad/s, rad/s^2.
        """
        before = velocity - acceleration * STEP_S
        behind = position - velocity * STEP_S - self.position
        # As fast as it can still be braked on the way.
        far = np.sqrt(1.2 * self.limits.acceleration * np.abs(behind))
        closing = np.minimum(np.maximum(_POSITION_GAIN * behind, -far), far)
        return self._step(before + closing, acceleration)

    def brake(self) -> Array:
        """Advance a step towards rest; returns the position [7], rad."""
        return self._step(np.zeros(7), np.zeros(7))

    def _step(self, wanted: Array, acceleration: Array) -> Array:
        """Towards a velocity [7], rad/s, that changes by an acceleration [7], rad/s^2."""
        limits = self.limits
        low, high = limits.velocities(self.position)
        wanted = np.minimum(np.maximum(wanted, low), high)
        top = limits.acceleration
        wished = acceleration + _VELOCITY_GAIN * (wanted - self.velocity)
        # What is known of the way ahead must not push past a bound either.
        wished = np.maximum(wished, _VELOCITY_GAIN * (low - self.velocity))
        wished = np.minimum(wished, _VELOCITY_GAIN * (high - self.velocity))
        wished = np.minimum(np.maximum(wished, -top), top)
        change = limits.jerk * STEP_S
        now = self.acceleration
        now = np.minimum(np.maximum(wished, now - change), now + change)
        self.velocity = self.velocity + now * STEP_S
        self.position = self.position + self.velocity * STEP_S
        self.acceleration = now
        return self.position
