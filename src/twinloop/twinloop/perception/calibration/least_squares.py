# SPDX-License-Identifier: Apache-2.0
"""Least squares by Levenberg and Marquardt, for parameters that all views share and some of each.

Views are independent of each other but for what they share, so their own parameters are eliminated
first (Triggs et al., "Bundle adjustment: a modern synthesis", 2000, 6.1): however many views there
are, the system that is left is as small as what they share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_STEPS = 60
_CONVERGED = 1e-8  # relative change of the cost
_MOST_DAMPING, _LEAST_DAMPING = 1e12, 1e-12
_SINGULAR = 1e13


class Normal:
    """Normal equations of residuals r and their Jacobian J: sums of J^T J, J^T r and r^T r.

    Args:
        shared: number of parameters that are shared S.
        views: number of views V.
        own: number of parameters of each view P.
    """

    def __init__(self, shared: int, views: int = 0, own: int = 0) -> None:
        self.shared = np.zeros((shared, shared))
        self.mixed = np.zeros((views, shared, own))
        self.own = np.zeros((views, own, own))
        self.shared_gradient = np.zeros(shared)
        self.own_gradient = np.zeros((views, own))
        self.cost = 0.0
        self.count = 0

    def add(
        self,
        residuals: Array,
        shared: list[tuple[slice, Array]],
        view: int = 0,
        own: Array | None = None,
    ) -> None:
        """Add residuals [N].

        Args:
            shared: which shared parameters they depend on, with Jacobians [N, s].
            view: whose own parameters they depend on, with the Jacobian `own` [N, P]; None where
                they depend on none.
        """
        self.cost += float(residuals @ residuals)
        self.count += len(residuals)
        for place, jacobian in shared:
            self.shared_gradient[place] += jacobian.T @ residuals
            for other, more in shared:
                self.shared[place, other] += jacobian.T @ more
            if own is not None:
                self.mixed[view, place] += jacobian.T @ own
        if own is not None:
            self.own[view] += own.T @ own
            self.own_gradient[view] += own.T @ residuals


@dataclass(frozen=True)
class Solution:
    """Parameters that residuals are least at.

    Attributes:
        shared, own: the parameters [S] and [V, P].
        covariance: of the shared ones [S, S], for residuals of equal variance; 0 where held.
        own_covariance: of each view's own ones [V, P, P].
        sigma: standard deviation of the residuals.
    """

    shared: Array
    own: Array
    covariance: Array
    own_covariance: Array
    sigma: float


class NotSolvable(ValueError):
    """What was measured does not determine the parameters."""


def solve(
    evaluate: Callable[[Array, Array], Normal],
    shared: Array,
    own: Array | None = None,
    free: NDArray[np.bool_] | None = None,
) -> Solution:
    """Return the parameters of least cost (Nocedal & Wright, "Numerical Optimization", 10.3).

    Args:
        evaluate: normal equations at shared [S] and own parameters [V, P].
        shared, own: parameters to begin with.
        free: which of the shared ones may change [S]; all by default.

    Raises:
        NotSolvable: there are fewer residuals than parameters, or they leave some undetermined.
    """
    shared = shared.astype(np.float64)
    own = np.zeros((0, 0)) if own is None else own.astype(np.float64)
    chosen = np.flatnonzero(np.ones(len(shared), bool) if free is None else free)
    normal, damping = evaluate(shared, own), 1e-3
    parameters = len(chosen) + own.size
    if normal.count <= parameters:
        raise NotSolvable(f"{normal.count} residuals cannot tell {parameters} parameters")
    for _ in range(_STEPS):
        while True:
            step, own_step = _step(normal, chosen, damping)
            trial = shared.copy()
            trial[chosen] -= step
            attempt = evaluate(trial, own - own_step)
            if attempt.cost <= normal.cost or damping > _MOST_DAMPING:
                break
            damping *= 10.0
        if not attempt.cost <= normal.cost:
            break
        change = normal.cost - attempt.cost
        shared, own, normal = trial, own - own_step, attempt
        damping = max(damping / 10.0, _LEAST_DAMPING)
        if change <= _CONVERGED * normal.cost:
            break
    sigma = float(np.sqrt(normal.cost / (normal.count - parameters)))
    covariance, own_covariance = _covariances(normal, chosen)
    return Solution(shared, own, covariance * sigma**2, own_covariance * sigma**2, sigma)


def _step(normal: Normal, chosen: NDArray[np.intp], damping: float) -> tuple[Array, Array]:
    """Return the damped Gauss-Newton step of the chosen shared and of all own parameters."""
    own = _damped(normal.own, damping)
    mixed = normal.mixed[:, chosen]
    reduced, eliminated = _reduced(_damped(_within(normal, chosen), damping), mixed, own)
    gradient = normal.shared_gradient[chosen]
    gradient = gradient - np.einsum("vsp,vp->s", eliminated, normal.own_gradient)
    step = np.linalg.solve(reduced, gradient)
    rest = normal.own_gradient - np.einsum("vsp,s->vp", mixed, step)
    return step, np.linalg.solve(own, rest[..., None])[..., 0]


def _within(normal: Normal, chosen: NDArray[np.intp]) -> Array:
    return normal.shared[np.ix_(chosen, chosen)]


def _damped(matrix: Array, damping: float) -> Array:
    """Return matrices [..., P, P] with their diagonals enlarged by a share."""
    diagonal = np.einsum("...ii->...i", matrix)
    if diagonal.size == 0:
        return matrix
    least = 1e-12 * diagonal.max() + 1e-300
    return matrix + damping * np.maximum(diagonal, least)[..., None] * np.eye(matrix.shape[-1])


def _reduced(shared: Array, mixed: Array, own: Array) -> tuple[Array, Array]:
    """Return what is left of the shared matrix, and `mixed` by the inverse of `own` [V, S, P]."""
    try:
        eliminated = np.swapaxes(np.linalg.solve(own, np.swapaxes(mixed, 1, 2)), 1, 2)
    except np.linalg.LinAlgError as error:
        raise NotSolvable("a view leaves its own parameters undetermined") from error
    return shared - np.einsum("vsp,vtp->st", eliminated, mixed), eliminated


def _covariances(normal: Normal, chosen: NDArray[np.intp]) -> tuple[Array, Array]:
    """Return the covariances for residuals of unit variance: shared [S, S], own [V, P, P]."""
    reduced, eliminated = _reduced(_within(normal, chosen), normal.mixed[:, chosen], normal.own)
    # Units differ by orders of magnitude: only the scaled matrix tells what is undetermined.
    scale = np.sqrt(np.maximum(np.diag(reduced), 0.0))
    if not (scale > 0.0).all():
        raise NotSolvable("some parameters change nothing that was measured")
    scaled = reduced / np.outer(scale, scale)
    if np.linalg.cond(scaled) > _SINGULAR:
        raise NotSolvable("some parameters cannot be told apart from what was measured")
    inverse = np.linalg.inv(scaled) / np.outer(scale, scale)
    covariance = np.zeros_like(normal.shared)
    covariance[np.ix_(chosen, chosen)] = inverse
    spread = np.einsum("vsp,st,vtq->vpq", eliminated, inverse, eliminated)
    return covariance, np.linalg.inv(normal.own) + spread
