# SPDX-License-Identifier: Apache-2.0
"""Tracks a moving goal under velocity, acceleration and jerk limits, tick by tick."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Ramp:
    """Follows a goal with bounded velocity, acceleration and jerk; never overshoots it.

    Two stages, per joint. A slope limiter walks straight to the goal with at most `velocity`.
    Its output passes through two moving averages in series, one tick to the next:

    - the first, over n1 = ceil(2 v / (a dt)) ticks, bounds the acceleration: the slope can change
      by at most 2 v, so its average over n1 ticks changes by at most 2 v / n1 a tick;
    - the second, over n2 = ceil(2 a / (j dt)) ticks, bounds the jerk in the same way.

    Averages are convex combinations of past goals, so the position never leaves the interval that
    the goals span: goals inside the joint limits keep every position inside, at any speed.
    A goal that rests for `distance / (v dt) + n1 + n2 - 2` ticks is reached exactly.
    (Trajectory generation by cascaded averages: Biagiotti & Melchiorri, "FIR filters for online
    trajectory planning with time- and frequency-domain specifications", 2012, section 2.)

    Velocity, acceleration and jerk mean backward differences of the returned positions over `dt`.

    Args:
        velocity: limits [J], rad/s, all > 0.
        acceleration: limits [J], rad/s^2, all > 0.
        jerk: limits [J], rad/s^3, all > 0.
        dt: tick, s.
        shape: leading batch dimensions; positions are [*shape, J].

    Raises:
        ValueError: a limit that is not a finite positive vector, lengths that differ, dt <= 0.
    """

    def __init__(
        self,
        velocity: ArrayLike,
        acceleration: ArrayLike,
        jerk: ArrayLike,
        dt: float,
        shape: tuple[int, ...] = (),
    ) -> None:
        if not (math.isfinite(dt) and dt > 0.0):
            raise ValueError(f"dt must be a positive number of seconds, got {dt}")
        self.dt = float(dt)
        self.velocity = _limit("velocity", velocity)
        self.acceleration = _limit("acceleration", acceleration)
        self.jerk = _limit("jerk", jerk)
        sizes = {self.velocity.size, self.acceleration.size, self.jerk.size}
        if len(sizes) != 1:
            raise ValueError(
                "velocity, acceleration and jerk limits must have one length, got "
                f"{self.velocity.size}, {self.acceleration.size} and {self.jerk.size}"
            )
        self._max_change = self.velocity * self.dt  # [J] rad per tick
        kernels = [
            _kernel(v, a, j, self.dt)
            for v, a, j in zip(self.velocity, self.acceleration, self.jerk, strict=True)
        ]
        taps = max(len(kernel) for kernel in kernels)
        self._weights = np.zeros((taps, *(1 for _ in shape), self.velocity.size))
        for joint, kernel in enumerate(kernels):
            self._weights[: len(kernel), ..., joint] = kernel.reshape(-1, *(1 for _ in shape))
        # Newest first; row 0 is where the slope limiter stands.
        self._history = np.zeros((taps, *shape, self.velocity.size))
        self._scratch = np.empty_like(self._history)

    @property
    def settle_ticks(self) -> int:
        """Ticks from the slope limiter's arrival at a resting goal to standing still on it."""
        return int(self._history.shape[0]) - 1

    @property
    def stopping_goal(self) -> Array:
        """Goal [..., J], rad, on which the motion comes to rest soonest (in `settle_ticks`)."""
        return self._history[0].copy()

    def reset(self, position: ArrayLike, where: object = None) -> None:
        """Stand still at `position` [..., J], rad; `where` selects batch rows (default: all).

        Raises:
            ValueError: a position that is not finite or does not fit the shape.
        """
        rest = np.asarray(position, dtype=np.float64)
        if not np.isfinite(rest).all():
            raise ValueError(f"ramp position must be finite, got {rest}")
        if where is None:
            self._history[:] = rest
        else:
            self._history[:, where] = rest  # type: ignore[index]

    def step(self, goal: Array) -> Array:
        """Advance one tick towards `goal` [..., J], rad; returns the position [..., J], rad.

        Raises:
            ValueError: a goal that holds NaN or has another shape; the state is then untouched.
        """
        history = self._history
        last = history[0]
        if goal.shape != last.shape:
            raise ValueError(f"ramp goal must have shape {last.shape}, got {goal.shape}")
        reached = np.minimum(np.maximum(goal, last - self._max_change), last + self._max_change)
        # A sum is finite only if every element is: cheaper than isfinite().all() on a few joints.
        if not math.isfinite(np.add.reduce(reached, axis=None)):
            raise ValueError(f"ramp goal must be finite, got {goal}")
        history[1:] = history[:-1]
        history[0] = reached
        # Averaged as differences, so that rest is exact: the weights only nearly sum to one.
        np.subtract(history, reached, out=self._scratch)
        np.multiply(self._scratch, self._weights, out=self._scratch)
        moved: Array = reached + np.add.reduce(self._scratch, axis=0)
        return moved

    def state(self) -> Array:
        """Copy of the whole state, [taps, ..., J] rad; `set_state` continues from it exactly."""
        return self._history.copy()

    def set_state(self, state: ArrayLike) -> None:
        """Continue from what `state` returned.

        Raises:
            ValueError: a state of another shape (other limits or batch) or not finite.
        """
        wanted = np.asarray(state, dtype=np.float64)
        if wanted.shape != self._history.shape:
            raise ValueError(
                f"ramp state must have shape {self._history.shape} for these limits, "
                f"got {wanted.shape}"
            )
        if not np.isfinite(wanted).all():
            raise ValueError("ramp state must be finite")
        self._history[:] = wanted


def _limit(name: str, value: ArrayLike) -> Array:
    limit = np.array(value, dtype=np.float64)
    if limit.ndim != 1 or limit.size == 0 or not np.isfinite(limit).all() or (limit <= 0.0).any():
        raise ValueError(
            f"{name} limits must be a vector of finite positive numbers, got {value!r}"
        )
    return limit


def _kernel(velocity: float, acceleration: float, jerk: float, dt: float) -> Array:
    """Weights [taps] of the two averages in series, newest first; they sum to one."""
    # The small slack keeps 3.0000000001 from costing a whole tick.
    n1 = max(1, math.ceil(2.0 * velocity / (acceleration * dt) - 1e-9))
    reached_acceleration = 2.0 * velocity / (n1 * dt)
    n2 = max(1, math.ceil(2.0 * reached_acceleration / (jerk * dt) - 1e-9))
    return np.convolve(np.full(n1, 1.0 / n1), np.full(n2, 1.0 / n2))
