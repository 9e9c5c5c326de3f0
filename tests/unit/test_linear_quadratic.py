# SPDX-License-Identifier: Apache-2.0
"""LQR-FLM's mathematics: against the Riccati recursion, a dense solve, and known dynamics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from twinloop.learning.policy_search import calmed
from twinloop.models.gaussian_mixture import fit_mixture
from twinloop.models.linear_gaussian import LinearGaussian, fit_dynamics, fit_prior
from twinloop.planners.linear_quadratic.backward import (
    NotConvex,
    backward,
    expected_cost,
    forward,
)
from twinloop.planners.linear_quadratic.cost import QuadraticCost, expand
from twinloop.planners.linear_quadratic.kl_bound import divergence, improve
from twinloop.planners.linear_quadratic.policy import LinearPolicy, holding

torch.set_num_threads(1)


def problem(
    steps: int = 3, nx: int = 2, nu: int = 1, seed: int = 0
) -> tuple[LinearGaussian, QuadraticCost, LinearPolicy]:
    """Random stable dynamics, convex cost and policy."""
    rng = np.random.default_rng(seed)

    def positive(count: int, size: int, least: float) -> np.ndarray:
        root = rng.normal(size=(count, size, size))
        return root @ root.swapaxes(1, 2) / size + least * np.eye(size)

    dynamics = LinearGaussian(
        rng.normal(size=(steps, nx, nx + nu)) * 0.6,
        rng.normal(size=(steps, nx)) * 0.3,
        0.05 * positive(steps, nx, 0.5),
        rng.normal(size=nx),
        0.1 * positive(1, nx, 0.5)[0],
    )
    cost = QuadraticCost(
        positive(steps, nx + nu, 0.1), rng.normal(size=(steps, nx + nu)), np.zeros(steps)
    )
    policy = LinearPolicy(
        0.3 * rng.normal(size=(steps, nu, nx)),
        0.3 * rng.normal(size=(steps, nu)),
        positive(steps, nu, 0.3),
    )
    return dynamics, cost, policy


def constant_problem(steps: int) -> tuple[LinearGaussian, QuadraticCost]:
    a = np.array([[1.0, 0.1], [0.0, 0.95]])
    b = np.array([[0.005], [0.1]])
    dynamics = LinearGaussian(
        np.tile(np.hstack([a, b]), (steps, 1, 1)),
        np.zeros((steps, 2)),
        np.tile(1e-4 * np.eye(2), (steps, 1, 1)),
        np.array([1.0, 0.0]),
        1e-3 * np.eye(2),
    )
    weights = np.diag([1.0, 0.1, 0.05])
    cost = QuadraticCost(np.tile(weights, (steps, 1, 1)), np.zeros((steps, 3)), np.zeros(steps))
    return dynamics, cost


def test_gains_are_those_of_the_riccati_recursion_and_of_its_fixed_point() -> None:
    steps = 400
    dynamics, cost = constant_problem(steps)
    policy = backward(dynamics, cost)
    a, b = dynamics.transition[0, :, :2], dynamics.transition[0, :, 2:]
    q, r = np.diag([1.0, 0.1]), np.array([[0.05]])
    # The textbook's form, by the value P of a state that has its own cost.
    p = q
    for t in reversed(range(steps)):
        gain = -np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
        np.testing.assert_allclose(policy.gain[t], gain, rtol=1e-9, atol=1e-12)
        p = q + a.T @ p @ a + a.T @ p @ b @ gain
    np.testing.assert_allclose(policy.offset, 0.0, atol=1e-12)
    # The fixed point solves the algebraic equation.
    residual = q + a.T @ p @ a - a.T @ p @ b @ np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a) - p
    assert np.abs(residual).max() < 1e-9
    np.testing.assert_allclose(policy.gain[0], policy.gain[100], rtol=1e-9)


def test_a_loose_bound_gives_the_riccati_gains_and_a_tight_one_the_last_policy() -> None:
    dynamics, cost, last = problem(steps=5, nx=3, nu=2)
    free = backward(dynamics, cost)
    loose = improve(dynamics, cost, last, bound=100.0).policy
    np.testing.assert_allclose(loose.gain, free.gain, atol=1e-6)
    np.testing.assert_allclose(loose.offset, free.offset, atol=1e-6)
    tight = improve(dynamics, cost, last, bound=1e-8).policy
    np.testing.assert_allclose(tight.gain, last.gain, atol=1e-3)
    np.testing.assert_allclose(tight.covariance, last.covariance, rtol=1e-2)


class Dense:
    """The KL-bounded problem written down whole: one Gaussian over (x_0, u_0, x_1, ..., x_T), and
    the policy's parameters as one vector that a general optimiser changes."""

    def __init__(self, dynamics: LinearGaussian, cost: QuadraticCost, last: LinearPolicy) -> None:
        self.dynamics, self.cost = dynamics, cost
        self.t, self.nu, self.nx = last.gain.shape
        self.last = self.joint(
            *(torch.tensor(p) for p in (last.gain, last.offset)),
            torch.linalg.cholesky(torch.tensor(last.covariance)),
        )

    def joint(self, gain: Tensor, offset: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the whole trajectory, from y = M y + c + noise."""
        nx, nu, each = self.nx, self.nu, self.nx + self.nu
        size = self.t * each + nx
        d = self.dynamics
        m, c = torch.zeros(size, size).double(), torch.zeros(size).double()
        noise = torch.zeros(size, size).double()
        c[:nx] = torch.tensor(d.start_mean)
        noise[:nx, :nx] = torch.tensor(d.start_covariance)
        for t in range(self.t):
            x = slice(t * each, t * each + nx)
            u = slice(x.stop, x.stop + nu)
            after = slice(u.stop, u.stop + nx)
            m[u, x], c[u], noise[u, u] = gain[t], offset[t], root[t] @ root[t].T
            m[after, x.start : u.stop] = torch.tensor(d.transition[t])
            c[after] = torch.tensor(d.offset[t])
            noise[after, after] = torch.tensor(d.noise[t])
        inverse = torch.linalg.inv(torch.eye(size).double() - m)
        return inverse @ c, inverse @ noise @ inverse.T

    def figures(self, gain: Tensor, offset: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """Expected cost and divergence from the last policy."""
        mean, covariance = self.joint(gain, offset, root)
        each, cost = self.nx + self.nu, torch.zeros(()).double()
        for t in range(self.t):
            u = torch.arange(t * each + self.nx, (t + 1) * each)
            after = torch.arange((t + 1) * each, (t + 1) * each + self.nx)
            z = torch.cat([after, u])
            h, g = torch.tensor(self.cost.hessian[t]), torch.tensor(self.cost.gradient[t])
            cost = cost + 0.5 * (h * covariance[z][:, z]).sum() + g @ mean[z]
            cost = cost + 0.5 * mean[z] @ h @ mean[z]
        last_mean, last_covariance = self.last
        away = mean - last_mean
        inverse = torch.linalg.inv(last_covariance)
        kl = 0.5 * (
            (inverse * covariance).sum()
            + away @ inverse @ away
            - len(mean)
            + torch.logdet(last_covariance)
            - torch.logdet(covariance)
        )
        return cost, kl

    def unpack(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sizes = [self.t * self.nu * self.nx, self.t * self.nu, self.t * self.nu * self.nu]
        gain, offset, root = vector.split(sizes)
        root = torch.tril(root.reshape(self.t, self.nu, self.nu))
        return gain.reshape(self.t, self.nu, self.nx), offset.reshape(self.t, self.nu), root

    def solve(self, start: LinearPolicy, bound: float) -> tuple[Tensor, float]:
        """Return the parameters and the multiplier at which the gradient of the Lagrangian is zero:
        a few steps of an augmented Lagrangian, and Newton's on what is then nearly zero."""
        root = np.linalg.cholesky(start.covariance)
        parts = [start.gain.ravel(), start.offset.ravel(), root.ravel()]
        vector = torch.tensor(np.concatenate(parts), requires_grad=True)

        def lagrangian(vector: Tensor, multiplier: Tensor | float, weight: float = 0.0) -> Tensor:
            cost, kl = self.figures(*self.unpack(vector))
            upper = torch.triu(vector[-root.size :].reshape(root.shape), 1)  # counts for nothing
            return (
                cost + multiplier * (kl - bound) + weight * (kl - bound) ** 2 + upper.square().sum()
            )

        multiplier = 1.0
        for _ in range(3):
            search = torch.optim.LBFGS([vector], max_iter=60, line_search_fn="strong_wolfe")

            def closure(search=search, multiplier=multiplier) -> Tensor:
                search.zero_grad()
                total = lagrangian(vector, multiplier, weight=5.0)
                total.backward()
                return total

            search.step(closure)
            multiplier += 10.0 * (float(self.figures(*self.unpack(vector.detach()))[1]) - bound)
        point = torch.cat([vector.detach(), torch.tensor([multiplier]).double()])

        def whole(point: Tensor) -> Tensor:
            return lagrangian(point[:-1], point[-1])

        for _ in range(6):
            slope = torch.func.grad(whole)(point)
            point = point - torch.linalg.solve(torch.func.hessian(whole)(point), slope)
        assert float(torch.func.grad(whole)(point).abs().max()) < 1e-9
        return point[:-1], float(point[-1])


@pytest.mark.parametrize(("steps", "nx", "nu", "bound"), [(3, 2, 1, 0.5), (2, 1, 2, 3.0)])
def test_the_bounded_policy_is_that_of_a_dense_solve(steps, nx, nu, bound) -> None:
    dynamics, cost, last = problem(steps, nx, nu, seed=3)
    dense = Dense(dynamics, cost, last)
    vector, multiplier = dense.solve(last, bound)
    gain, offset, root = dense.unpack(vector)
    best, kl = dense.figures(gain, offset, root)
    found = improve(dynamics, cost, last, bound, tolerance=1e-9)
    assert float(kl) == pytest.approx(bound, rel=1e-8)
    assert found.divergence == pytest.approx(bound, rel=1e-8)
    assert expected_cost(cost, found.marginals) == pytest.approx(float(best), abs=1e-7)
    assert found.temperature == pytest.approx(multiplier, rel=1e-6)
    np.testing.assert_allclose(found.policy.gain, gain, atol=1e-6)
    np.testing.assert_allclose(found.policy.offset, offset, atol=1e-6)
    np.testing.assert_allclose(found.policy.covariance, root @ root.mT, atol=1e-6)


def test_divergence_is_that_of_the_whole_trajectories() -> None:
    dynamics, cost, last = problem(steps=4, nx=3, nu=2, seed=5)
    other = problem(steps=4, nx=3, nu=2, seed=6)[2]
    dense = Dense(dynamics, cost, last)
    root = torch.linalg.cholesky(torch.tensor(other.covariance))
    wanted_cost, wanted = dense.figures(torch.tensor(other.gain), torch.tensor(other.offset), root)
    marginals = forward(dynamics, other)
    assert divergence(other, last, marginals) == pytest.approx(float(wanted), rel=1e-9)
    assert expected_cost(cost, marginals) == pytest.approx(float(wanted_cost), rel=1e-9)


def test_a_cost_that_bends_down_is_refused_and_a_bound_must_be_positive() -> None:
    dynamics, cost, last = problem()
    bent = QuadraticCost(-10 * cost.hessian, cost.gradient, cost.constant)
    with pytest.raises(NotConvex, match="no minimum"):
        backward(dynamics, bent)
    # Near enough to the last policy, it is still solved.
    assert improve(dynamics, bent, last, bound=1e-3).divergence <= 1e-3
    with pytest.raises(ValueError, match="bound of the divergence is 0"):
        improve(dynamics, cost, last, bound=0.0)
    with pytest.raises(ValueError, match="needs a prior"):
        backward(dynamics, cost, temperature=1.0)


def test_the_expansion_of_a_quadratic_is_itself_wherever_the_samples_are() -> None:
    rng = np.random.default_rng(0)
    weights = torch.tensor([[2.0, 0.3, 0.1], [0.3, 1.0, 0.0], [0.1, 0.0, 0.5]]).double()
    tilt = torch.tensor([1.0, -1.0, 0.2]).double()

    def cost(state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        z = torch.cat([state, action])
        return (1.0 + step) * (0.5 * z @ weights @ z + tilt @ z + 3.0)

    found = expand(cost, rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 5, 1)))
    scale = 1.0 + np.arange(5)
    np.testing.assert_allclose(found.hessian, scale[:, None, None] * weights.numpy(), atol=1e-12)
    np.testing.assert_allclose(found.gradient, scale[:, None] * tilt.numpy(), atol=1e-12)
    np.testing.assert_allclose(found.constant, 3.0 * scale, atol=1e-12)
    with pytest.raises(ValueError, match="not finite"):
        expand(lambda x, u, t: torch.log(-x.square().sum()), np.ones((2, 3, 1)), np.ones((2, 2, 1)))


