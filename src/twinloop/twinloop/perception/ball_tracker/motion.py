# SPDX-License-Identifier: Apache-2.0
"""How balls move in a palm that moves itself: a Kalman filter for one ball, and the palm's part.

A ball rides on the palm: along the palm's normal it hardly moves in the palm's frame, while the
wrist's motion, which the joints tell, carries it. Balls are therefore filtered in the palm frame,
and what the palm does to them is added where their velocity in the world is told.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class BallMotion:
    """Position and velocity of a ball in the palm frame, with their full covariance.

    Each axis has a white acceleration, and a velocity that decays (Singer-like; Bar-Shalom, Li &
    Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, 6.2.2 and 8.2).

    Args:
        position: where the ball was found [3], m.
        covariance: of it [3, 3], m^2.
        velocity_std: of a ball that was just found, per axis or for all, m/s.
    """

    def __init__(self, position: Array, covariance: Array, velocity_std: ArrayLike) -> None:
        self.state = np.concatenate([position, np.zeros(3)])
        self.covariance = np.zeros((6, 6))
        self.covariance[:3, :3] = covariance
        self.covariance[3:, 3:] = np.diag(np.broadcast_to(velocity_std, 3).astype(float) ** 2)

    @property
    def position(self) -> Array:
        return self.state[:3]

    @property
    def velocity(self) -> Array:
        return self.state[3:]

    @property
    def worst_std(self) -> float:
        """Standard deviation of the position along the axis that is known worst, m."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance[:3, :3])[-1]))

    def predict(self, dt: float, acceleration_density: ArrayLike, decay_s: ArrayLike) -> None:
        """Go on by `dt` [s].

        Args:
            acceleration_density: power density of the acceleration, per axis, m^2/s^3.
            decay_s: time in which velocities fall to 1 / e, per axis, s.
        """
        decay = np.broadcast_to(decay_s, 3).astype(float)
        kept = np.exp(-dt / decay)
        move = np.eye(6)
        move[:3, 3:] = np.diag(decay * (1.0 - kept))
        move[3:, 3:] = np.diag(kept)
        self.state = move @ self.state
        self.covariance = move @ self.covariance @ move.T
        self.disturb(dt, acceleration_density)

    def disturb(self, dt: float, acceleration_density: ArrayLike) -> None:
        """Allow for (more) acceleration of this density over the last `dt` [s], m^2/s^3."""
        noise = np.array([[dt**3 / 3.0, dt**2 / 2.0], [dt**2 / 2.0, dt]])
        density = np.broadcast_to(acceleration_density, 3).astype(float)
        self.covariance = self.covariance + np.kron(noise, np.diag(density))

    def distance(self, position: Array, covariance: Array) -> float:
        """Return the squared Mahalanobis distance of a measured position [3] with covariance."""
        residual = position - self.position
        spread = self.covariance[:3, :3] + covariance
        return float(residual @ np.linalg.solve(spread, residual))

    def correct(self, position: Array, covariance: Array) -> None:
        """Take in a measured position [3], m, with its covariance [3, 3], m^2."""
        spread = self.covariance[:3, :3] + covariance
        gain = np.linalg.solve(spread, self.covariance[:3]).T
        self.state = self.state + gain @ (position - self.position)
        kept = np.eye(6)
        kept[:, :3] -= gain
        # Joseph's form stays symmetric and positive.
        self.covariance = kept @ self.covariance @ kept.T + gain @ covariance @ gain.T


class PalmMotion:
    """Velocities of points that ride on the palm, from its poses at the exposures."""

    def __init__(self) -> None:
        self._stamps: list[float] = []
        self._poses: list[tuple[Array, Array]] = []

    def add(self, stamp_s: float, position: Array, rotation: Array) -> None:
        """Take in the palm's position [3], m, and rotation [3, 3] in the world."""
        self._stamps = [*self._stamps[-2:], stamp_s]
        self._poses = [*self._poses[-2:], (position, rotation)]

    def velocity(self, points: Array) -> Array:
        """Return velocities in the world, along the palm's axes [..., 3], m/s, of points [..., 3]
        of the palm frame, at the last pose; of the last pose alone nothing is known: zero."""
        places = [points @ rotation.T + position for position, rotation in self._poses]
        if len(places) < 2:
            return np.zeros_like(points)
        steps = np.diff(self._stamps)
        means = [(b - a) / dt for a, b, dt in zip(places, places[1:], steps, strict=False)]
        velocity = means[-1]
        if len(means) == 2:
            # A mean velocity is that of half a step ago; so much acceleration is added.
            velocity = velocity + (means[1] - means[0]) * steps[1] / (steps[0] + steps[1])
        return np.asarray(velocity @ self._poses[-1][1])
