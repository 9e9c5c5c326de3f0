# SPDX-License-Identifier: Apache-2.0
"""The best policy within a divergence of the last one.

minimise E[cost] over p, subject to KL(p || last) <= bound: for each dual variable, the temperature
of `backward`, the minimum is a regulator's, and its divergence falls as the temperature rises; so
the temperature is found by bisection (Levine & Abbeel, NeurIPS 2014, section 3.1; arXiv 1504.00702,
appendix A.1). Both have the same dynamics, so the divergence of the trajectories is that of the
actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twinloop.models.linear_gaussian import LinearGaussian
from twinloop.planners.linear_quadratic.backward import Marginals, NotConvex, backward, forward
from twinloop.planners.linear_quadratic.cost import QuadraticCost
from twinloop.planners.linear_quadratic.policy import LinearPolicy

_LOWEST, _HIGHEST = 1e-12, 1e18


@dataclass(frozen=True)
class BoundedPolicy:
    """What was found.

    Attributes:
        temperature: the dual variable, cost per nat.
        divergence: from the last policy, nats, over the whole episode.
        marginals: of the policy under the dynamics.
    """

    policy: LinearPolicy
    temperature: float
    divergence: float
    marginals: Marginals


def divergence(policy: LinearPolicy, last: LinearPolicy, marginals: Marginals) -> float:
    """Return KL(policy || last) in nats over an episode, of which `policy` has the marginals."""
    total = 0.0
    for t in range(policy.steps):
        inverse = np.linalg.inv(last.covariance[t])
        turn = policy.gain[t] - last.gain[t]
        miss = turn @ marginals.state_mean[t] + policy.offset[t] - last.offset[t]
        spread = policy.covariance[t] + turn @ marginals.state_covariance[t] @ turn.T
        total += 0.5 * (
            float(np.einsum("ij,ji->", inverse, spread))
            + float(miss @ inverse @ miss)
            - len(miss)
            + _log_determinant(last.covariance[t])
            - _log_determinant(policy.covariance[t])
        )
    return total


def improve(
    dynamics: LinearGaussian,
    cost: QuadraticCost,
    last: LinearPolicy,
    bound: float,
    guess: float = 1.0,
    tolerance: float = 1e-3,
) -> BoundedPolicy:
    """Return the policy of lowest expected cost whose divergence from `last` is at most `bound`.

    Args:
        bound: nats over the whole episode.
        guess: temperature to begin the search at, such as that of the iteration before.
        tolerance: how far below the bound the divergence may end, as a share of it.

    Raises:
        ValueError: the bound is not positive, or no temperature keeps to it.
    """
    if not bound > 0.0:
        raise ValueError(f"bound of the divergence is {bound}, expected more than 0 nats")
    low, high = _bracket(dynamics, cost, last, bound, guess)
    found = _solve(dynamics, cost, last, high)
    assert found is not None
    while found.divergence < (1.0 - tolerance) * bound and high > low * (1.0 + 1e-12):
        middle = float(np.sqrt(low * high))
        tried = _solve(dynamics, cost, last, middle)
        if tried is None or tried.divergence > bound:
            low = middle
        else:
            high, found = middle, tried
        if not low < np.sqrt(low * high) < high:
            break
    return found


def _bracket(
    dynamics: LinearGaussian, cost: QuadraticCost, last: LinearPolicy, bound: float, guess: float
) -> tuple[float, float]:
    """Return a temperature that breaks the bound and one that keeps to it."""
    temperature = float(np.clip(guess, _LOWEST, _HIGHEST))
    keeps = _keeps(dynamics, cost, last, bound, temperature)
    factor = 0.1 if keeps else 10.0
    while _LOWEST <= temperature <= _HIGHEST:
        tried = temperature * factor
        if _keeps(dynamics, cost, last, bound, tried) != keeps:
            return (tried, temperature) if keeps else (temperature, tried)
        temperature = tried
    if keeps:
        return temperature, temperature
    raise ValueError(f"no temperature up to {_HIGHEST:g} keeps the divergence at {bound:g} nats")


def _keeps(
    dynamics: LinearGaussian,
    cost: QuadraticCost,
    last: LinearPolicy,
    bound: float,
    temperature: float,
) -> bool:
    found = _solve(dynamics, cost, last, temperature)
    return found is not None and found.divergence <= bound


def _solve(
    dynamics: LinearGaussian, cost: QuadraticCost, last: LinearPolicy, temperature: float
) -> BoundedPolicy | None:
    try:
        policy = backward(dynamics, cost, last, temperature)
    except NotConvex:
        return None
    marginals = forward(dynamics, policy)
    return BoundedPolicy(policy, temperature, divergence(policy, last, marginals), marginals)


def _log_determinant(matrix: np.ndarray) -> float:
    return 2.0 * float(np.log(np.diag(np.linalg.cholesky(matrix))).sum())
