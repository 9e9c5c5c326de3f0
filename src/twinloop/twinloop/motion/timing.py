# SPDX-License-Identifier: Apache-2.0
"""Gives paths their times: polylines in joint space, at rest at both ends, jerk-limited.

Each leg is a straight move whose path parameter is a step that went through three moving averages
of n_v >= n_a + n_j ticks (Biagiotti & Melchiorri, "FIR filters for online trajectory planning with
time- and frequency-domain specifications", 2012, section 2). A leg of length L then keeps to
L / T_v, L / (T_v T_a) and L / (T_v T_a T_j) in velocity, acceleration and jerk, its jerk is
constant within each tick, and the sum of legs that overlap is again of that kind. So limits are
checked exactly, on ticks, and not on samples. (toppra knows no limit of jerk, and ruckig follows
waypoints only by asking a server.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.motion.semantics import Limits
from twinloop.motion.trajectory import TICK_S, Trajectory

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Leg:
    """A straight move.

    Attributes:
        start: tick.
        delta: [J], rad.
        windows: lengths of the three averages (n_v, n_a, n_j), ticks.
    """

    start: int
    delta: Array
    windows: tuple[int, int, int]

    @property
    def ticks(self) -> int:
        return sum(self.windows)

    @property
    def end(self) -> int:
        return self.start + self.ticks

    def jerk(self) -> Array:
        """Return the jerk in each of its ticks [ticks, J], rad/s^3."""
        n_v, n_a, n_j = self.windows
        pulses = np.zeros(n_v + n_a + 1)
        for at, sign in ((0, 1.0), (n_a, -1.0), (n_v, -1.0), (n_v + n_a, 1.0)):
            pulses[at] += sign
        shape = np.convolve(pulses, np.ones(n_j)) / (n_v * n_a * n_j * TICK_S**3)
        return np.outer(shape, self.delta)


def straight_leg(start: int, delta: Array, limits: Limits) -> Leg:
    """Return the shortest leg of this length that keeps to the limits by itself."""
    size = np.abs(delta)
    v = float((size / limits.velocity).max()) / TICK_S
    a = float((size / limits.acceleration).max()) / TICK_S**2
    j = float((size / limits.jerk).max()) / TICK_S**3
    # From velocity's own bound to where the longest of the other two alone asks for no more.
    first = max(2, int(np.ceil(v - 1e-9)))
    n_v = np.arange(first, first + 2 + int(2 * np.sqrt(a)) + int(4 * np.cbrt(j)))
    n_a = np.maximum(1, np.ceil(a / n_v - 1e-9))
    n_j = np.maximum(1, np.ceil(j / (n_v * n_a) - 1e-9))
    total = np.where(n_v >= n_a + n_j, n_v + n_a + n_j, np.inf)
    best = int(np.argmin(total))
    return Leg(start, delta, (int(n_v[best]), int(n_a[best]), int(n_j[best])))


def assemble(joint_names: tuple[str, ...], origin: Array, legs: list[Leg]) -> Trajectory:
    """Return the sum of legs from a point [J], rad; jerk is integrated exactly."""
    ticks = max((leg.end for leg in legs), default=0)
    jerk = np.zeros((ticks, origin.size))
    for leg in legs:
        jerk[leg.start : leg.end] += leg.jerk()
    h = TICK_S
    zero = np.zeros((1, origin.size))
    acceleration = np.concatenate([zero, np.cumsum(jerk * h, axis=0)])
    velocity = np.concatenate([zero, np.cumsum(acceleration[:-1] * h + jerk * h**2 / 2, axis=0)])
    moved = velocity[:-1] * h + acceleration[:-1] * h**2 / 2 + jerk * h**3 / 6
    position = origin + np.concatenate([zero, np.cumsum(moved, axis=0)])
    # What is left of rounding.
    velocity[-1] = acceleration[-1] = 0.0
    if legs:
        position[-1] = origin + np.sum([leg.delta for leg in legs], axis=0)
    time = h * np.arange(ticks + 1, dtype=np.float64)
    return Trajectory(joint_names, time, position, velocity, acceleration)


def excess(trajectory: Trajectory, limits: Limits) -> float:
    """Return how many times over its limit the worst of velocity, acceleration and jerk goes.

    Exact where motions are cubics between points: acceleration is greatest at points, and velocity
    there or where acceleration crosses zero in between. At most 1 is within limits.
    """
    a, v = trajectory.acceleration, trajectory.velocity
    worst = [
        float((np.abs(v) / limits.velocity).max()),
        float((np.abs(a) / limits.acceleration).max()),
    ]
    if len(a) > 1:
        jerk = trajectory.jerk()
        worst.append(float((np.abs(jerk) / limits.jerk).max()))
        crossing = a[:-1] * a[1:] < 0.0
        peak = v[:-1] - np.divide(a[:-1] ** 2, 2 * jerk, out=np.zeros_like(jerk), where=crossing)
        worst.append(float((np.abs(np.where(crossing, peak, 0.0)) / limits.velocity).max()))
    return max(worst)
