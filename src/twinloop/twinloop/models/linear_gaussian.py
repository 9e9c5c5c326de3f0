# SPDX-License-Identifier: Apache-2.0
"""Time-varying linear-Gaussian dynamics, fitted to a handful of rollouts.

At every step t of an episode, x' ~ N(F_t [x; u] + f_t, S_t). A few rollouts are too few for a
regression at each step, so a mixture of Gaussians that has seen the transitions of all steps gives
each of them its prior (Levine & Abbeel, NeurIPS 2014, section 3; arXiv 1504.00702, appendix A.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.models.gaussian_mixture import Mixture, fit_mixture

Array = NDArray[np.float64]

_RIDGE = 1e-6  # of the regression, in units of the scaled points
_POINTS_A_GAUSSIAN = 40  # at least


@dataclass(frozen=True)
class LinearGaussian:
    """Dynamics over T steps of X state and U action elements.

    Attributes:
        transition: F [T, X, X + U]; state first, then action.
        offset: f [T, X].
        noise: covariance of the next state [T, X, X].
        start_mean, start_covariance: of the first state [X], [X, X].

    Raises:
        ValueError: shapes that do not fit together, or values that are not finite.
    """

    transition: Array
    offset: Array
    noise: Array
    start_mean: Array
    start_covariance: Array

    def __post_init__(self) -> None:
        steps, size, _ = self.transition.shape
        expected = {
            "offset": (steps, size),
            "noise": (steps, size, size),
            "start_mean": (size,),
            "start_covariance": (size, size),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        for name in ("transition", *expected):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} holds values that are NaN or infinite")

    @property
    def steps(self) -> int:
        return len(self.transition)

    @property
    def state_size(self) -> int:
        return int(self.transition.shape[1])

    @property
    def action_size(self) -> int:
        return int(self.transition.shape[2] - self.transition.shape[1])


@dataclass(frozen=True)
class DynamicsPrior:
    """What is known of transitions before a step's own are looked at.

    Attributes:
        mixture: over scaled (x, u, x') [D].
        center, scale: of the points [D]; scaled = (point - center) / scale.
        strength: how many of a step's own transitions the prior counts as.
    """

    mixture: Mixture
    center: Array
    scale: Array
    strength: float


def fit_prior(
    states: Array,
    actions: Array,
    components: int,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> DynamicsPrior:
    """Fit the prior to rollouts, of any iterations and starts: [N, T+1, X], [N, T, U].

    Args:
        components: Gaussians at most; fewer where there are not 40 points for each.
        strength: see `DynamicsPrior`.
    """
    points = _transitions(states, actions).reshape(-1, 2 * states.shape[2] + actions.shape[2])
    center = points.mean(axis=0)
    scale = points.std(axis=0)
    # What never changes must not be divided by its rounding error.
    scale = np.where(scale > 1e-6 * np.maximum(np.abs(center), 1e-3), scale, 1.0)
    count = int(np.clip(len(points) // _POINTS_A_GAUSSIAN, 1, components))
    mixture = fit_mixture((points - center) / scale, count, rng)
    return DynamicsPrior(mixture, center, scale, strength)


def fit_dynamics(
    states: Array, actions: Array, prior: DynamicsPrior | None = None
) -> LinearGaussian:
    """Fit dynamics to N rollouts of one start: [N, T+1, X], [N, T, U].

    Each step's transitions are taken as draws of one Gaussian over (x, u, x'), whose covariance
    has the prior's normal-inverse-Wishart; conditioned on (x, u) it gives the dynamics. The first
    state's covariance gets that of the prior too, since N samples of it may have rank below X.

    Raises:
        ValueError: fewer than two rollouts, or shapes that do not fit together.
    """
    states, actions = (np.asarray(part, dtype=np.float64) for part in (states, actions))
    count, steps, size = states.shape[0], actions.shape[1], states.shape[2]
    if count < 2 or states.shape[1] != steps + 1 or len(actions) != count:
        raise ValueError(
            f"rollouts are states {states.shape} and actions {actions.shape}, expected "
            "[N, T+1, X] and [N, T, U] with N of at least 2"
        )
    points = _transitions(states, actions)
    if prior is None:
        flat = points.reshape(-1, points.shape[2])
        center, scale = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-9)
    else:
        center, scale = prior.center, prior.scale
    scaled = (points - center) / scale
    inputs = size + actions.shape[2]
    transition = np.empty((steps, size, inputs))
    offset = np.empty((steps, size))
    noise = np.empty((steps, size, size))
    for t in range(steps):
        mean, covariance = _posterior(scaled[:, t], prior)
        known = covariance[:inputs, :inputs] + _RIDGE * np.eye(inputs)
        slope = np.linalg.solve(known, covariance[:inputs, inputs:]).T
        rest = covariance[inputs:, inputs:] - slope @ known @ slope.T
        units_in, units_out = scale[:inputs], scale[inputs:]
        transition[t] = units_out[:, None] * slope / units_in
        middle = center + scale * mean
        offset[t] = middle[inputs:] - transition[t] @ middle[:inputs]
        noise[t] = units_out[:, None] * _positive(rest) * units_out
    first = states[:, 0]
    start = np.cov(first.T, bias=True).reshape(size, size)
    start[np.diag_indices(size)] += np.square(1e-3 * scale[:size])
    return LinearGaussian(transition, offset, noise, first.mean(axis=0), start)


def _transitions(states: Array, actions: Array) -> Array:
    """Return (x, u, x') of every step: [N, T, 2 X + U]."""
    return np.concatenate([states[:, :-1], actions, states[:, 1:]], axis=2)


def _posterior(points: Array, prior: DynamicsPrior | None) -> tuple[Array, Array]:
    """Return mean [D] and covariance [D, D] of a step's points [N, D], with the prior's say."""
    count = len(points)
    mean = points.mean(axis=0)
    away = points - mean
    scatter = away.T @ away
    if prior is None:
        return mean, scatter / count
    expected, spread = prior.mixture.at(points)
    weight = prior.strength
    shift = mean - expected
    covariance = (
        weight * spread + scatter + count * weight / (count + weight) * np.outer(shift, shift)
    ) / (count + weight)
    return mean, covariance


def _positive(matrix: Array, floor: float = 1e-8) -> Array:
    """Return the symmetric part of a matrix with eigenvalues of at least `floor`."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)
