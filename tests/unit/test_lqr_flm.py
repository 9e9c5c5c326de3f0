# SPDX-License-Identifier: Apache-2.0
"""LQR-FLM as a planner and as a learner: feedback within limits, models kept whole, learning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from twinloop.contract import load as load_contract
from twinloop.learning.episode import Episode
from twinloop.learning.episode_bags import write_record
from twinloop.learning.linear_learner import TooFewRollouts, next_model, on_policy
from twinloop.learning.model_file import Candidate, load_model, write_model
from twinloop.learning.online_job import LearnerConfig, run_job
from twinloop.learning.policy_search import PolicySearch, SearchSettings, Transitions
from twinloop.learning.registry import Registry
from twinloop.learning.rollout import PlannedActor, roll_out
from twinloop.learning.swap import ModelSlot
from twinloop.models import ModelInvalid, from_tensors, new_model
from twinloop.models.linear_gaussian import LinearGaussian
from twinloop.models.linear_latent import LinearLatent
from twinloop.planners.linear_quadratic.cost_fit import evaluate, fit_cost, success_cost
from twinloop.planners.linear_quadratic.encoding import encoding_of
from twinloop.planners.linear_quadratic.policy import LinearPolicy, holding
from twinloop.planners.lqr_flm import first_policy
from twinloop_sim import cells

from twinloop import planners, tasks

torch.set_num_threads(1)
TASK: Any = tasks.make("pushing")
STEPS = 4


def model(gain: float = 0.0) -> LinearLatent:
    """A model of pushing whose states stay, but for the command, and whose policy moves by `gain`
    times where the mug is from its goal."""
    encoding = encoding_of(TASK)
    size, action = len(encoding.encoder), TASK.action_size
    command = slice(14, 21)
    hold = holding(STEPS, size, command, np.full(action, 1e-3))
    feedback = hold.gain.copy()
    feedback[:, 0, 21] = gain
    transition = np.concatenate([np.eye(size), np.zeros((size, action))], axis=1)
    transition[command] = 0.0
    transition[command, size:] = np.eye(action)
    rng = np.random.default_rng(0)
    dynamics = LinearGaussian(
        np.tile(transition, (STEPS, 1, 1)),
        np.zeros((STEPS, size)),
        np.tile(1e-6 * np.eye(size), (STEPS, 1, 1)),
        rng.normal(size=size),
        1e-4 * np.eye(size),
    )
    policy = LinearPolicy(feedback, hold.offset, hold.covariance)
    return LinearLatent.of(dynamics, policy, encoding)


def seen(mug: float = 0.0, goal: float = 0.0) -> Tensor:
    observation = torch.zeros(TASK.observation_size)
    for where in (TASK.joint_position, TASK.command):
        observation[where] = torch.tensor(TASK.center, dtype=torch.float32)
    observation[TASK.slices["mug_position"].start] = mug
    observation[TASK.slices["goal"].start] = goal
    return observation


def planned(made: Any, observation: Tensor) -> np.ndarray:
    return made.plan(observation, TASK.targets(observation, 1))[0].double().numpy()


def test_feedback_is_on_what_is_relative_to_the_goal_and_keeps_to_the_speed() -> None:
    made = planners.make("lqr_flm", model(gain=1.0), TASK, 0, explores=False)
    change = planned(made, seen(mug=0.03)) - TASK.center
    np.testing.assert_allclose(change, [0.03, *np.zeros(6)], atol=1e-6)
    np.testing.assert_allclose(planned(made, seen(0.23, 0.2)) - TASK.center, change, atol=1e-6)
    far = planned(made, seen(mug=5.0)) - TASK.center
    assert far[0] == pytest.approx(made.largest_change, abs=1e-6)


def test_a_seed_fixes_the_exploration_and_rows_do_what_they_do_alone() -> None:
    made = planners.make("lqr_flm", model(), TASK, 3)
    rows = torch.stack([seen(), seen(0.1)])
    made.reset_batch([3, 4])
    together = [made.plan_batch(rows, TASK.targets(rows, 1))[0] for _ in range(2)]
    for index, seed in enumerate((3, 4)):
        made.reset(seed)
        alone = [planned(made, rows[index]) for _ in range(2)]
        np.testing.assert_allclose(alone, [batch[index] for batch in together], atol=1e-6)
    assert not torch.equal(together[0], together[1])
    with pytest.raises(ValueError, match="2 observations for 1 seeds"):
        made.plan_batch(rows, TASK.targets(rows, 1))


def test_with_a_model_that_has_no_policy_it_explores_about_the_command() -> None:
    made = planners.make("lqr_flm", new_model("pushing", 0, hidden=(4,)), TASK, 0)
    changes = np.stack([planned(made, seen()) - TASK.center for _ in range(40)])
    assert changes.std() == pytest.approx(0.01, rel=0.3)
    still = planners.make("lqr_flm", made.model, TASK, 0, explores=False)
    np.testing.assert_allclose(planned(still, seen()), TASK.center, atol=1e-6)


def test_a_policy_that_asks_for_nonsense_has_the_command_held() -> None:
    made = planners.make("lqr_flm", model(gain=1.0), TASK, 0, explores=False)
    action, stats = made.plan(seen(mug=float("nan")), torch.zeros(1, 0))
    np.testing.assert_allclose(action, TASK.center, atol=1e-6)
    assert stats.nan_rollouts == 1


def test_a_device_or_a_model_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="runs on the cpu"):
        planners.make("lqr_flm", model(), TASK, 0, device="cuda")
    with pytest.raises(ValueError, match="task valve has"):
        planners.make("lqr_flm", model(), tasks.make("valve"), 0)


def test_models_are_written_and_read_whole_and_broken_ones_refused(tmp_path) -> None:
    made = model(gain=0.5)
    write_model(tmp_path, Candidate(made, load_contract("pushing")))
    found = load_model(tmp_path).model
    assert isinstance(found, LinearLatent)
    np.testing.assert_array_equal(found.policy.gain, made.policy.gain)
    np.testing.assert_array_equal(found.dynamics.transition, made.dynamics.transition)
    tensors = made.state_tensors() | {"policy_covariance": -made.policy_covariance}
    with pytest.raises(ModelInvalid, match="policy_covariance is not positive"):
        from_tensors(made.config_json(), tensors)


def test_predictions_take_the_dynamics_of_the_nearest_step_and_keep_the_goal() -> None:
    made = model()
    observation = torch.randn(1, 5, TASK.observation_size)
    action = torch.randn(5, TASK.action_size)
    after = made.predict(observation, action)
    wanted = observation.clone()
    wanted[..., TASK.command] = action
    torch.testing.assert_close(after, wanted, atol=1e-5, rtol=1e-5)
    assert made.rollout(observation, action[None]).shape == (1, 1, 5, TASK.observation_size)


def test_a_sampling_planner_rolls_a_model_out_in_its_own_way() -> None:
    observation = torch.randn(TASK.observation_size)
    planner = planners.make("mppi", model(), TASK, 0, samples=8)
    action, stats = planner.plan(observation, TASK.targets(observation, planner.horizon))
    assert action.shape == (TASK.action_size,)
    assert stats.nan_rollouts == 0


class Station:
    """Two arms that are planned for, their bags, and a learner on these."""

    def __init__(self, root: Path) -> None:
        self.cell, self.root, self.seed = cells.make("pushing", 2), root, 0
        self.contract = load_contract("pushing")
        self.slot = ModelSlot(self.contract)
        self.planner = planners.make("lqr_flm", new_model("pushing", 0, hidden=(4,)), TASK, 0)
        self.version = ""

    def record(self, episodes: int) -> None:
        """Work for some episodes with the current model, each a bag when it ends."""
        seeds = range(self.seed, self.seed + episodes)
        self.seed += episodes
        actor = PlannedActor(self.planner, TASK, 2)
        for record in roll_out(self.cell, actor, TASK, list(seeds), TASK.episode_steps):
            index = int(record.episode.meta["seed"])
            write_record(record, self.contract, self.root / "bags", index, "mujoco", self.version)

    def learn(self) -> list[tuple[str, str]]:
        events: list[tuple[str, str]] = []
        config = LearnerConfig(
            task="pushing",
            planner="lqr_flm",
            record_dir=str(self.root / "bags"),
            registry=str(self.root / "registry"),
            search=SearchSettings(components=8, divergence=0.3),
        )
        run_job(config, lambda kind, message, **_: events.append((kind, message)))
        return events

    def swap(self) -> None:
        """Take the registry's model between two episodes, as a planner node does."""
        registry = Registry(self.root / "registry", self.contract)
        current = registry.current()
        assert current is not None
        self.planner.model, self.version = self.slot.load(registry.path(current))


