# SPDX-License-Identifier: Apache-2.0
"""Follows tracked balls with constant-velocity Kalman filters, many at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BallFilterSettings:
    """How balls move and how long one may be out of sight.

    Attributes:
        acceleration_density: power density of the white acceleration, m^2/s^3.
        measurement_std_m: standard deviation of a fully visible ball's position, per axis, m.
        bias_std_m: what no filtering removes, added to the reported covariance, per axis, m.
        initial_velocity_std: of a ball that was just found, m/s.
        stale_after_s: time out of sight after which a position is no evidence any more, s.
    """

    acceleration_density: float = 0.05
    measurement_std_m: float = 0.0005
    bias_std_m: float = 0.003
    initial_velocity_std: float = 0.1
    stale_after_s: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0.0):
                raise ValueError(f"ball filter: {field.name} is {value}, expected at least 0")


class BallFilter:
    """One filter per ball, for any batch of balls [...].

    The axes are independent: state (p, v), process noise of a white acceleration (Bar-Shalom,
    Li & Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, 6.2.2).
    A ball out of sight goes on at constant velocity until it is stale, then stays where it is.

    Args:
        shape: batch [...]; positions are [..., 3].
    """

    def __init__(self, shape: tuple[int, ...], settings: BallFilterSettings | None = None) -> None:
        self.settings = settings or BallFilterSettings()
        self.shape = shape
        self.position = np.zeros((*shape, 3))  # [m]
        self.velocity = np.zeros((*shape, 3))  # [m/s]
        self._variance = np.zeros((3, *shape, 3))  # pp [m^2], pv [m^2/s], vv [m^2/s^2]
        self.unseen_s = np.zeros(shape)  # [s]
        self.reset(self.position)

    def reset(self, position: ArrayLike, where: Any = ...) -> None:
        """Place balls `where` (an index into the batch) at rest at `position` [..., 3], m."""
        self.position[where] = position
        self.velocity[where] = 0.0
        self._variance[0][where] = self.settings.measurement_std_m**2
        self._variance[1][where] = 0.0
        self._variance[2][where] = self.settings.initial_velocity_std**2
        self.unseen_s[where] = 0.0

    def update(self, dt: float, measured: ArrayLike, visible_fraction: ArrayLike) -> None:
        """Advance by `dt` [s] and take in the balls that are seen.

        Args:
            measured: positions [..., 3], m; ignored where the ball is not seen.
            visible_fraction: [...], 0 where a ball is not seen; less of it is trusted less.

        Raises:
            ValueError: dt is not positive, or a ball that is seen has no finite position.
        """
        if not dt > 0.0:
            raise ValueError(f"ball filter: dt is {dt} s, expected more than 0")
        fraction = np.broadcast_to(np.asarray(visible_fraction, dtype=np.float64), self.shape)
        seen = fraction > 0.0
        if not np.isfinite(np.where(seen[..., None], measured, 0.0)).all():
            raise ValueError(f"ball filter: a visible ball at {measured!r}, expected finite metres")
        self._predict(dt)
        self._correct(np.asarray(measured, dtype=np.float64), fraction, seen)
        self.unseen_s = np.where(seen, 0.0, self.unseen_s + dt)
        self.velocity[self.is_stale] = 0.0

    def _predict(self, dt: float) -> None:
        pp, pv, vv = self._variance
        q = self.settings.acceleration_density
        self.position += self.velocity * dt
        pp += dt * (2.0 * pv + dt * vv) + q * dt**3 / 3.0
        pv += dt * vv + q * dt**2 / 2.0
        vv += q * dt

    def _correct(self, measured: Array, fraction: Array, seen: NDArray[np.bool_]) -> None:
        pp, pv, vv = self._variance
        safe = np.where(seen, fraction, 1.0)[..., None]
        noise = self.settings.measurement_std_m**2 / safe**2
        gain_p = np.where(seen[..., None], pp / (pp + noise), 0.0)
        gain_v = np.where(seen[..., None], pv / (pp + noise), 0.0)
        residual = np.where(seen[..., None], measured - self.position, 0.0)
        self.position += gain_p * residual
        self.velocity += gain_v * residual
        vv -= gain_v * pv
        pv -= gain_p * pv
        pp -= gain_p * pp

    @property
    def is_stale(self) -> NDArray[np.bool_]:
        """Whether a ball has been out of sight for too long [...]."""
        # Times of frames are sums of floats; a thousandth of a frame decides nothing.
        return self.unseen_s >= self.settings.stale_after_s - 1e-6

    def covariance(self) -> Array:
        """Covariance of (x, y, z, vx, vy, vz) [..., 6, 6], m and m/s."""
        result = np.zeros((*self.shape, 6, 6))
        for axis in range(3):
            result[..., axis, axis] = self._variance[0][..., axis] + self.settings.bias_std_m**2
            result[..., axis, axis + 3] = self._variance[1][..., axis]
            result[..., axis + 3, axis] = self._variance[1][..., axis]
            result[..., axis + 3, axis + 3] = self._variance[2][..., axis]
        return result

    def state(self) -> dict[str, Array]:
        """Copy of everything that `set_state` needs."""
        return {
            "position": self.position.copy(),
            "velocity": self.velocity.copy(),
            "variance": np.moveaxis(self._variance, 0, -1).copy(),
            "unseen_s": self.unseen_s.copy(),
        }

    def set_state(self, state: dict[str, Array], where: Any = ...) -> None:
        """Carry on from what `state` gave, for the balls `where`."""
        self.position[where] = state["position"]
        self.velocity[where] = state["velocity"]
        self._variance[:, where] = np.moveaxis(state["variance"], -1, 0)
        self.unseen_s[where] = state["unseen_s"]
