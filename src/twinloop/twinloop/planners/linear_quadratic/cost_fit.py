# SPDX-License-Identifier: Apache-2.0
"""A quadratic cost from what was paid alone, where nobody wrote the cost down.

Such as a key press at success, and nothing else (SOLAR, arXiv 1808.09105, section 5.2, learns its
cost from rewards as well).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinloop.planners.linear_quadratic.cost import QuadraticCost

Array = NDArray[np.float64]


def fit_cost(states: Array, paid: Array, steps: int, actions: int, ridge: float) -> QuadraticCost:
    """Fit one convex quadratic over states to the costs of arriving at them.

    A regression over the products of the scaled states, whose curvature is made positive
    semidefinite, after which the rest is fitted again. It is the same at all steps, and does not
    depend on actions.

    Args:
        states: that were arrived at [M, X].
        paid: for each [M].
        steps, actions: T and U of the result.
        ridge: weight of the curvature's and the slope's squares, as a share of the points.

    Raises:
        ValueError: shapes that do not fit together, or a ridge that is not positive.
    """
    count, size = states.shape
    if paid.shape != (count,) or not ridge > 0.0:
        raise ValueError(f"{count} states with costs {paid.shape} and a ridge of {ridge}")
    center, scale = states.mean(axis=0), states.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    z = (states - center) / scale
    rows, columns = np.triu_indices(size)
    products = z[:, rows] * z[:, columns]
    found = _ridge(np.hstack([products, z]), paid, ridge)
    curvature = np.zeros((size, size))
    curvature[rows, columns] = found[: len(rows)]
    curvature = curvature + curvature.T  # ½ z' H z gives each product once
    values, vectors = np.linalg.eigh(curvature)
    curvature = (vectors * np.maximum(values, 0.0)) @ vectors.T
    bent = 0.5 * np.einsum("mi,ij,mj->m", z, curvature, z)
    found = _ridge(z, paid - bent, ridge)
    hessian = np.zeros((size + actions, size + actions))
    hessian[:size, :size] = curvature / np.outer(scale, scale)
    gradient = np.zeros(size + actions)
    slope = found[:size] / scale
    gradient[:size] = slope - hessian[:size, :size] @ center
    constant = float(found[-1]) - slope @ center + 0.5 * center @ hessian[:size, :size] @ center
    return QuadraticCost(
        np.tile(hessian, (steps, 1, 1)), np.tile(gradient, (steps, 1)), np.full(steps, constant)
    )


def success_cost(
    states: Array, succeeded: NDArray[np.bool_], steps: int, actions: int, share: float = 0.05
) -> QuadraticCost:
    """Return how unlikely a state is among those in which success was told: -log of their Gaussian,
    but for its constant.

    Where rewards are rare, a regression over all states says little; where they were given says
    what is wanted, in every direction as sharply as they agree.

    Args:
        states: that were arrived at [M, X].
        succeeded: whether success was told there [M].
        steps, actions: T and U of the result.
        share: of the covariance of all states that is added to that of successes, which are few.

    Raises:
        ValueError: success was told nowhere, or shapes do not fit together.
    """
    count, size = states.shape
    if succeeded.shape != (count,) or not succeeded.any():
        raise ValueError(f"{count} states with {int(succeeded.sum())} successes, expected some")
    chosen = states[succeeded]
    mean = chosen.mean(axis=0)
    away = states - states.mean(axis=0)
    spread = (chosen - mean).T @ (chosen - mean) / len(chosen)
    # A goal that stays has no variance, and must not outweigh all that moves.
    spread += share * np.diag(np.square(away).mean(axis=0) + 1e-8)
    hessian = np.zeros((size + actions, size + actions))
    precision = np.linalg.inv(spread)
    hessian[:size, :size] = 0.5 * (precision + precision.T)
    gradient = np.zeros(size + actions)
    gradient[:size] = -hessian[:size, :size] @ mean
    constant = 0.5 * float(mean @ hessian[:size, :size] @ mean)
    return QuadraticCost(
        np.tile(hessian, (steps, 1, 1)), np.tile(gradient, (steps, 1)), np.full(steps, constant)
    )


def evaluate(cost: QuadraticCost, states: Array, actions: Array) -> Array:
    """Return what a quadratic cost says of rollouts: [N, T+1, X], [N, T, U] -> [N, T]."""
    z = np.concatenate([states[:, 1:], actions], axis=2)
    bent = 0.5 * np.einsum("nti,tij,ntj->nt", z, cost.hessian, z)
    return np.asarray(bent + np.einsum("ti,nti->nt", cost.gradient, z) + cost.constant)


def _ridge(features: Array, wanted: Array, ridge: float) -> Array:
    """Return weights [F + 1], the constant last, which alone costs nothing."""
    count = len(features)
    mean = features.mean(axis=0)
    away = features - mean
    normal = away.T @ away / count + ridge * np.eye(features.shape[1])
    weights = np.linalg.solve(normal, away.T @ (wanted - wanted.mean()) / count)
    return np.append(weights, wanted.mean() - weights @ mean)