def rollouts(
    dynamics: LinearGaussian, policy: LinearPolicy, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    nx, nu, steps = dynamics.state_size, dynamics.action_size, dynamics.steps
    states, actions = np.empty((count, steps + 1, nx)), np.empty((count, steps, nu))
    states[:, 0] = rng.multivariate_normal(
        dynamics.start_mean, dynamics.start_covariance, size=count
    )
    for t in range(steps):
        actions[:, t] = policy.sample(t, states[:, t], rng.normal(size=(count, nu)))
        z = np.concatenate([states[:, t], actions[:, t]], axis=1)
        noise = rng.multivariate_normal(np.zeros(nx), dynamics.noise[t], size=count)
        states[:, t + 1] = z @ dynamics.transition[t].T + dynamics.offset[t] + noise
    return states, actions


def test_many_rollouts_give_the_dynamics_back() -> None:
    dynamics, _, policy = problem(steps=4, nx=3, nu=2, seed=1)
    found = fit_dynamics(*rollouts(dynamics, policy, 20_000, seed=0))
    np.testing.assert_allclose(found.transition, dynamics.transition, atol=0.03)
    np.testing.assert_allclose(found.offset, dynamics.offset, atol=0.03)
    np.testing.assert_allclose(found.noise, dynamics.noise, atol=0.005)
    np.testing.assert_allclose(found.start_mean, dynamics.start_mean, atol=0.02)


def test_with_few_rollouts_the_prior_finds_the_dynamics_that_they_alone_do_not() -> None:
    dynamics, _ = constant_problem(20)
    policy = LinearPolicy(
        np.tile([[-1.0, -1.0]], (20, 1, 1)), np.zeros((20, 1)), np.tile([[0.04]], (20, 1, 1))
    )
    states, actions = rollouts(dynamics, policy, 3, seed=2)
    prior = fit_prior(states, actions, 2, np.random.default_rng(0), strength=5.0)
    error = {
        name: np.abs(fit.transition - dynamics.transition).mean()
        for name, fit in (
            ("alone", fit_dynamics(states, actions)),
            ("prior", fit_dynamics(states, actions, prior)),
        )
    }
    assert error["prior"] < 0.1
    assert error["prior"] < 0.3 * error["alone"]


def test_a_mixture_finds_its_clusters() -> None:
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    points = np.concatenate([c + 0.3 * rng.normal(size=(200, 2)) for c in centers])
    mixture = fit_mixture(points, 3, rng)
    order = [int(np.argmin(np.linalg.norm(mixture.means - c, axis=1))) for c in centers]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(mixture.means[order], centers, atol=0.1)
    np.testing.assert_allclose(mixture.covariances, np.tile(0.09 * np.eye(2), (3, 1, 1)), atol=0.03)
    mean, covariance = mixture.at(points[:200])
    np.testing.assert_allclose(mean, centers[0], atol=0.1)
    assert covariance[0, 0] < 0.15
    with pytest.raises(ValueError, match="5 Gaussians for 3 points"):
        fit_mixture(points[:3], 5, rng)


def test_the_holding_policy_repeats_the_command() -> None:
    policy = holding(4, 5, slice(3, 5), np.array([0.1, 0.2]))
    state = np.arange(5.0)
    np.testing.assert_array_equal(policy.mean(2, state), [3.0, 4.0])
    np.testing.assert_allclose(policy.sample(9, state, np.ones(2)), [3.1, 4.2])


def test_a_calmed_policy_does_the_same_with_less_noise_but_not_below_the_least() -> None:
    noisy = problem(nu=2)[2]
    still = calmed(noisy, 0.5, 0.0)
    np.testing.assert_allclose(still.covariance, 0.25 * noisy.covariance, atol=1e-12)
    np.testing.assert_array_equal(still.gain, noisy.gain)
    least = 1.01 * np.sqrt(np.linalg.eigvalsh(still.covariance).min())
    floored = np.sqrt(np.linalg.eigvalsh(calmed(noisy, 0.5, least).covariance))
    assert floored.min() == pytest.approx(least)
    assert floored.max() == pytest.approx(np.sqrt(np.linalg.eigvalsh(still.covariance).max()))


def test_rollouts_and_policies_of_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        fit_dynamics(np.zeros((1, 3, 2)), np.zeros((1, 2, 1)))
    with pytest.raises(ValueError, match="offset has shape"):
        LinearPolicy(np.zeros((3, 1, 2)), np.zeros((3, 2)), np.zeros((3, 1, 1)))
    with pytest.raises(ValueError, match="NaN"):
        LinearPolicy(np.full((3, 1, 2), np.nan), np.zeros((3, 1)), np.zeros((3, 1, 1)))
