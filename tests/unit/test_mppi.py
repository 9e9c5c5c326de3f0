# SPDX-License-Identifier: Apache-2.0
"""MPPI: against the linear-quadratic optimum, with broken models, and within limits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from twinloop.planners.mppi import MPPI, ActionSpace, MPPIConfig, load_config

torch.set_num_threads(1)

# Two carts: position and speed each, pushed by one action each. The observation ends with the
# previous command, as every contract's does.
CART = np.array([[1.0, 0.3], [0.0, 0.9]])
PUSH = np.array([[0.05], [0.3]])
A = np.kron(np.eye(2), CART)
B = np.kron(np.eye(2), PUSH)
STATE_COST, ACTION_COST = 1.0, 0.3


class LinearModel:
    """Knows the carts exactly; `faults` maps a candidate's row to what it predicts instead."""

    members = 2
    proposal = None
    observation_size = 6
    action_size = 2

    def __init__(self, faults: dict[int, float] | None = None) -> None:
        self.faults = faults or {}
        self.rows_seen: list[Tensor] = []

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        action = action.expand(observation.shape[0], -1, -1)
        state = observation[..., :4] @ torch.tensor(A.T, dtype=torch.float32)
        state = state + action @ torch.tensor(B.T, dtype=torch.float32)
        self.rows_seen.append(action[0].clone())
        following = torch.cat([state, action], dim=-1)
        for row, value in self.faults.items():
            following[1, row] = value
        return following

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        states = []
        for action in actions:
            observation = self.predict(observation, action)
            states.append(observation)
        return torch.stack(states)


