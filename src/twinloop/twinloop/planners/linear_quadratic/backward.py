# SPDX-License-Identifier: Apache-2.0
"""The linear-quadratic regulator over a finite horizon, and where a policy leads.

With `temperature` 0 it is the discrete Riccati recursion. With more, policies also cost their
divergence from a prior policy, temperature times KL(p || prior), which has the same solution with
another cost, and a covariance (Levine & Abbeel, NeurIPS 2014, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.models.linear_gaussian import LinearGaussian
from twinloop.planners.linear_quadratic.cost import QuadraticCost
from twinloop.planners.linear_quadratic.policy import LinearPolicy

Array = NDArray[np.float64]


class NotConvex(ValueError):
    """The cost-to-go has no minimum in the action."""


@dataclass(frozen=True)
class Marginals:
    """Distributions that a policy leads to.

    Attributes:
        state_mean, state_covariance: of x_t [T+1, X], [T+1, X, X].
        arrival_mean, arrival_covariance: of (x_t+1, u_t) [T, X+U], [T, X+U, X+U].
    """

    state_mean: Array
    state_covariance: Array
    arrival_mean: Array
    arrival_covariance: Array


def backward(
    dynamics: LinearGaussian,
    cost: QuadraticCost,
    prior: LinearPolicy | None = None,
    temperature: float = 0.0,
) -> LinearPolicy:
    """Return the policy that minimises E[cost] + temperature * KL(policy || prior).

    Its covariance is the temperature times the inverse curvature of the cost-to-go in the action.

    Raises:
        NotConvex: at a step, the cost-to-go does not bend up in every action.
        ValueError: a temperature above 0 without a prior.
    """
    if temperature > 0.0 and prior is None:
        raise ValueError(f"temperature is {temperature}, which needs a prior policy")
    steps, nx, nu = dynamics.steps, dynamics.state_size, dynamics.action_size
    gain, offset = np.empty((steps, nu, nx)), np.empty((steps, nu))
    covariance = np.zeros((steps, nu, nu))
    value, slope = np.zeros((nx, nx)), np.zeros(nx)
    arrive = np.zeros((nx + nu, nx + nu))  # (x, u) -> (x', u)
    arrive[nx:, nx:] = np.eye(nu)
    for t in reversed(range(steps)):
        bend, tilt = cost.hessian[t].copy(), cost.gradient[t].copy()
        bend[:nx, :nx] += value
        tilt[:nx] += slope
        arrive[:nx] = dynamics.transition[t]
        tilt = arrive.T @ (bend[:, :nx] @ dynamics.offset[t] + tilt)
        bend = arrive.T @ bend @ arrive
        if prior is not None and temperature > 0.0:
            more_bend, more_tilt = _divergence(prior, t)
            bend = bend + temperature * more_bend
            tilt = tilt + temperature * more_tilt
        inner = 0.5 * (bend[nx:, nx:] + bend[nx:, nx:].T)
        try:
            np.linalg.cholesky(inner)
        except np.linalg.LinAlgError:
            raise NotConvex(f"step {t}: the cost-to-go has no minimum in the action") from None
        inverse = np.linalg.inv(inner)
        gain[t] = -inverse @ bend[nx:, :nx]
        offset[t] = -inverse @ tilt[nx:]
        covariance[t] = temperature * 0.5 * (inverse + inverse.T)
        value = bend[:nx, :nx] + bend[:nx, nx:] @ gain[t]
        value = 0.5 * (value + value.T)
        slope = tilt[:nx] + bend[:nx, nx:] @ offset[t]
    return LinearPolicy(gain, offset, covariance)


def forward(dynamics: LinearGaussian, policy: LinearPolicy) -> Marginals:
    """Return the distributions of states and arrivals under a policy."""
    steps, nx, nu = dynamics.steps, dynamics.state_size, dynamics.action_size
    mean, spread = np.empty((steps + 1, nx)), np.empty((steps + 1, nx, nx))
    arrival, arrival_spread = np.empty((steps, nx + nu)), np.empty((steps, nx + nu, nx + nu))
    mean[0], spread[0] = dynamics.start_mean, dynamics.start_covariance
    arrive = np.zeros((nx + nu, nx + nu))
    arrive[nx:, nx:] = np.eye(nu)
    for t in range(steps):
        act = np.concatenate([np.eye(nx), policy.gain[t]])  # x -> (x, u)
        joint = act @ spread[t] @ act.T
        joint[nx:, nx:] += policy.covariance[t]
        place = act @ mean[t]
        place[nx:] += policy.offset[t]
        arrive[:nx] = dynamics.transition[t]
        arrival[t] = arrive @ place
        arrival[t, :nx] += dynamics.offset[t]
        after = arrive @ joint @ arrive.T
        after[:nx, :nx] += dynamics.noise[t]
        arrival_spread[t] = 0.5 * (after + after.T)
        mean[t + 1], spread[t + 1] = arrival[t, :nx], arrival_spread[t, :nx, :nx]
    return Marginals(mean, spread, arrival, arrival_spread)


def expected_cost(cost: QuadraticCost, marginals: Marginals) -> float:
    """Return the expected sum of costs over an episode."""
    z = marginals.arrival_mean
    return float(
        0.5 * np.einsum("tij,tij->", cost.hessian, marginals.arrival_covariance)
        + 0.5 * np.einsum("ti,tij,tj->", z, cost.hessian, z)
        + np.einsum("ti,ti->", cost.gradient, z)
        + cost.constant.sum()
    )


def _divergence(prior: LinearPolicy, t: int) -> tuple[Array, Array]:
    """Return hessian and gradient over (x, u) of -log prior(u | x)."""
    precision = np.linalg.inv(prior.covariance[t])
    miss = np.concatenate([-prior.gain[t], np.eye(len(precision))], axis=1)  # u - K x
    return miss.T @ precision @ miss, -miss.T @ precision @ prior.offset[t]
