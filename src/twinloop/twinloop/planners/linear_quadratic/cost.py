# SPDX-License-Identifier: Apache-2.0
"""Quadratic costs of arriving, and the expansion of any differentiable cost into one.

A task's cost is that of arriving at a state by an action, c(x', u); so is the quadratic one here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, hessian, vmap

Array = NDArray[np.float64]

# Cost of one arrival: state after the step [X], action [U], step [] -> []. Twice differentiable.
Cost = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class QuadraticCost:
    """Over z = (x', u) of each step: ½ z' H_t z + g_t' z + c_t.

    Attributes:
        hessian: H [T, X + U, X + U], symmetric.
        gradient: g [T, X + U], at zero.
        constant: c [T].
    """

    hessian: Array
    gradient: Array
    constant: Array


def expand(cost: Cost, states: Array, actions: Array) -> QuadraticCost:
    """Expand a cost to second order at every sample, and take the mean of the samples.

    Curvatures are made positive semidefinite: a cost that bends down would send the policy to
    infinity. The mean over samples follows Levine & Abbeel's implementation (arXiv 1504.00702): it
    smooths what one expansion at the mean would take at its word.

    Args:
        states: [N, T+1, X]. actions: [N, T, U].

    Raises:
        ValueError: the cost or a derivative is not finite at a sample.
    """
    count, steps, action_size = actions.shape
    state_size = states.shape[2]
    arrivals = np.concatenate([states[:, 1:], actions], axis=2)
    points = torch.from_numpy(arrivals.reshape(-1, state_size + action_size))
    times = torch.arange(steps).repeat(count)

    def joint(point: Tensor, step: Tensor) -> Tensor:
        return cost(point[:state_size], point[state_size:], step)

    value = vmap(joint)(points, times)
    slope = vmap(grad(joint))(points, times)
    bend = vmap(hessian(joint))(points, times)
    for name, found in (("value", value), ("gradient", slope), ("hessian", bend)):
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"the cost's {name} is not finite at {points[0].tolist()} or after")
    curvature, g = _positive(bend.numpy()), slope.numpy()
    z = points.numpy()
    product = np.einsum("nij,nj->ni", curvature, z)
    gradient = g - product
    constant = value.numpy() - np.einsum("ni,ni->n", g, z) + 0.5 * np.einsum("ni,ni->n", z, product)

    def mean(rows: Array) -> Array:
        return np.asarray(rows.reshape(count, steps, *rows.shape[1:]).mean(axis=0))

    return QuadraticCost(mean(curvature), mean(gradient), mean(constant))


def _positive(matrices: Array) -> Array:
    """Return symmetric matrices [M, Z, Z] without their negative eigenvalues."""
    values, vectors = np.linalg.eigh(0.5 * (matrices + matrices.swapaxes(1, 2)))
    scaled = vectors * np.maximum(values, 0.0)[:, None]
    return np.asarray(scaled @ vectors.swapaxes(1, 2))
