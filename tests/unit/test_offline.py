# SPDX-License-Identifier: Apache-2.0
"""Policies from recorded episodes alone: clones, and those that do better than what they saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gym_cell import GymTask
from seven_states import SevenStateTree
from torch import Tensor
from twinloop.learning.episode import Episode
from twinloop.learning.offline import (
    Algorithm,
    NoTransitions,
    OfflineLearner,
    OfflineSettings,
    discrepancy,
)

torch.set_num_threads(1)


class Line(GymTask):
    """A place on a line moves by the action; every step costs its distance from zero."""

    def __init__(self) -> None:
        super().__init__("line", 20, {"place": 1}, [1.0])

    def reward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return -after[..., 0].abs()


def recorded(seed: int, skill: float) -> Episode:
    """Moves home with some skill, 1 always and 0 never, else at random; by at most 0.5 a step."""
    rng = np.random.default_rng(seed)
    place, places, actions = rng.uniform(-2.0, 2.0), [], []
    for _ in range(20):
        places.append([place])
        home = rng.random() < skill
        wish = -np.sign(place) * min(abs(place), 0.5) if home else rng.uniform(-0.5, 0.5)
        actions.append([wish])
        place += wish
    places.append([place])
    return Episode(
        np.array(places, np.float32), np.array(actions, np.float32), {"episode_id": str(seed)}
    )


BAGS = [recorded(seed, 0.7 if seed % 2 else 0.0) for seed in range(40)]


def moves(learner: OfflineLearner, places: list[float]) -> list[float]:
    seen = torch.tensor(places)[:, None]
    return learner.actor().act(seen)[:, 0, 0].tolist()


def learned(algorithm: Algorithm, updates: int = 300, **settings: Any) -> OfflineLearner:
    chosen = OfflineSettings(
        algorithm, (32, 32), learning_rate=3e-3, batch=64, updates=updates, discount=0.9, **settings
    )
    learner = OfflineLearner(Line(), BAGS, chosen)
    assert learner.improve() == updates
    return learner


def test_a_clone_does_what_was_done_on_average() -> None:
    seen = np.concatenate([episode.observations[:-1, 0] for episode in BAGS])
    done = np.concatenate([episode.actions[:, 0] for episode in BAGS])
    places = [-1.0, -0.5, 0.5, 1.0]
    usual = [done[np.abs(seen - place) < 0.2].mean() for place in places]
    np.testing.assert_allclose(moves(learned("bc", updates=1500), places), usual, atol=0.1)


def test_implicit_q_learning_does_better_than_what_it_saw() -> None:
    clone, better = learned("bc"), learned("iql", expectile=0.9, temperature=10.0)
    for place, usual, found in zip(
        (-1.5, 1.5), moves(clone, [-1.5, 1.5]), moves(better, [-1.5, 1.5]), strict=True
    ):
        assert found * -np.sign(place) > usual * -np.sign(place) + 0.05
    # It stays within what was recorded: nobody moved by more than 0.5.
    assert max(map(abs, moves(better, [-1.5, 1.5]))) < 0.55
    near, far = better.values(torch.tensor([[0.1], [1.8]]), torch.zeros(2, 1)).tolist()
    assert near > far


def test_a_bound_on_the_discrepancy_keeps_actions_near_recorded_ones() -> None:
    near, far = (learned("bear", 600, divergence=by) for by in (0.01, 10.0))
    bound, free = (max(map(abs, moves(learner, [-1.5, 1.5]))) for learner in (near, far))
    assert bound < 0.8
    assert free > bound + 0.1  # else nothing was held back


def test_the_discrepancy_of_one_distribution_is_zero_on_average_and_grows_with_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 4000, 4, 9, generator=generator)
    same, near, far = (float(discrepancy(one, other + by).mean()) for by in (0.0, 0.2, 2.0))
    assert same == pytest.approx(0.0, abs=0.003)
    assert same + 0.01 < near < far
    # Far from each other it still tells which way is nearer, in as many elements as a claw has.
    assert float(discrepancy(one, other + 2.1).mean()) > far + 0.02


def test_the_same_seed_gives_the_same_policy_whatever_else_draws_numbers() -> None:
    made = []
    for unrelated in (1, 2):
        torch.manual_seed(unrelated)
        made.append(learned("bear", 3).actor().state_tensors())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_nothing_is_learned_from_nothing() -> None:
    with pytest.raises(NoTransitions):
        OfflineLearner(Line(), [], OfflineSettings())
    with pytest.raises(ValueError, match=r"expectile is 1\.0"):
        OfflineSettings(expectile=1.0)


def test_corrected_weights_find_the_seven_state_tree_s_values_sooner() -> None:
    trees = [SevenStateTree(seed) for seed in range(12)]
    plain = np.array([tree.learn(60, corrected=False) for tree in trees])
    corrected = np.array([tree.learn(60, corrected=True) for tree in trees])
    assert np.median(corrected[:, 5]) < 0.5 * np.median(plain[:, 5])
    assert corrected[:, -1].max() < 1e-3
    assert plain[:, -1].max() > 1.0  # fresh data alone leave some of them wrong
