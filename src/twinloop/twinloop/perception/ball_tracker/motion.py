# SPDX-License-Identifier: Apache-2.0
"""A Kalman filter for one ball whose position is known better across the view than along it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class BallMotion:
    """Position and velocity of a ball under white acceleration, with their full covariance.

    The process is that of `BallFilter` (Bar-Shalom, Li & Kirubarajan, "Estimation with Applications
    to Tracking and Navigation", 2001, 6.2.2); the axes are not independent.

    Args:
        position: where the ball was found [3], m.
        covariance: of it [3, 3], m^2.
        velocity_std: of a ball that was just found, m/s.
    """

    def __init__(self, position: Array, covariance: Array, velocity_std: float) -> None:
        self.state = np.concatenate([position, np.zeros(3)])
        self.covariance = np.zeros((6, 6))
        self.covariance[:3, :3] = covariance
        self.covariance[3:, 3:] = velocity_std**2 * np.eye(3)

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

    def predict(self, dt: float, acceleration_density: float) -> None:
        """Go on by `dt` [s] with an acceleration of this power density, m^2/s^3."""
        move = np.eye(6)
        move[:3, 3:] = dt * np.eye(3)
        noise = np.array([[dt**3 / 3.0, dt**2 / 2.0], [dt**2 / 2.0, dt]])
        self.state = move @ self.state
        self.covariance = move @ self.covariance @ move.T
        self.covariance += acceleration_density * np.kron(noise, np.eye(3))

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
