# SPDX-License-Identifier: Apache-2.0
"""Every planner: against the linear-quadratic optimum, with broken models, and within limits."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor
from twinloop.models.baoding import new_model
from twinloop.paths import share
from twinloop.planners.base import Planner
from twinloop.planners.icem import colouring
from twinloop.planners.knots import basis
from twinloop.planners.space import ActionSpace

from twinloop import planners, tasks

torch.set_num_threads(1)
every_planner = pytest.mark.parametrize("name", planners.samplers())

# Two carts: position and speed each, pushed by one action each. The observation ends with the
# previous command, as every contract's does.
CART = np.array([[1.0, 0.3], [0.0, 0.9]])
PUSH = np.array([[0.05], [0.3]])
A = np.kron(np.eye(2), CART)
B = np.kron(np.eye(2), PUSH)
STATE_COST, ACTION_COST = 1.0, 0.3


class LinearModel:
    """Knows the carts exactly; with a `fault`, its second member predicts that instead."""

    members = 2
    proposal = None
    observation_size = 6
    action_size = 2

    def __init__(self, fault: float | None = None) -> None:
        self.fault = fault
        self.rows_seen: list[Tensor] = []

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        action = action.expand(observation.shape[0], -1, -1)
        state = observation[..., :4] @ torch.tensor(A.T, dtype=torch.float32)
        state = state + action @ torch.tensor(B.T, dtype=torch.float32)
        self.rows_seen.append(action[0].clone())
        following = torch.cat([state, action], dim=-1)
        if self.fault is not None:
            following[1] = self.fault
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


SETTINGS: dict[str, dict[str, float]] = {
    "mppi": {"samples": 1000, "kappa": 20.0, "beta": 0.7, "sigma": 0.2},
    "knots": {"samples": 1000, "kappa": 20.0, "knots": 4, "sigma": 0.1},
    "icem": {"samples": 150, "elites": 10, "colour": 0.5, "sigma": 0.2},
}
OBSERVATION = torch.tensor([1.0, 0, -0.5, 0, 0, 0])
TARGET = torch.zeros(8, 1)


def planner(
    name: str, model: LinearModel | None = None, limit: float = 3.0, change: float = 100.0, **more
) -> Planner:
    bound = torch.full((2,), limit)
    settings = {"horizon": 8, "range_share": 1.0, **SETTINGS[name], **more}
    space = ActionSpace(-bound, bound, change)
    return planners.make(name, model or LinearModel(), Regulate(), 0, space=space, **settings)


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


@every_planner
def test_cost_comes_within_ten_percent_of_the_linear_quadratic_optimum(name: str) -> None:
    gain = lqr_gain()
    optimum = closed_loop_cost(lambda x, _: -gain @ x)
    made = planner(name)

    def act(x: np.ndarray, command: np.ndarray) -> np.ndarray:
        observation = torch.tensor(np.concatenate([x, command]), dtype=torch.float32)
        return made.plan(observation, TARGET)[0].double().numpy()

    costs = []
    for seed in range(3):
        made.reset(seed)
        costs.append(closed_loop_cost(act))
    idle = closed_loop_cost(lambda x, _: np.zeros(2))
    assert optimum <= min(costs)
    assert np.mean(costs) <= 1.10 * optimum
    assert idle > 2 * optimum


@every_planner
def test_a_seed_fixes_the_plan_and_another_seed_changes_it(name: str) -> None:
    made = planner(name)

    def actions(seed: int) -> Tensor:
        made.reset(seed)
        return torch.stack([made.plan(OBSERVATION, TARGET)[0] for _ in range(3)])

    first, again, other = actions(1), actions(1), actions(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_planner
def test_a_robot_in_a_batch_does_what_it_does_alone(name: str) -> None:
    observations = torch.stack([OBSERVATION, torch.tensor([0.2, 0.1, 0.3, 0, 0, 0])])
    together = planner(name)
    together.reset_batch([5, 6])
    targets = torch.zeros(2, 8, 1)
    both = torch.stack([together.plan_batch(observations, targets)[0] for _ in range(3)])
    for row, seed in enumerate((5, 6)):
        alone = planner(name)
        alone.reset(seed)
        single = [alone.plan(observations[row], targets[row])[0] for _ in range(3)]
        assert torch.allclose(torch.stack(single), both[:, row], atol=1e-5)


@every_planner
def test_a_row_that_is_reset_starts_anew_and_leaves_the_others(name: str) -> None:
    observations, targets = OBSERVATION.repeat(2, 1), torch.zeros(2, 8, 1)
    made = planner(name)
    made.reset_batch([5, 6])
    first = made.plan_batch(observations, targets)[0]
    made.reset_row(0, 5)
    second = made.plan_batch(observations, targets)[0]
    assert torch.equal(second[0], first[0])
    assert not torch.equal(second[1], first[1])


@every_planner
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_rollout_that_is_not_finite_has_no_say(name: str, value: float) -> None:
    class Faulty(LinearModel):
        def predict(self, observation: Tensor, action: Tensor) -> Tensor:
            following = super().predict(observation, action)
            following[1, 1:] = value
            return following

    action, stats = planner(name, Faulty()).plan(OBSERVATION, TARGET)
    assert 0 < stats.samples - stats.nan_rollouts <= 5
    assert np.isfinite([stats.best_return, stats.mean_return, stats.disagreement]).all()
    # Only the plan itself is finite, and it is to stay where the command is.
    assert torch.allclose(action, torch.zeros(2), atol=1e-6)


@every_planner
def test_with_no_finite_rollout_the_previous_command_is_held(name: str) -> None:
    faulty = planner(name, LinearModel(float("nan")))
    observation = torch.tensor([1.0, 0, -0.5, 0, 0.25, -0.5])
    action, stats = faulty.plan(observation, TARGET)
    assert action.tolist() == [0.25, -0.5]
    assert stats.nan_rollouts == stats.samples


@every_planner
def test_every_candidate_and_the_plan_keep_to_limits_and_speed(name: str) -> None:
    model = LinearModel()
    made = planner(name, model, limit=0.5, change=0.2, sigma=3.0)
    command = torch.tensor([0.45, -0.1])
    for _ in range(4):
        model.rows_seen.clear()
        observation = torch.cat([torch.tensor([5.0, 0, -5.0, 0]), command])
        action, _ = made.plan(observation, TARGET)
        for start in range(0, len(model.rows_seen), 8):
            rows = model.rows_seen[start : start + 8]
            sequence = torch.stack([command.expand(len(rows[0]), -1), *rows])
            assert sequence.abs().max() <= 0.5 + 1e-6
            assert (sequence[1:] - sequence[:-1]).abs().max() <= 0.2 + 1e-6
        assert (action - command).abs().max() <= 0.2 + 1e-6
        command = action


@every_planner
def test_members_that_disagree_lower_the_return(name: str) -> None:
    careless = planner(name, LinearModel(3.0), disagreement_weight=0.0)
    careful = planner(name, LinearModel(3.0), disagreement_weight=1.0)
    loose, tight = (p.plan(OBSERVATION, TARGET)[1] for p in (careless, careful))
    assert loose.disagreement > 1.0
    assert tight.best_return < loose.best_return - 1.0


@every_planner
def test_with_a_proposal_and_no_noise_the_proposal_is_followed(name: str) -> None:
    model = LinearModel()
    model.proposal = lambda observation, target: observation[..., 4:] + 0.1 + target
    target = torch.full((8, 1), 0.05)
    action, _ = planner(name, model, proposal_sigma=0.0).plan(OBSERVATION, target)
    assert torch.allclose(action, torch.full((2,), 0.15), atol=1e-5)


@every_planner
def test_bad_settings_and_a_model_of_another_size_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="samples"):
        planner(name, samples=1)
    with pytest.raises(ValueError, match="spam"):
        planner(name, spam=1)
    with pytest.raises(ValueError, match="9 elements"):
        planner(name, SimpleNamespace(observation_size=9, members=1, proposal=None))


def test_an_action_space_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError, match="not below"):
        ActionSpace(torch.ones(1), torch.zeros(1), 0.1)
    with pytest.raises(ValueError, match="largest_change"):
        ActionSpace(torch.zeros(1), torch.ones(1), 0.0)


def test_an_unknown_planner_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no planner 'spam'.*icem.*knots.*mppi"):
        planners.load_config("spam")


def test_the_launch_file_takes_the_default_planner_and_names_them_all() -> None:
    launch = ElementTree.parse(share("launch", "baoding.launch.xml"))
    (argument,) = (a for a in launch.iter("arg") if a.get("name") == "planner")
    assert argument.get("default") == planners.DEFAULT
    assert all(name in argument.get("description") for name in planners.available())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no CUDA device"):
        planners.make("mppi", new_model(0, 2, (8,)), tasks.make("baoding"), 0, device="cuda")


def test_a_task_may_have_settings_of_its_own(tmp_path, monkeypatch) -> None:
    for name, text in {
        "planner/mppi.yaml": planners_file("mppi"),
        "planner/knots.yaml": planners_file("knots"),
        "task/push.yaml": "planner: {mppi: {kappa: 3.5, horizon: 9}}\n",
    }.items():
        path = tmp_path / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(
        "twinloop.planners.settings.share", lambda *parts: tmp_path.joinpath(*parts)
    )
    usual, own = planners.load_config("mppi"), planners.load_config("mppi", "push", horizon=4)
    assert (own.kappa, own.horizon) == (3.5, 4)
    assert own.model_copy(update={"kappa": usual.kappa, "horizon": usual.horizon}) == usual
    assert planners.load_config("knots", "push") == planners.load_config("knots")


def planners_file(name: str) -> str:
    return share("config", "planner", f"{name}.yaml").read_text()


@pytest.mark.parametrize("interpolation", ["linear", "kernel"])
def test_knots_are_met_and_their_weights_follow_a_constant(interpolation: str) -> None:
    weights = basis(9, 3, interpolation)
    assert torch.allclose(weights[::4], torch.eye(3), atol=1e-5)
    assert torch.allclose(basis(5, 5, interpolation), torch.eye(5), atol=1e-4)
    assert (weights @ torch.ones(3) - 1).abs().max() < 0.15


def test_coloured_noise_has_unit_deviation_and_changes_slowly() -> None:
    white = torch.randn(12, 20_000, generator=torch.Generator().manual_seed(0))
    for exponent in (0.0, 2.5):
        noise = colouring(12, exponent) @ white
        assert torch.allclose(noise.std(1), torch.ones(12), atol=0.03)
    change = (noise[1:] - noise[:-1]).std()
    assert change < 0.5 * (white[1:] - white[:-1]).std()
