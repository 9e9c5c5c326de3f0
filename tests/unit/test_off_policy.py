# SPDX-License-Identifier: Apache-2.0
"""Soft actor-critic from episodes: what it draws and learns, and that it goes on where it
stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gym_cell import GymTask
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from torch import Tensor
from twinloop.learning.action_units import change_units, units_of
from twinloop.learning.discor import weights
from twinloop.learning.episode import Episode
from twinloop.learning.hindsight import GoalSlices, relabelled
from twinloop.learning.network_actor import NetworkActor
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.rollout import random_motion
from twinloop.learning.soft_actor_critic import Actor as SquashedGaussian
from twinloop.learning.soft_actor_critic import SACConfig
from twinloop.models.actor import Actor, ActorConfig
from twinloop.models.proposal import Proposal, ProposalConfig

from twinloop import tasks

torch.set_num_threads(1)
SMALL: dict[str, Any] = {"hidden": (32, 32), "batch": 64, "learning_rate": 3e-3, "first": 32}


class Matching(GymTask):
    """Every step earns -(action - 0.8 x)², whatever comes after."""

    def __init__(self) -> None:
        super().__init__("matching", 32, {"state": 2}, [2.0])

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return -(action[..., 0] - 0.8 * before[..., 0]).square()


def episode(seed: int, steps: int = 32, **meta: Any) -> Episode:
    rng = np.random.default_rng(seed)
    seen = rng.uniform(-1.0, 1.0, (steps + 1, 2)).astype(np.float32)
    actions = rng.uniform(-2.0, 2.0, (steps, 1)).astype(np.float32)
    return Episode(seen, actions, {"episode_id": str(seed), "seed": seed} | meta)


def learner(seed: int = 0, **changes: Any) -> OffPolicyLearner:
    return OffPolicyLearner(Matching(), OffPolicySettings(**SMALL | changes), seed)


def test_the_policy_finds_the_best_action_in_the_task_s_own_units() -> None:
    made = learner(discount=0.01, target_entropy=-3.0, learning_rate=1e-2)
    made.add([episode(k, steps=100) for k in range(2)])
    assert made.improve() == 200
    x = torch.linspace(-0.9, 0.9, 7)
    seen = torch.stack([x, torch.zeros(7)], dim=1)
    actor = made.actor()
    targets = actor.targets(actor.act(seen)[:, 0], torch.zeros(7, 1))[:, 0]
    torch.testing.assert_close(targets, 2.0 * 0.8 * x, atol=0.35, rtol=0.0)


def test_no_more_gradient_steps_than_the_ratio_allows() -> None:
    made = learner(updates=0.25)
    made.add([episode(0, steps=20)])
    assert made.improve() == 0  # still random motion
    made.add([episode(1, steps=20)])
    assert made.improve(most=4) == 4
    assert made.improve() == 6
    assert made.improve() == 0


def test_learning_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, first, second = (learner(steps=3, normalises=True) for _ in range(3))
    given = [episode(0), episode(1)]
    whole.add(given)
    whole.improve(most=10)
    first.add(given)
    first.improve(most=6)
    first.save(tmp_path / "learner.pt")
    torch.manual_seed(99)
    second.add(given)
    second.load(tmp_path / "learner.pt")
    second.improve(most=4)
    for name, tensor in whole.actor().state_tensors().items():
        assert torch.equal(tensor, second.actor().state_tensors()[name]), name


def test_nobody_else_s_random_numbers_are_touched() -> None:
    made = learner()
    made.add([episode(0)])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    made.improve(most=2)
    assert torch.equal(torch.rand(1), expected)


def test_rewards_of_several_steps_are_summed_up_to_the_episode_s_end() -> None:
    made = learner(steps=3, discount=0.5)
    made.add([episode(0, stop_reason="dropped")])
    drawn = made.sample(400)
    assert set(drawn.discounts[:, 0].tolist()) == {0.5, 0.25, 0.125}
    # Only what reaches the failure has no future.
    assert drawn.dones.sum() > 0
    assert bool((drawn.discounts[drawn.dones > 0] <= 0.5).all())
    made = learner()
    made.add([episode(0, stop_reason=None)])  # its recorder was killed
    assert made.sample(400).dones.sum() == 0


def test_another_goal_of_the_episode_takes_the_place_of_its_own() -> None:
    seen = torch.arange(24.0).reshape(2, 3, 4)  # two runs; achieved at 2, wanted at 3
    later = torch.full((2, 4), 7.0)
    where = GoalSlices(wanted=slice(3, 4), achieved=slice(2, 3))
    generator = torch.Generator().manual_seed(0)
    found = relabelled(seen, later, where, 1.0, generator)
    assert torch.equal(found[..., :3], seen[..., :3])
    assert bool((found[..., 3] == 7.0).all())
    assert torch.equal(
        relabelled(seen, later, where, 0.0, generator)[0, :, 3], torch.full((3,), 3.0)
    )
    with pytest.raises(ValueError, match="names no `wanted` and `achieved`"):
        learner(relabelled=0.5)


def test_transitions_with_wrong_bootstraps_count_less() -> None:
    found = weights(torch.tensor([0.0, 1.0, 10.0]), 0.9, 1.0)
    assert float(found.mean()) == pytest.approx(1.0)
    torch.testing.assert_close(found[1] / found[0], torch.tensor(-0.9).exp())
    made = learner(discor=True)
    made.add([episode(0)])
    assert made.improve(most=3) == 3
    again = learner(discor=True)
    assert made.sample(16).observations.shape == again_shape(again)


def again_shape(made: OffPolicyLearner) -> torch.Size:
    made.add([episode(0)])
    return made.sample(16).observations.shape


def test_a_task_whose_goal_is_not_observed_is_refused() -> None:
    with pytest.raises(ValueError, match="goal hold of task baoding is not in its observation"):
        OffPolicyLearner(tasks.make("baoding", "hold"), OffPolicySettings())


def test_actions_in_cells_depend_on_the_seed_alone_and_are_smoothed() -> None:
    units = change_units(slice(0, 1), 0.1)
    actor = Actor(ActorConfig(observation_size=2, action_size=1, hidden=(4,), acts="change"), 1)
    actor.action_scale.fill_(0.1)
    seen = np.array([[0.5, 0.0], [0.5, 0.0]], dtype=np.float32)
    acting = NetworkActor(units, 2, actor.requires_grad_(False), smoothing=0.9)
    acting.start(0, 4)
    acting.start(1, 4)
    first = acting.act(seen)[0]
    assert first[0] == pytest.approx(first[1])
    second = acting.act(seen)[0]
    assert np.abs(second - first).max() < 0.1 * 0.2 * 1.01
    wild = NetworkActor(units, 1)
    wild.start(0, 4)
    assert np.ptp([wild.act(seen[:1])[0] for _ in range(50)]) > 0.1


def test_motion_about_the_task_s_pose_comes_before_the_first_policy() -> None:
    valve = tasks.make("valve")
    units = units_of(valve)
    made = [NetworkActor(units, 1, first=random_motion(valve, 1)), random_motion(valve, 1)]
    seen = np.zeros((1, 32), dtype=np.float32)
    for one in made:
        one.start(0, 5)
    usual, alone = (np.array([one.act(seen)[0] for _ in range(30)]) for one in made)
    np.testing.assert_array_equal(usual, alone)
    assert np.abs(usual).max() <= 0.2 + 1e-6
    actor = Actor(ActorConfig(observation_size=32, action_size=9, acts="change"), 2)
    made[0].actor = actor.requires_grad_(False)
    plain = NetworkActor(units, 1, actor)
    for one in (made[0], plain):
        one.start(0, 5)
    np.testing.assert_array_equal(made[0].act(seen)[0], plain.act(seen)[0])
    with pytest.raises(ValueError, match="matching does not observe its command"):
        random_motion(Matching(), 1)


def test_the_entropy_s_first_weight_is_the_setting_s() -> None:
    made = learner(temperature=0.02, learning_rate=1e-4)
    made.add([episode(0)])
    made.improve(most=1)
    assert made.figures()["ent_coef"] == pytest.approx(0.02, rel=1e-3)
    with pytest.raises(ValueError, match="temperature is 0, expected more than 0"):
        learner(temperature=0)


def test_units_are_changes_where_the_command_is_observed_else_targets() -> None:
    valve = tasks.make("valve")
    assert units_of(valve).acts == "change"
    assert units_of(Matching()).half.tolist() == [2.0]
    actions = units_of(Matching()).of(episode(0))
    np.testing.assert_allclose(2.0 * actions, episode(0).actions, rtol=1e-6)


def test_both_actor_critics_have_one_density_of_squashed_actions() -> None:
    """What proposals are trained by, and Stable-Baselines3's, on the same draw."""
    config = ProposalConfig(
        observation_size=2,
        action_size=1,
        hidden=(8,),
        command=(0, 1),
        joint_position=(1, 2),
        max_change=0.1,
        layer_norm=True,
        squash=True,
    )
    ours = SquashedGaussian(Proposal(config), SACConfig())
    features, noise = torch.randn(16, 2), torch.randn(16, 1)
    with torch.no_grad():
        action, density = ours.sample(features, noise)
        mean, log_deviation = ours.distribution(features)
        raw = mean + log_deviation.exp() * noise
        theirs = SquashedDiagGaussianDistribution(1).proba_distribution(mean, log_deviation)
        torch.testing.assert_close(action, torch.tanh(raw))
        torch.testing.assert_close(density, theirs.log_prob(action, raw), atol=1e-3, rtol=1e-3)
