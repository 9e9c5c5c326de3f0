# SPDX-License-Identifier: Apache-2.0
"""What a controller follows: a trajectory in continuous time, and ways to stop on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.motion.semantics import Limits
from twinloop.motion.trajectory import Trajectory

Array = NDArray[np.float64]

SLACK = 1e-3  # share of a limit that rounding may take
_SAMPLES = 8  # looked at between two points
_STOP_TICK_S = 0.01
_STOPS_S = _STOP_TICK_S * np.unique(np.round(2.0 * 1.08 ** np.arange(56)))  # 0.02 to 1.4 s


@dataclass(frozen=True)
class Motion:
    """Where a joint vector is to be, and its derivatives, arrays [..., J]: rad, s."""

    position: Array
    velocity: Array
    acceleration: Array
    jerk: Array


class Path:
    """A trajectory between whose points a polynomial of degree five runs in each joint.

    It takes position, velocity and acceleration from both points. Where the points come from
    `twinloop.motion.timing` it is the cubic that was planned.
    """

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory
        t, x, v, a = (
            trajectory.time,
            trajectory.position,
            trajectory.velocity,
            trajectory.acceleration,
        )
        h = np.diff(t)[:, None]
        moved = x[1:] - x[:-1] - v[:-1] * h - a[:-1] * h**2 / 2
        sped = (v[1:] - v[:-1] - a[:-1] * h) * h
        bent = (a[1:] - a[:-1]) * h**2
        # Coefficients of time since the segment's start, lowest first [6, T - 1, J].
        self._coefficients = np.stack(
            [
                x[:-1],
                v[:-1],
                a[:-1] / 2,
                (10 * moved - 4 * sped + bent / 2) / h**3,
                (-15 * moved + 7 * sped - bent) / h**4,
                (6 * moved - 3 * sped + bent / 2) / h**5,
            ]
        )

    @property
    def duration(self) -> float:
        """Time from the first point to the last, s."""
        return self.trajectory.duration

    def at(self, time: float | Array) -> Motion:
        """Return the motion at times [...], s; beyond the ends it stands still there."""
        asked = np.asarray(time, dtype=np.float64)
        t = np.clip(asked, 0.0, self.duration)
        knots = self.trajectory.time
        i = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2)
        u = (t - knots[i])[..., None]
        c = self._coefficients[:, i]
        position = c[0] + u * (c[1] + u * (c[2] + u * (c[3] + u * (c[4] + u * c[5]))))
        velocity = c[1] + u * (2 * c[2] + u * (3 * c[3] + u * (4 * c[4] + 5 * u * c[5])))
        acceleration = 2 * c[2] + u * (6 * c[3] + u * (12 * c[4] + 20 * u * c[5]))
        jerk = 6 * c[3] + u * (24 * c[4] + 60 * u * c[5])
        moves = ((asked >= 0.0) & (asked < self.duration))[..., None]
        return Motion(position, velocity * moves, acceleration * moves, jerk * moves)

    def dense(self) -> tuple[Array, Motion]:
        """Return times [K], several between two points and both ends, and the motion there."""
        knots = self.trajectory.time
        shares = np.arange(_SAMPLES) / _SAMPLES
        # The last ones of a segment lie just before its end, where its jerk is still its own.
        times = (knots[:-1, None] + np.diff(knots)[:, None] * [*shares, 1.0 - 1e-9]).ravel()
        return times, self.at(times)


class StopOnPath:
    """Comes to rest along a path: what was free of collision stays so.

    The path's own time runs ever slower: its rate goes from 1 to 0 as 1 - 3 u^2 + 2 u^3 over a time
    T, u being the share of it that has passed.
    """

    def __init__(self, path: Path, from_s: float, within_s: float) -> None:
        self._path = path
        self._from_s = from_s
        self.duration = within_s

    def at(self, time: float | Array) -> Motion:
        """Return the motion at times [...] since the stop began, s."""
        total = self.duration
        u = np.clip(np.asarray(time, dtype=np.float64) / total, 0.0, 1.0)
        s = self._from_s + total * (u - u**3 + u**4 / 2)
        along = self._path.at(s)
        r = (1 - 3 * u**2 + 2 * u**3)[..., None]
        dr = (6 * (u**2 - u) / total)[..., None]
        ddr = np.where(u < 1.0, (12 * u - 6) / total**2, 0.0)[..., None]
        v, a, j = along.velocity, along.acceleration, along.jerk
        return Motion(along.position, v * r, a * r**2 + v * dr, j * r**3 + 3 * a * r * dr + v * ddr)


class StopOfJoints:
    """Brings each joint to rest as soon as its limits of acceleration and jerk allow.

    Jerk, constant acceleration, jerk: the shortest way to take a velocity and an acceleration to
    zero under bounds on both.
    """

    def __init__(self, start: Motion, limits: Limits) -> None:
        self._start = start
        velocity, acceleration = start.velocity, start.acceleration
        jerk, most = limits.jerk, np.maximum(limits.acceleration, np.abs(acceleration))
        # The velocity that is left once acceleration alone has been taken away says which way.
        left = velocity + acceleration * np.abs(acceleration) / (2 * jerk)
        way = -np.sign(left)
        v, a = velocity * way, acceleration * way
        peak = np.where(way == 0.0, 0.0, np.sqrt(np.maximum(a**2 / 2 - jerk * v, 0.0)))
        peak = np.minimum(peak, most)
        held = (-v - (2 * peak**2 - a**2) / (2 * jerk)) / np.where(peak > 0.0, peak, 1.0)
        still = way == 0.0  # nothing but an acceleration to take away
        first = np.where(still, np.abs(acceleration) / jerk, np.maximum(peak - a, 0.0) / jerk)
        second = np.where(still, 0.0, np.maximum(held, 0.0))
        third = np.where(still, 0.0, peak / jerk)
        down = np.where(still, -np.sign(acceleration), way) * jerk
        self._phases = ((first, down), (second, np.zeros_like(jerk)), (third, -way * jerk))
        self.duration = float((first + second + third).max())

    def at(self, time: float) -> Motion:
        """Return the motion at a time since the stop began, s."""
        x, v, a = self._start.position, self._start.velocity, self._start.acceleration
        left = np.full_like(x, max(time, 0.0))
        jerk = np.zeros_like(x)
        for lasts, j in self._phases:
            t = np.clip(left, 0.0, lasts)
            x = x + v * t + a * t**2 / 2 + j * t**3 / 6
            v = v + a * t + j * t**2 / 2
            a = a + j * t
            jerk = np.where((left > 0.0) & (left < lasts), j, jerk)
            left = left - lasts
        rests = left >= 0.0
        return Motion(x, np.where(rests, 0.0, v), np.where(rests, 0.0, a), jerk)


Stop = StopOnPath | StopOfJoints


def stop_on(path: Path, at_s: float, limits: Limits) -> Stop:
    """Return the quickest stop along a path that keeps to the limits of acceleration and jerk.

    Where the path itself already brakes as hard as is allowed none may do: each joint then stops by
    itself, a little beside the path.
    """
    rest_s = path.duration - at_s
    found: Stop | None = None
    low, high = 0, len(_STOPS_S)
    while low < high:
        middle = (low + high) // 2
        within_s = float(_STOPS_S[middle])
        stop = StopOnPath(path, at_s, within_s)
        motion = stop.at(np.arange(0.0, min(within_s, 2 * rest_s), _STOP_TICK_S / 4))
        if overshoot(motion, limits)[0] <= 1.0 + SLACK:
            found, high = stop, middle
        else:
            low = middle + 1
    return found or StopOfJoints(path.at(at_s), limits)


def overshoot(motion: Motion, limits: Limits) -> tuple[float, str, int, int]:
    """Return the worst ratio to a limit over motions [K, J]: how much, of what, when, which joint.

    Exact for the samples alone.
    """
    worst = (0.0, "", 0, 0)
    for what in ("velocity", "acceleration", "jerk"):
        ratio = np.abs(getattr(motion, what)) / getattr(limits, what)
        if ratio.size and ratio.max() > worst[0]:
            at, joint = np.unravel_index(int(ratio.argmax()), ratio.shape)
            worst = (float(ratio.max()), what, int(at), int(joint))
    return worst
