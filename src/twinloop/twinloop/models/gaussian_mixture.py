# SPDX-License-Identifier: Apache-2.0
"""A mixture of Gaussians over points, and what it says of a few more of them before they are seen.

It is the prior of locally linear dynamics: fitted to the transitions of all times and of several
iterations, it tells how state, action and next state go together about a place (Levine & Abbeel,
"Learning Neural Network Policies with Guided Policy Search under Unknown Dynamics", NeurIPS 2014,
section 3.3; arXiv 1504.00702, appendix A.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FLOOR = 1e-6  # added to variances of points that are scaled to about 1


@dataclass(frozen=True)
class Mixture:
    """K Gaussians in D dimensions.

    Attributes:
        weights: shares [K], that sum to 1.
        means: [K, D].
        covariances: [K, D, D].
    """

    weights: Array
    means: Array
    covariances: Array

    def responsibilities(self, points: Array) -> Array:
        """Return how much each Gaussian accounts for each point: [N, D] -> [N, K], sums 1."""
        return self.accounted(points)[0]

    def log_likelihood(self, points: Array) -> float:
        """Return the mean log density of points [N, D]."""
        return self.accounted(points)[1]

    def accounted(self, points: Array) -> tuple[Array, float]:
        """Return responsibilities [N, K] and the mean log density of points [N, D], which cost as
        much together as each alone."""
        logs = self._log_densities(points)
        top = logs.max(axis=1, keepdims=True)
        share = np.exp(logs - top)
        total = share.sum(axis=1, keepdims=True)
        return share / total, float(np.mean(top + np.log(total)))

    def at(self, points: Array) -> tuple[Array, Array]:
        """Return mean [D] and covariance [D, D] of the mixture about points [N, D].

        The Gaussians are weighted by their mean responsibility for the points, and their common
        moments are taken: the normal-inverse-Wishart prior of the points' own distribution.
        """
        weight = self.responsibilities(points).mean(axis=0)
        mean = weight @ self.means
        away = self.means - mean
        covariance = np.einsum("k,kij->ij", weight, self.covariances)
        return mean, covariance + np.einsum("k,ki,kj->ij", weight, away, away)

    def _log_densities(self, points: Array) -> Array:
        """Return log (weight times density) [N, K]."""
        logs = np.empty((len(points), len(self.weights)))
        for k, (mean, whitening) in enumerate(zip(self.means, self._whitening, strict=True)):
            logs[:, k] = -0.5 * np.square((points - mean) @ whitening.T).sum(axis=1)
        half_log_precision = np.log(np.diagonal(self._whitening, axis1=1, axis2=2)).sum(axis=1)
        size = self.means.shape[1]
        constant = np.log(self.weights) + half_log_precision - 0.5 * size * np.log(2 * np.pi)
        return np.asarray(logs + constant)

    @cached_property
    def _whitening(self) -> Array:
        """Inverses of the covariances' Cholesky factors [K, D, D]."""
        return np.asarray(np.linalg.inv(np.linalg.cholesky(self.covariances)))


def fit_mixture(
    points: Array,
    components: int,
    rng: np.random.Generator,
    iterations: int = 30,
    tolerance: float = 1e-3,
) -> Mixture:
    """Fit a mixture to points [N, D] by expectation and maximisation.

    Points should be scaled to about 1: variances do not fall below 1e-6. A Gaussian that loses its
    points is dropped.

    Args:
        components: Gaussians to begin with, K.
        rng: draws the points that they begin at.
        iterations: at most.
        tolerance: of the mean log density, below whose gain an iteration is the last.

    Raises:
        ValueError: fewer than one component, or fewer points than components.
    """
    points = np.asarray(points, dtype=np.float64)
    if not 1 <= components <= len(points):
        raise ValueError(f"{components} Gaussians for {len(points)} points")
    share = _nearest(points, _spread_centers(points, components, rng))
    before = -np.inf
    mixture = _maximised(points, share)
    for _ in range(iterations):
        share, likelihood = mixture.accounted(points)
        if likelihood - before < tolerance:
            break
        before = likelihood
        mixture = _maximised(points, share)
    return mixture


def _spread_centers(points: Array, count: int, rng: np.random.Generator) -> Array:
    """Return points far from each other [count, D]: k-means++ (Arthur & Vassilvitskii, 2007)."""
    centers = [points[rng.integers(len(points))]]
    distance = np.square(points - centers[0]).sum(axis=1)
    while len(centers) < count:
        total = distance.sum()
        odds = distance / total if total > 0 else np.full(len(points), 1.0 / len(points))
        centers.append(points[rng.choice(len(points), p=odds)])
        distance = np.minimum(distance, np.square(points - centers[-1]).sum(axis=1))
    return np.stack(centers)


def _nearest(points: Array, centers: Array) -> Array:
    distance = np.square(points[:, None] - centers).sum(axis=2)
    return np.asarray(np.eye(len(centers))[distance.argmin(axis=1)])


def _maximised(points: Array, share: Array) -> Mixture:
    """Return the mixture that is likeliest under responsibilities [N, K]."""
    share = share[:, share.sum(axis=0) > 1e-3 * len(points) / share.shape[1]]
    mass = share.sum(axis=0)
    means = (share.T @ points) / mass[:, None]
    size = points.shape[1]
    covariances = np.empty((len(mass), size, size))
    for k, mean in enumerate(means):
        away = points - mean
        covariances[k] = (share[:, k, None] * away).T @ away / mass[k] + _FLOOR * np.eye(size)
    return Mixture(mass / mass.sum(), means, covariances)
