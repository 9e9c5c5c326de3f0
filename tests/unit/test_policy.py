# SPDX-License-Identifier: Apache-2.0
"""The off-policy learner: what it draws, what it learns, and that it goes on where it stopped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from twinloop.learning.action_units import change_units
from twinloop.learning.checkpoint import CheckpointInvalid
from twinloop.learning.episode import Episode
from twinloop.learning.goals import OneGoal
from twinloop.learning.policy import ExploringActor, PolicyConfig, PolicyLearner, new_proposal
from twinloop.learning.soft_actor_critic import Batch, SACConfig, SoftActorCritic
from twinloop.learning.step_replay import StepReplay
from twinloop.models.proposal import Proposal, ProposalConfig

from twinloop import tasks

CHANGE = 0.1
UNITS = change_units(slice(0, 1), CHANGE)


def counting_episode(
    steps: int, stop_reason: str | None = "completed", offset: float = 0.0
) -> Episode:
    """Observations (command, count), each action one whole change up."""
    count = np.arange(steps + 1) + offset
    observations = np.stack([CHANGE * count, count], axis=1)
    actions = CHANGE * (count[:-1, None] + 1)
    return Episode(observations, actions, {"episode_id": "e", "stop_reason": stop_reason})


def test_runs_stop_at_the_end_of_their_episode() -> None:
    replay = StepReplay(UNITS)
    replay.add(counting_episode(4))
    replay.add(counting_episode(2, "dropped", offset=100.0))
    runs = replay.draw(400, 3, torch.Generator().manual_seed(0))
    first, last = runs.observations[:, 0, 1], runs.observations[:, -1, 1]
    assert replay.transitions == 6
    assert set(first.tolist()) == {0.0, 1.0, 2.0, 3.0, 100.0, 101.0}
    assert torch.equal(last - first, runs.steps.float())
    end = torch.where(first < 50, 4.0, 102.0)
    assert torch.equal(runs.steps.float(), (end - first).clamp(max=3.0))
    # Only runs that reach the drop have failed; the end of a completed episode is none.
    assert torch.equal(runs.failed.bool(), first >= 100)
    assert torch.allclose(runs.actions[:, 0], torch.ones(400, 1))


@pytest.mark.parametrize(
    ("reason", "failed"),
    [
        ("dropped", True),
        ("balls_lost", True),
        ("completed", False),  # of a twin's episode
        ("complete", False),  # of a recorded one
        ("stopped on request", False),
        ("the recorder was stopped", False),
        (None, False),
    ],
)
def test_only_what_was_dropped_or_lost_has_failed(reason: str | None, failed: bool) -> None:
    replay = StepReplay(UNITS)
    replay.add(counting_episode(2, reason))
    runs = replay.draw(20, 3, torch.Generator().manual_seed(0))
    assert bool(runs.failed.any()) == failed


def test_a_goal_goes_with_the_runs_of_its_episode() -> None:
    replay = StepReplay(UNITS, goal_size=1)
    replay.add(counting_episode(3), [1.0])
    replay.add(counting_episode(3, offset=100.0), [2.0])
    runs = replay.draw(100, 2, torch.Generator().manual_seed(0))
    assert torch.equal(runs.goal[:, 0], torch.where(runs.observations[:, 0, 1] < 50, 1.0, 2.0))
    with pytest.raises(ValueError, match="goal has 0 elements, expected 1"):
        replay.add(counting_episode(3))


def test_an_empty_replay_refuses_to_draw() -> None:
    with pytest.raises(ValueError, match="no transitions"):
        StepReplay(UNITS).draw(1, 1, torch.Generator())


def small_proposal() -> Proposal:
    torch.manual_seed(0)
    return Proposal(
        ProposalConfig(
            observation_size=2,
            action_size=1,
            hidden=(32, 32),
            command=(0, 1),
            joint_position=(1, 2),
            max_change=CHANGE,
            layer_norm=True,
            squash=True,
        )
    )


def test_actor_and_critic_find_the_best_action_of_a_one_step_problem() -> None:
    """Reward -(a - 0.8 x)²: the best action is 0.8 x, and its value is nearly 0."""
    config = SACConfig(learning_rate=1e-2, entropy=-2.0, average_rate=0.1, critic_hidden=(64, 64))
    learner = SoftActorCritic(small_proposal(), config, seed=0)
    generator = torch.Generator().manual_seed(1)

    def batch() -> Batch:
        x = 2 * torch.rand(64, 1, generator=generator) - 1
        features = torch.cat([x, torch.zeros_like(x)], dim=1)
        action = 2 * torch.rand(64, 1, generator=generator) - 1
        reward = -(action - 0.8 * x).square()[:, 0]
        limits = torch.ones(2, 64, 1) * torch.tensor([-1.0, 1.0])[:, None, None]
        return Batch(features, action, reward, features, torch.zeros(64), limits, limits)

    for _ in range(500):
        learner.update(batch())
    x = torch.linspace(-0.9, 0.9, 7)[:, None]
    features = torch.cat([x, torch.zeros_like(x)], dim=1)
    chosen = learner.policy().change(features)
    assert torch.allclose(chosen, 0.8 * x, atol=0.12)
    value = learner.critics(features, 0.8 * x).detach()
    assert value.abs().max() < 0.1


def test_the_density_of_an_action_integrates_to_one() -> None:
    learner = SoftActorCritic(small_proposal(), SACConfig(), seed=0)
    noise = torch.linspace(-6, 6, 20_001)[:, None]
    features = torch.tensor([[0.3, -0.2]]).expand(len(noise), -1)
    with torch.no_grad():
        action, density = learner.actor.sample(features, noise)
    mass = torch.trapezoid(density.exp(), action[:, 0])
    assert math.isclose(float(mass), 1.0, abs_tol=1e-3)


def orbiting_episode(seed: int, steps: int = 40) -> Episode:
    """Balls that turn by a few degrees a step, with random commands."""
    task = tasks.make("baoding")
    rng = np.random.default_rng(seed)
    observations = np.zeros((steps + 1, task.observation_size), dtype=np.float32)
    command = np.cumsum(rng.uniform(-0.1, 0.1, (steps + 1, task.action_size)), axis=0)
    observations[:, task.command] = command
    observations[:, task.joint_position] = command
    angle = np.cumsum(rng.uniform(0.0, 0.1, steps + 1))
    balls = task.contract.slices["ball_position"].start
    for ball, sign in ((0, 1.0), (1, -1.0)):
        observations[:, balls + 3 * ball] = 0.005 + sign * 0.03 * np.cos(angle)
        observations[:, balls + 3 * ball + 1] = -0.03
        observations[:, balls + 3 * ball + 2] = 0.068 + sign * 0.03 * np.sin(angle)
    meta = {"episode_id": f"e{seed}", "stop_reason": "completed", "seed": seed}
    return Episode(observations, command[1:].astype(np.float32), meta)


def new_learner() -> PolicyLearner:
    config = PolicyConfig(hidden=(32, 32), sac=SACConfig(batch=32, critic_hidden=(32, 32)))
    return PolicyLearner(OneGoal(tasks.make("baoding")), 0.15, 3, config)


def weights(policy: Proposal) -> Tensor:
    return torch.cat([value.flatten() for value in policy.state_dict().values()])


def test_a_learner_goes_on_bit_exactly_from_its_file(tmp_path: Path) -> None:
    episodes = [orbiting_episode(seed) for seed in range(4)]
    whole = new_learner()
    whole.add(episodes[:2])
    assert whole.improve() == 80
    whole.save(tmp_path / "learner.pt")
    whole.add(episodes[2:])
    whole.improve()

    again = new_learner()
    again.add(episodes[:2])
    again.load(tmp_path / "learner.pt")
    again.add(episodes[2:])
    assert again.improve() == 80
    assert torch.equal(weights(whole.policy()), weights(again.policy()))
    assert not torch.equal(weights(whole.policy()), weights(new_learner().policy()))


def test_a_time_limit_leaves_the_rest_owed() -> None:
    learner = new_learner()
    learner.add([orbiting_episode(0)])
    assert learner.improve(time_limit_s=0.0) == 0
    assert learner.improve() == 40


def test_exploration_depends_on_the_hands_own_seed_alone() -> None:
    learner = new_learner()
    learner.add([orbiting_episode(0)])
    row = orbiting_episode(1).observations[:1]
    alone = ExploringActor(learner.explorer(), learner.goals, 1)
    alone.start(0, 7)
    beside = ExploringActor(learner.explorer(), learner.goals, 3)
    for hand, seed in enumerate((5, 7, 9)):
        beside.start(hand, seed)
    one, _ = alone.act(row)
    three, _ = beside.act(np.repeat(row, 3, axis=0))
    assert np.allclose(one[0], three[1], atol=1e-6)
    assert not np.allclose(three[0], three[1])
    assert np.abs(one - row[:, learner.task.command]).max() <= 0.15 + 1e-6


def test_a_policy_treats_swapped_balls_alike() -> None:
    task = tasks.make("baoding")
    policy = new_proposal(task, 0.15)
    seen = torch.from_numpy(orbiting_episode(0).observations)
    index = torch.tensor(task.symmetry)[: task.observation_size]
    same = policy(seen, task.targets(seen, 1)[:, 0])
    swapped = policy(seen[:, index], task.targets(seen[:, index], 1)[:, 0])
    assert torch.allclose(same, swapped, atol=1e-5)


def test_the_policy_of_the_best_calm_episodes_is_kept() -> None:
    """Balls that turn earn more than balls that rest; episodes with noise tell nothing."""
    config = PolicyConfig(hidden=(8,), trial=2, sac=SACConfig(batch=8, critic_hidden=(8,)))
    learner = PolicyLearner(OneGoal(tasks.make("baoding")), 0.15, 3, config)
    learner.add([orbiting_episode(seed) for seed in (0, 2)])  # before the policy has acted
    kept = []
    for round_, speed in enumerate((0.2, 1.0, 0.5, 1.5)):
        learner.improve()
        kept.append(weights(learner.sac.policy()))
        is_noisy = speed > 1.0
        learner.add([turning(100 + 10 * round_ + is_noisy + 2 * k, speed) for k in range(2)])
    assert torch.equal(weights(learner.policy()), kept[1])
    assert not torch.equal(weights(learner.sac.policy()), kept[1])


def test_what_is_kept_is_the_mean_of_the_rounds_that_went_best() -> None:
    config = PolicyConfig(hidden=(8,), trial=4, sac=SACConfig(batch=8, critic_hidden=(8,)))
    learner = PolicyLearner(OneGoal(tasks.make("baoding")), 0.15, 3, config)
    learner.add([orbiting_episode(seed) for seed in (0, 2)])
    rounds = []
    for first, speed in ((100, 0.2), (110, 1.0), (120, 1.0), (130, 0.2)):
        learner.improve()
        rounds.append(weights(learner.sac.policy()))
        learner.add([turning(first + 2 * k, speed) for k in range(2)])
    assert not torch.allclose(rounds[1], rounds[2], atol=1e-5)
    assert torch.allclose(weights(learner.policy()), (rounds[1] + rounds[2]) / 2)


def test_a_policy_that_succeeds_is_kept_though_another_earns_more() -> None:
    config = PolicyConfig(hidden=(8,), trial=2, sac=SACConfig(batch=8, critic_hidden=(8,)))
    learner = PolicyLearner(OneGoal(tasks.make("baoding")), 0.15, 3, config)
    learner.add([orbiting_episode(seed) for seed in (0, 2)])
    slow = [turning(seed, 1.2, steps=160) for seed in (100, 102)]
    quick = [turning(seed, 1.6, steps=160) for seed in (110, 112)]
    for episode in quick:
        episode.observations[-1, learner.task.contract.slices["ball_position"].start] = 0.2
    returns = [[learner._total(e) for e in episodes] for episodes in (slow, quick)]
    assert min(returns[1]) > max(returns[0])
    assert all(map(learner.goals.succeeded, slow))
    assert not any(map(learner.goals.succeeded, quick))
    learner.improve()
    kept = weights(learner.sac.policy())
    for episodes in (slow, quick):
        learner.add(episodes)
        learner.improve()
    assert torch.equal(weights(learner.policy()), kept)


def test_a_state_of_training_in_another_form_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    new_learner().save(path)
    state = torch.load(path, weights_only=True)
    del state["form"]
    torch.save(state, path)
    with pytest.raises(CheckpointInvalid, match=r"policy.pt: form is None, expected 2"):
        new_learner().load(path)


def turning(seed: int, speed: float, steps: int = 40) -> Episode:
    episode = orbiting_episode(seed, steps)
    task = tasks.make("baoding")
    balls = task.contract.slices["ball_position"].start
    angle = np.radians(2.0 * speed) * np.arange(len(episode.observations))
    for ball, sign in ((0, 1.0), (1, -1.0)):
        episode.observations[:, balls + 3 * ball] = 0.005 + sign * 0.03 * np.cos(angle)
        episode.observations[:, balls + 3 * ball + 2] = 0.068 + sign * 0.03 * np.sin(angle)
    return episode


def test_calm_episodes_are_without_noise() -> None:
    learner = new_learner()
    learner.add([orbiting_episode(0)])
    row = orbiting_episode(1).observations[:1]
    actor = ExploringActor(learner.explorer(), learner.goals, 3)
    for hand, seed in enumerate((2, 4, 5)):
        actor.start(hand, seed)
    action, _ = actor.act(np.repeat(row, 3, axis=0))
    assert np.allclose(action[0], action[1])
    assert not np.allclose(action[0], action[2])
