# SPDX-License-Identifier: Apache-2.0
"""Least squares by Levenberg and Marquardt, for problems that sum up their normal equations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_STEPS = 60
_CONVERGED = 1e-8  # relative change of the cost
_MOST_DAMPING = 1e12


class Normal:
    """Normal equations of residuals r and their Jacobian J: sums of J^T J, J^T r and r^T r.

    Args:
        parameters: number of parameters P.
    """

    def __init__(self, parameters: int) -> None:
        self.matrix = np.zeros((parameters, parameters))
        self.gradient = np.zeros(parameters)
        self.cost = 0.0
        self.count = 0

    def add(self, residuals: Array, blocks: list[tuple[slice, Array]]) -> None:
        """Add residuals [N] that depend on some parameters: slices with their Jacobians [N, p]."""
        self.cost += float(residuals @ residuals)
        self.count += len(residuals)
        for place, jacobian in blocks:
            self.gradient[place] += jacobian.T @ residuals
            for other, more in blocks:
                self.matrix[place, other] += jacobian.T @ more


@dataclass(frozen=True)
class Solution:
    """Parameters that residuals are least at.

    Attributes:
        values: the parameters [P].
        covariance: of the parameters [P, P], for residuals of equal variance; 0 where held.
        sigma: standard deviation of the residuals.
    """

    values: Array
    covariance: Array
    sigma: float


class NotSolvable(ValueError):
    """What was measured does not determine the parameters."""


def solve(
    evaluate: Callable[[Array], Normal], start: Array, free: NDArray[np.bool_] | None = None
) -> Solution:
    """Return the parameters of least cost (Nocedal & Wright, "Numerical Optimization", 10.3).

    Args:
        evaluate: normal equations at parameters [P].
        start: parameters to begin with [P].
        free: which of them may change [P]; all by default.

    Raises:
        NotSolvable: there are fewer residuals than parameters, or they leave some undetermined.
    """
    chosen = np.flatnonzero(np.ones(len(start), bool) if free is None else free)
    values, normal, damping = start.astype(np.float64), evaluate(start), 1e-3
    if normal.count <= len(chosen):
        raise NotSolvable(f"{normal.count} residuals cannot tell {len(chosen)} parameters")
    for _ in range(_STEPS):
        matrix, gradient = normal.matrix[np.ix_(chosen, chosen)], normal.gradient[chosen]
        scale = np.maximum(np.diag(matrix), 1e-12 * np.diag(matrix).max())
        while True:
            trial = values.copy()
            trial[chosen] -= np.linalg.solve(matrix + damping * np.diag(scale), gradient)
            attempt = evaluate(trial)
            if attempt.cost <= normal.cost or damping > _MOST_DAMPING:
                break
            damping *= 10.0
        if not attempt.cost <= normal.cost:
            break
        change = normal.cost - attempt.cost
        values, normal, damping = trial, attempt, max(damping / 10.0, 1e-12)
        if change <= _CONVERGED * normal.cost:
            break
    sigma = float(np.sqrt(normal.cost / (normal.count - len(chosen))))
    return Solution(values, _covariance(normal.matrix, chosen) * sigma**2, sigma)


def _covariance(matrix: Array, chosen: NDArray[np.intp]) -> Array:
    inner = matrix[np.ix_(chosen, chosen)]
    # Units differ by orders of magnitude: only the scaled matrix tells what is undetermined.
    scale = np.sqrt(np.diag(inner))
    if not (scale > 0.0).all():
        raise NotSolvable("some parameters change nothing that was measured")
    scaled = inner / np.outer(scale, scale)
    if np.linalg.cond(scaled) > 1e13:
        raise NotSolvable("some parameters cannot be told apart from what was measured")
    result = np.zeros_like(matrix)
    result[np.ix_(chosen, chosen)] = np.linalg.inv(scaled) / np.outer(scale, scale)
    return result
