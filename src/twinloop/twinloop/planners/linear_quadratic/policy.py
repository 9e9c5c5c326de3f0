# SPDX-License-Identifier: Apache-2.0
"""Time-varying linear-Gaussian feedback: u ~ N(K_t x + k_t, C_t)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearPolicy:
    """A policy over T steps of X state and U action elements.

    Attributes:
        gain: K [T, U, X].
        offset: k [T, U].
        covariance: C [T, U, U], positive definite; zero for a policy that only acts.

    Raises:
        ValueError: shapes that do not fit together, or values that are not finite.
    """

    gain: Array
    offset: Array
    covariance: Array

    def __post_init__(self) -> None:
        steps, size, _ = self.gain.shape
        for name, shape in (("offset", (steps, size)), ("covariance", (steps, size, size))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        for name in ("gain", "offset", "covariance"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"policy: {name} holds values that are NaN or infinite")

    @property
    def steps(self) -> int:
        return len(self.gain)

    def mean(self, step: int, state: Array) -> Array:
        """Return what is done at a step, the last one's feedback after the end: [..., X] ->
        [..., U]."""
        t = min(step, self.steps - 1)
        return np.asarray(state @ self.gain[t].T + self.offset[t])

    def sample(self, step: int, state: Array, noise: Array) -> Array:
        """Return the same with normal numbers [..., U] turned into the policy's own noise."""
        t = min(step, self.steps - 1)
        return self.mean(step, state) + noise @ np.linalg.cholesky(self.covariance[t]).T


def holding(steps: int, states: int, command: slice, deviation: Array) -> LinearPolicy:
    """Return the policy that repeats the command in force, with noise of a deviation [U]: a first
    policy where the state holds the command, which then wanders."""
    size = command.stop - command.start
    gain = np.zeros((steps, size, states))
    gain[:, np.arange(size), np.arange(command.start, command.stop)] = 1.0
    covariance = np.diag(np.square(np.broadcast_to(deviation, (size,))))
    return LinearPolicy(gain, np.zeros((steps, size)), np.tile(covariance, (steps, 1, 1)))
