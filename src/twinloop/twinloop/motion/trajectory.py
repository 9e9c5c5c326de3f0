# SPDX-License-Identifier: Apache-2.0
"""Motions over time, as controllers take them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TICK_S = 0.01  # of trajectory points; jerk changes on ticks only


@dataclass(frozen=True)
class Trajectory:
    """Points of a motion that starts and ends at rest.

    Where points lie `TICK_S` apart and come from `twinloop.motion.timing`, the motion between two
    of them is one cubic in each joint, so a controller that interpolates with positions and
    velocities, or with accelerations too, follows it exactly.

    Attributes:
        joint_names: J of them.
        time: of the points [T], s, from 0, or from the time that the way to the first may take.
        position: [T, J], rad.
        velocity: [T, J], rad/s.
        acceleration: [T, J], rad/s^2.
    """

    joint_names: tuple[str, ...]
    time: Array
    position: Array
    velocity: Array
    acceleration: Array

    def __post_init__(self) -> None:
        shape = (len(self.time), len(self.joint_names))
        for name in ("position", "velocity", "acceleration"):
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"trajectory: {name} has shape {found}, expected {shape}")

    @property
    def duration(self) -> float:
        """Time from the first point to the last, s."""
        return float(self.time[-1])

    def at(self, time: float | Array) -> Array:
        """Return positions [..., J] at times [...], s; before the start and after the end, there.

        Cubic Hermite interpolation.
        """
        t = np.clip(np.asarray(time, dtype=np.float64), self.time[0], self.duration)
        if len(self.time) == 1:
            return np.broadcast_to(self.position[0], (*t.shape, len(self.joint_names))).copy()
        i = np.clip(np.searchsorted(self.time, t, side="right") - 1, 0, len(self.time) - 2)
        step = self.time[i + 1] - self.time[i]
        u = ((t - self.time[i]) / step)[..., None]
        h = step[..., None]
        p0, p1, v0, v1 = (
            self.position[i],
            self.position[i + 1],
            self.velocity[i],
            self.velocity[i + 1],
        )
        moved = (3 * u**2 - 2 * u**3) * (p1 - p0)
        bent = h * ((u - 2 * u**2 + u**3) * v0 + (u**3 - u**2) * v1)
        result: Array = p0 + moved + bent
        return result

    def jerk(self) -> Array:
        """Return the jerk between points [T - 1, J], rad/s^3."""
        result: Array = np.diff(self.acceleration, axis=0) / np.diff(self.time)[:, None]
        return result

    def later(self, seconds: float) -> Trajectory:
        """Return this motion with time, s, for the way from where the arm is told to be to its
        first point."""
        return replace(self, time=self.time + seconds)

    def then(self, after: Trajectory) -> Trajectory:
        """Return this motion and, from where it ends, another.

        Raises:
            ValueError: the other one has other joints or starts elsewhere.
        """
        if after.joint_names != self.joint_names:
            raise ValueError(f"trajectory: {after.joint_names} cannot follow {self.joint_names}")
        gap = float(np.abs(after.position[0] - self.position[-1]).max())
        if gap > 1e-6:
            raise ValueError(f"trajectory: the next one starts {gap:.2g} rad from this one's end")
        return Trajectory(
            self.joint_names,
            np.concatenate([self.time, self.duration + after.time[1:]]),
            np.concatenate([self.position, after.position[1:]]),
            np.concatenate([self.velocity, after.velocity[1:]]),
            np.concatenate([self.acceleration, after.acceleration[1:]]),
        )
