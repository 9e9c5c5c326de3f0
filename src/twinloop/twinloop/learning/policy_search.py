# SPDX-License-Identifier: Apache-2.0
"""LQR-FLM: improve a linear-Gaussian policy from its own rollouts, iteration by iteration.

Each iteration fits linear-Gaussian dynamics to the rollouts of the policy, expands the cost about
them, and takes the best policy within a divergence of the one that made them ("LQR with fitted
linear models": Levine & Abbeel, NeurIPS 2014; arXiv 1504.00702; the name is that of Chebotar et
al., arXiv 1703.03078, and SOLAR, arXiv 1808.09105). How far it may go is adjusted by how much of
the predicted gain came true (arXiv 1504.00702, appendix A.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch.func import vmap

from twinloop.models.linear_gaussian import (
    DynamicsPrior,
    LinearGaussian,
    fit_dynamics,
    fit_prior,
)
from twinloop.planners.linear_quadratic.backward import expected_cost, forward
from twinloop.planners.linear_quadratic.cost import Cost, QuadraticCost, expand
from twinloop.planners.linear_quadratic.kl_bound import improve
from twinloop.planners.linear_quadratic.policy import LinearPolicy

Array = NDArray[np.float64]


class SearchSettings(BaseModel):
    """How a policy is improved.

    Attributes:
        divergence: nats a step that a policy may move in an iteration, before adjustment.
        least_factor, most_factor: bounds of that adjustment.
        components: Gaussians of the prior, at most.
        prior_strength: rollouts that the prior counts as.
        prior_rollouts: rollouts, the newest ones, that the prior is fitted to.
        calming: what a policy's noise is multiplied by after an iteration, beside what the bound
            makes of it. Costs that are sharp at the goal are blurred by noise, and the bound alone
            shrinks it slowly.
        least_deviation: of the noise in any direction, below which neither brings it; in the
            action's unit. What is left explores, and the next step is measured in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    divergence: float = Field(default=1.0, gt=0)
    least_factor: float = Field(default=0.5, gt=0)
    most_factor: float = Field(default=3.0, gt=0)
    components: int = Field(default=20, ge=1)
    prior_strength: float = Field(default=1.0, gt=0)
    prior_rollouts: int = Field(default=60, ge=2)
    calming: float = Field(default=1.0, gt=0, le=1)
    least_deviation: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class Iteration:
    """What one iteration found.

    Attributes:
        cost: mean over the rollouts it began with.
        predicted: expected cost of the new policy under the fitted dynamics and expanded cost.
        bound, divergence: nats over an episode that were allowed and used.
        temperature: of the bound, cost per nat.
        deviation: mean standard deviation of the new policy's noise.
    """

    cost: float
    predicted: float
    bound: float
    divergence: float
    temperature: float
    deviation: float


class Transitions:
    """The newest rollouts of all starts, from which the prior is made."""

    def __init__(self, settings: SearchSettings, seed: int) -> None:
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._states: list[Array] = []
        self._actions: list[Array] = []

    def add(self, states: Array, actions: Array) -> None:
        """Take rollouts [N, T+1, X], [N, T, U]."""
        keep = self._settings.prior_rollouts
        self._states = [*self._states, *states][-keep:]
        self._actions = [*self._actions, *actions][-keep:]

    def prior(self) -> DynamicsPrior:
        """Fit the prior to what is kept."""
        s = self._settings
        return fit_prior(
            np.stack(self._states),
            np.stack(self._actions),
            s.components,
            self._rng,
            s.prior_strength,
        )


class PolicySearch:
    """The policy of one start, and what improves it.

    Args:
        cost: of arriving at a state by an action; None where only what was paid is known.
        policy: the first one; its noise is the first exploration.
        settings: see `SearchSettings`.
    """

    def __init__(self, cost: Cost | None, policy: LinearPolicy, settings: SearchSettings) -> None:
        self.policy = policy
        self.dynamics: LinearGaussian | None = None
        self.factor = 1.0
        self._cost = cost
        self._settings = settings
        self._temperature = 1.0
        self._promised: tuple[float, float] | None = None  # cost before, gain that was predicted

    def learn(
        self,
        states: Array,
        actions: Array,
        prior: DynamicsPrior,
        observed: tuple[Array, QuadraticCost] | None = None,
    ) -> Iteration:
        """Take rollouts of the policy [N, T+1, X], [N, T, U] and replace it by a better one.

        Args:
            prior: of the dynamics.
            observed: what was paid [N, T], and a cost that was fitted to it, instead of the
                search's own.

        Raises:
            ValueError: rollouts of other shapes than the policy's, fewer than two, or a cost that
                is not finite.
        """
        if actions.shape[1:] != self.policy.offset.shape:
            raise ValueError(
                f"rollouts have actions {actions.shape[1:]}, the policy {self.policy.offset.shape}"
            )
        s = self._settings
        if observed is None:
            if self._cost is None:
                raise ValueError("a search without a cost needs to be told what was paid")
            each, quadratic = self.costs(states, actions), expand(self._cost, states, actions)
        else:
            each, quadratic = observed
        paid = float(each.sum(axis=1).mean())
        self._adjust(paid)
        dynamics = fit_dynamics(states, actions, prior)
        bound = s.divergence * self.factor * self.policy.steps
        found = improve(
            dynamics, quadratic, self.policy, bound, guess=self._temperature, tolerance=0.05
        )
        before = expected_cost(quadratic, forward(dynamics, self.policy))
        after = expected_cost(quadratic, found.marginals)
        self._promised = paid, before - after
        self._temperature = found.temperature
        self.policy = calmed(found.policy, s.calming, s.least_deviation)
        self.dynamics = dynamics
        deviation = np.sqrt(np.einsum("tuu->tu", self.policy.covariance)).mean()
        return Iteration(paid, after, bound, found.divergence, found.temperature, float(deviation))

    def costs(self, states: Array, actions: Array) -> Array:
        """Return what each step of rollouts cost: [N, T+1, X], [N, T, U] -> [N, T]."""
        if self._cost is None:
            raise ValueError("a search without a cost needs to be told what was paid")
        count, steps = actions.shape[:2]
        times = torch.arange(steps).repeat(count)
        paid = vmap(self._cost)(
            torch.from_numpy(states[:, 1:].reshape(count * steps, -1)),
            torch.from_numpy(actions.reshape(count * steps, -1)),
            times,
        )
        return np.asarray(paid.reshape(count, steps).numpy())

    def _adjust(self, paid: float) -> None:
        """Allow larger steps where the promised gain came true, smaller ones where it did not.

        The gain is modelled as linear in the step with a quadratic loss, as a trust region does;
        the factor is that of its maximum.
        """
        if self._promised is None:
            return
        before, promised = self._promised
        got = before - paid
        change = promised / max(2.0 * (promised - got), 1e-4 * abs(promised) + 1e-12)
        s = self._settings
        factor = self.factor * float(np.clip(change, 0.3, 3.0))
        self.factor = float(np.clip(factor, s.least_factor, s.most_factor))


def calmed(policy: LinearPolicy, factor: float, least: float) -> LinearPolicy:
    """Return a policy with its noise's deviation times a factor, but nowhere below the least."""
    if factor == 1.0 and least == 0.0:
        return policy
    values, vectors = np.linalg.eigh(policy.covariance)
    values = np.maximum(factor**2 * values, least**2)
    return replace(policy, covariance=(vectors * values[:, None]) @ vectors.swapaxes(1, 2))