class Regulate:
    name = "regulate"
    observation_size = 6
    action_size = 2
    command = slice(4, 6)

    def cost(self, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
        return STATE_COST * observation[..., :4].square().sum(
            -1
        ) + ACTION_COST * action.square().sum(-1)


def space(limit: float) -> ActionSpace:
    bound = torch.full((2,), limit)
    return ActionSpace(lower=-bound, upper=bound, center=torch.zeros(2))


def planner(model: LinearModel | None = None, limit: float = 3.0, **changes: float) -> MPPI:
    settings = {
        "samples": 400,
        "horizon": 8,
        "kappa": 20.0,
        "beta": 0.7,
        "sigma": 0.2,
        "joint_speed": 1000.0,
        "range_share": 1.0,
    }
    config = load_config(**{**settings, **changes})
    return MPPI(model or LinearModel(), Regulate(), space(limit), config, seed=0)


def closed_loop_cost(act, steps: int = 30) -> float:
    x, command, total = np.array([1.0, 0.0, -0.6, 0.4]), np.zeros(2), 0.0
    for _ in range(steps):
        command = act(x, command)
        x = A @ x + B @ command
        total += STATE_COST * x @ x + ACTION_COST * command @ command
    return float(total)


def lqr_gain() -> np.ndarray:
    """Gain that minimises the sum of STATE_COST |x'|² + ACTION_COST |u|² by value iteration."""
    value = np.eye(4) * STATE_COST
    for _ in range(500):
        gain = np.linalg.solve(ACTION_COST * np.eye(2) + B.T @ value @ B, B.T @ value @ A)
        closed = A - B @ gain
        value = STATE_COST * np.eye(4) + ACTION_COST * gain.T @ gain + closed.T @ value @ closed
    return gain


def test_cost_comes_within_ten_percent_of_the_linear_quadratic_optimum() -> None:
    gain = lqr_gain()
    optimum = closed_loop_cost(lambda x, _: -gain @ x)
    mppi = planner()

    def act(x: np.ndarray, command: np.ndarray) -> np.ndarray:
        observation = torch.tensor(np.concatenate([x, command]), dtype=torch.float32)
        return mppi.plan(observation, torch.zeros(8, 1))[0].double().numpy()

    cost = closed_loop_cost(act)
    idle = closed_loop_cost(lambda x, _: np.zeros(2))
    assert optimum <= cost <= 1.10 * optimum
    assert idle > 2 * optimum


def test_a_seed_fixes_the_plan_and_another_seed_changes_it() -> None:
    observation = torch.tensor([1.0, 0, -0.5, 0, 0, 0])

    def actions(seed: int) -> Tensor:
        mppi = planner()
        mppi.reset(seed)
        return torch.stack([mppi.plan(observation, torch.zeros(8, 1))[0] for _ in range(3)])

    assert torch.equal(actions(1), actions(1))
    assert not torch.equal(actions(1), actions(2))


def test_a_robot_in_a_batch_does_what_it_does_alone() -> None:
    observations = torch.tensor([[1.0, 0, -0.5, 0, 0, 0], [0.2, 0.1, 0.3, 0, 0, 0]])
    together = planner()
    together.reset_batch([5, 6])
    targets = torch.zeros(2, 8, 1)
    both = torch.stack([together.plan_batch(observations, targets)[0] for _ in range(3)])
    for row, seed in enumerate((5, 6)):
        alone = planner()
        alone.reset(seed)
        single = [alone.plan(observations[row], targets[row])[0] for _ in range(3)]
        assert torch.allclose(torch.stack(single), both[:, row], atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_rollout_that_is_not_finite_has_no_say(value: float) -> None:
    observation = torch.tensor([1.0, 0, -0.5, 0, 0, 0])
    faulty = planner(LinearModel(dict.fromkeys(range(2, 400), value)))
    action, stats = faulty.plan(observation, torch.zeros(8, 1))
    assert stats.nan_rollouts == 398
    assert torch.isfinite(action).all()
    assert np.isfinite([stats.best_return, stats.mean_return, stats.disagreement]).all()
    sane = planner()
    seen = sane._about_last_plan(observation[None, 4:])[0, :2, 0]
    low, high = seen.amin(0) - 1e-6, seen.amax(0) + 1e-6
    assert ((action >= low) & (action <= high)).all()


def test_with_no_finite_rollout_the_previous_command_is_held() -> None:
    faulty = planner(LinearModel({row: float("nan") for row in range(400)}))
    observation = torch.tensor([1.0, 0, -0.5, 0, 0.25, -0.5])
    action, stats = faulty.plan(observation, torch.zeros(8, 1))
    assert action.tolist() == [0.25, -0.5]
    assert stats.nan_rollouts == stats.samples == 400


def test_every_candidate_and_the_plan_keep_to_limits_and_speed() -> None:
    model = LinearModel()
    mppi = planner(model, limit=0.5, joint_speed=2.0, sigma=3.0)
    command = torch.tensor([0.45, -0.1])
    for _ in range(4):
        model.rows_seen.clear()
        observation = torch.cat([torch.tensor([5.0, 0, -5.0, 0]), command])
        action, _ = mppi.plan(observation, torch.zeros(8, 1))
        sequence = torch.stack([command.expand(400, -1), *model.rows_seen])
        assert sequence.abs().max() <= 0.5 + 1e-6
        assert (sequence[1:] - sequence[:-1]).abs().max() <= 0.2 + 1e-6
        assert (action - command).abs().max() <= 0.2 + 1e-6
        command = action


def test_members_that_disagree_lower_the_return() -> None:
    observation = torch.tensor([1.0, 0, -0.5, 0, 0, 0])
    model = LinearModel(dict.fromkeys(range(400), 3.0))
    careless = planner(model, disagreement_weight=0.0)
    careful = planner(model, disagreement_weight=1.0)
    loose, tight = (p.plan(observation, torch.zeros(8, 1))[1] for p in (careless, careful))
    assert loose.disagreement > 1.0
    assert tight.best_return < loose.best_return - 1.0


def test_bad_settings_and_a_model_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="samples"):
        load_config(samples=1)
    with pytest.raises(ValueError, match="spam"):
        load_config(spam=1)
    with pytest.raises(ValueError, match="center"):
        ActionSpace(torch.zeros(1), torch.ones(1), torch.full((1,), 2.0))
    other = SimpleNamespace(observation_size=9, members=1)
    config = MPPIConfig(**{**load_config().model_dump(), "samples": 4})
    with pytest.raises(ValueError, match="9 elements"):
        MPPI(other, Regulate(), space(1.0), config, seed=0)