@pytest.fixture
def station(tmp_path) -> Iterator[Station]:
    (tmp_path / "bags").mkdir()
    made = Station(tmp_path)
    yield made
    made.cell.close()
    made.slot.close()


def test_policies_are_learned_from_bags_between_episodes_gated_and_swapped(station) -> None:
    station.record(10)
    events = station.learn()
    assert events[-1][0] == "promoted", events
    station.swap()
    assert isinstance(station.planner.model, LinearLatent)
    first = station.planner.model.policy
    # Episodes of the version before say nothing of this policy's dynamics.
    assert station.learn()[-1][0] == "waiting"
    station.record(10)
    kinds = [kind for kind, _ in station.learn()]
    assert "candidate" in kinds
    assert {"promoted", "rejected"} & set(kinds)
    registry = Registry(station.root / "registry", station.contract)
    versions = registry.versions()
    assert len(versions) == 2
    assert registry.manifest(versions[1]).lineage.parent == versions[0]
    assert registry.manifest(versions[1]).metrics["rollouts"] <= 10
    again = registry.load(versions[1]).model
    assert isinstance(again, LinearLatent)
    assert not np.array_equal(again.policy.offset, first.offset)


def test_episodes_of_other_versions_or_without_their_beginning_are_not_learned_from(
    station,
) -> None:
    rows = np.zeros((TASK.episode_steps + 1, TASK.observation_size), dtype=np.float32)
    actions = np.zeros((TASK.episode_steps, TASK.action_size), dtype=np.float32)

    def episode(**meta: Any) -> Episode:
        return Episode(rows, actions, {"model_version": "v0002", "first_step": 0} | meta)

    given = [episode(), episode(model_version="v0001"), episode(first_step=3)]
    assert on_policy(given, "v0002") == given[:1]
    with pytest.raises(TooFewRollouts, match="0 episodes of 4 steps by v0007"):
        next_model(TASK, model(), "v0007", given, SearchSettings(), 0)


def pendulum(policy: LinearPolicy, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A pendulum with a motor that is pushed up a little: angle and speed, torque."""
    rng = np.random.default_rng(seed)
    steps = policy.steps
    states, actions = np.empty((count, steps + 1, 2)), np.empty((count, steps, 1))
    states[:, 0] = [0.0, 0.0] + 0.02 * rng.normal(size=(count, 2))
    for t in range(steps):
        actions[:, t] = policy.sample(t, states[:, t], rng.normal(size=(count, 1)))
        angle, speed = states[:, t].T
        speed = speed + 0.1 * (actions[:, t, 0] - 2.0 * np.sin(angle) - 0.2 * speed)
        states[:, t + 1] = np.stack([angle + 0.1 * speed, speed], axis=1)
    return states, actions


GOAL = 1.0


def reach(state: Tensor, action: Tensor, step: Tensor) -> Tensor:
    return (state[0] - GOAL).square() + 0.1 * state[1].square() + 1e-3 * action.square().sum()


def blank(steps: int = 25) -> LinearPolicy:
    covariance = np.tile(0.25 * np.eye(1), (steps, 1, 1))
    return LinearPolicy(np.zeros((steps, 1, 2)), np.zeros((steps, 1)), covariance)


@pytest.mark.parametrize("told", [True, False])
def test_a_search_learns_to_hold_a_pendulum_aside_with_a_cost_or_from_what_was_paid(told) -> None:
    settings = SearchSettings(components=4)
    policy = blank()
    search = PolicySearch(reach if told else None, policy, settings)
    memory = Transitions(settings, 0)
    for iteration in range(12):
        states, actions = pendulum(search.policy, 8, iteration)
        memory.add(states, actions)
        if told:
            search.learn(states, actions, memory.prior())
            continue
        paid = np.square(states[:, 1:, 0] - GOAL) + 0.1 * np.square(states[:, 1:, 1])
        cost = fit_cost(states[:, 1:].reshape(-1, 2), paid.ravel(), 25, 1, ridge=1e-6)
        search.learn(states, actions, memory.prior(), (paid, cost))
    still = LinearPolicy(search.policy.gain, search.policy.offset, 1e-12 + 0 * policy.covariance)
    ends = pendulum(still, 5, 99)[0][:, -1]
    assert np.abs(ends[:, 0] - GOAL).max() < 0.1
    assert np.abs(pendulum(policy, 5, 99)[0][:, -1, 0] - GOAL).min() > 0.3


def test_a_search_is_told_what_it_lacks_and_refuses_rollouts_of_other_lengths() -> None:
    settings = SearchSettings(components=1)
    memory = Transitions(settings, 0)
    states, actions = pendulum(blank(), 3, 0)
    memory.add(states, actions)
    with pytest.raises(ValueError, match="told what was paid"):
        PolicySearch(None, blank(), settings).learn(states, actions, memory.prior())
    with pytest.raises(ValueError, match="the policy \\(9, 1\\)"):
        PolicySearch(reach, blank(9), settings).learn(states, actions, memory.prior())


def test_a_cost_that_is_fitted_is_convex_and_that_of_its_points() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(500, 3)) * [1.0, 0.01, 10.0]
    weights = np.array([2.0, 3e4, 0.01])
    found = fit_cost(states, 0.5 * np.square(states) @ weights + 4.0, 2, 1, ridge=1e-8)
    np.testing.assert_allclose(np.diag(found.hessian[1])[:3], weights, rtol=1e-3)
    assert found.constant[0] == pytest.approx(4.0, abs=1e-2)
    bent = fit_cost(states, -np.square(states[:, 0]), 2, 1, ridge=1e-8)
    assert np.linalg.eigvalsh(bent.hessian[0]).min() > -1e-9
    with pytest.raises(ValueError, match="ridge"):
        fit_cost(states, states[:, 0], 2, 1, ridge=0.0)


def test_a_cost_of_successes_is_least_where_they_are_and_sharpest_where_they_agree() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(4000, 2))
    succeeded = np.abs(states[:, 0] - 1.0) < 0.2
    found = success_cost(states, succeeded, 3, 1)
    at = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]])
    paid = evaluate(found, at, np.zeros((1, 3, 1)))[0]
    assert paid[0] < paid[2] < paid[1]
    with pytest.raises(ValueError, match="0 successes"):
        success_cost(states, succeeded & False, 3, 1)


def test_the_first_policy_is_as_long_as_an_episode() -> None:
    assert first_policy(TASK, encoding_of(TASK), 0.01).steps == TASK.episode_steps
