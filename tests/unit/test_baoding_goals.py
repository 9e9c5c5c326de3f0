# SPDX-License-Identifier: Apache-2.0
"""Goals of Baoding other than one turn: places, and a goal of its own for every hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from turning_bags import turning
from twinloop.learning.baoding_goals import BaodingGoals
from twinloop.learning.episode import Episode
from twinloop.learning.rollout import Aims, roll_out
from twinloop.learning.step_replay import Runs
from twinloop.tasks.baoding import Baoding

CCW, CW = (1.0, 0.0, 0.0, 0.0, 0.0), (-1.0, 0.0, 0.0, 0.0, 0.0)
TASK = Baoding()
ROWS = torch.from_numpy(turning(90.0, steps=30).observations)
ACTION = torch.zeros(24)


def shifted(row: torch.Tensor, ball: int, dx: float, dz: float) -> torch.Tensor:
    """Return an observation with one ball moved in the plane of the palm."""
    row = row.clone()
    first = TASK.target_of[2 * ball]
    row[first] += dx
    row[first + 2] += dz
    return row


def episode(rows: list[torch.Tensor]) -> Episode:
    return Episode(torch.stack(rows).numpy(), np.zeros((len(rows) - 1, 24)))


def test_hold_keeps_the_places_of_the_first_observation() -> None:
    task = Baoding("hold").begin(ROWS[0], 0)
    targets = task.targets(ROWS[20], 3)
    assert targets.shape == (3, 4)
    assert torch.equal(targets, ROWS[0, list(TASK.target_of)].expand(3, 4))
    assert task.begin(ROWS[5], 1) is task


def test_before_an_episode_begins_balls_are_to_stay() -> None:
    task = Baoding("hold")
    assert torch.equal(task.targets(ROWS, 1)[:, 0], ROWS[:, list(TASK.target_of)])


@pytest.mark.parametrize(("left_deg", "sign"), [(100.0, 1.0), (-100.0, -1.0), (200.0, -1.0)])
def test_balls_turn_the_shorter_way_to_places_across(left_deg: float, sign: float) -> None:
    row = ROWS[0]
    places = placed_at(float(TASK.angle(row)) + math.radians(left_deg))
    targets = Baoding("hold", places=places).targets(row, 3)
    assert torch.allclose(targets, TASK.running(row, sign, 3))


@pytest.mark.parametrize("left_deg", [70.0, -70.0])
def test_places_are_the_targets_once_balls_are_near(left_deg: float) -> None:
    places = placed_at(float(TASK.angle(ROWS[0])) + math.radians(left_deg))
    targets = Baoding("hold", places=places).targets(ROWS[0], 2)
    assert torch.allclose(targets, torch.tensor(places).expand(2, 4))


def placed_at(angle: float) -> list[float]:
    x, z = TASK.place_at(angle)
    return [x, z, *TASK.place_at(angle + math.pi)]


def test_move_draws_a_place_within_reach_from_the_seed_and_ball_2_goes_across() -> None:
    places = [Baoding("move").begin(ROWS[0], seed).places for seed in range(50)]
    stacked = torch.stack(places)
    center = torch.tensor(TASK.config.reach_center_m)
    radii = torch.tensor(TASK.config.reach_radii_m)
    on_ellipse = ((stacked[:, :2] - center) / radii).square().sum(-1)
    assert torch.allclose(on_ellipse, torch.ones(50), atol=1e-4)
    assert torch.allclose(stacked[:, :2] + stacked[:, 2:], 2 * center.expand(50, 2), atol=1e-6)
    # Both fit: the balls are 56 mm thick.
    apart = torch.linalg.vector_norm(stacked[:, :2] - stacked[:, 2:], dim=-1)
    assert apart.min() > 0.056
    assert torch.equal(places[3], Baoding("move").begin(ROWS[9], 3).places)
    assert stacked[:, 0].std() > 0.01


def test_a_place_earns_1_when_there_and_less_the_further_away() -> None:
    here = ROWS[0]
    earned = [
        float(
            Baoding("hold", places=(here[list(TASK.target_of)] + offset).tolist()).reward(
                here, ACTION, here
            )
        )
        for offset in (0.0, 0.005, 0.01, 0.02, 0.03)
    ]
    assert earned[0] == pytest.approx(1.0, abs=0.05)
    assert earned == sorted(earned, reverse=True)
    assert earned[-1] < 0.1


def test_hold_is_measured_by_the_furthest_ball_of_the_whole_episode() -> None:
    still = [ROWS[0]] * 20
    task = Baoding("hold")
    assert task.succeeded(episode(still))
    assert task.score(torch.stack(still).numpy()) == pytest.approx(0.0, abs=1e-3)
    amid = [*still, shifted(ROWS[0], 1, 0.012, 0.0), *still]
    assert task.score(torch.stack(amid).numpy()) == pytest.approx(12.0, abs=1e-3)
    assert not task.succeeded(episode(amid))


def test_move_needs_ball_1_in_place_for_the_last_second_only() -> None:
    there = ROWS[0]
    places = there[list(TASK.target_of)].tolist()
    task = Baoding("move", places=places)
    away = shifted(there, 0, 0.03, 0.0)
    assert task.succeeded(episode([away] * 20 + [there] * 10))
    assert not task.succeeded(episode([away] * 20 + [there] * 9))
    # The other ball may be anywhere in the palm.
    aside = shifted(there, 1, 0.0, -0.02)
    assert task.succeeded(episode([away] * 20 + [aside] * 10))
    lost = there.clone()
    lost[TASK.target_of[2] + 1] = 0.2
    assert not task.succeeded(episode([away] * 20 + [lost] + [there] * 10))


def test_the_tracker_of_places_agrees_with_the_score() -> None:
    for goal in ("hold", "move"):
        task = Baoding(goal).begin(ROWS[0], 5)
        tracker = task.tracker()
        told = [tracker.update(row.numpy()) for row in ROWS]
        if goal == "hold":
            assert told[-1] == pytest.approx(task.score(ROWS.numpy()), abs=1e-3)
        else:
            assert max(told[-10:]) == pytest.approx(task.score(ROWS.numpy()), abs=1e-3)


@pytest.mark.parametrize(
    ("goal", "places", "message"),
    [
        ("ccw", [0.0, 0.1], "goal ccw got 2 numbers for places, expected 0"),
        ("hold", [0.0, 0.1], "expected 0 or 4"),
        ("move", [0.0, 0.1, 0.0], "expected 0 or 2 or 4"),
        ("move", [0.5, 0.1], "not all in the palm"),
        ("move", [float("nan"), 0.1], "not all in the palm"),
        ("juggle", [], "goal is 'juggle', expected one of ccw, cw, hold, move"),
    ],
)
def test_goals_that_cannot_be_are_refused_by_name(
    goal: str, places: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Baoding(goal, places=places)


def test_each_hand_has_its_own_goal() -> None:
    goals = BaodingGoals(TASK)
    tasks = [
        Baoding("ccw"),
        Baoding("cw"),
        Baoding("hold").begin(ROWS[3], 0),
        Baoding("move").begin(ROWS[0], 7),
    ]
    vectors = torch.tensor([goals.vector(task) for task in tasks])
    before, after = ROWS[:4], ROWS[1:5]
    action = 0.1 * torch.randn(4, 24, generator=torch.Generator().manual_seed(0))
    targets = goals.targets(before, vectors)
    rewards = goals.reward(before, action, after, vectors)
    for row, task in enumerate(tasks):
        assert torch.allclose(targets[row], task.targets(before[row], 1)[0], atol=1e-6)
        expected = task.reward(before[row], action[row], after[row])
        assert torch.allclose(rewards[row], expected, atol=1e-5)


def test_the_goal_of_an_episode_comes_from_what_is_known_of_it() -> None:
    goals = BaodingGoals(TASK)
    rows, actions = ROWS.numpy(), np.zeros((len(ROWS) - 1, 24))
    assert goals.of(Episode(rows, actions, {"goal": "cw"})) == CW
    placed = Episode(rows, actions, {"goal": "move", "places": [0.01, 0.1, 0.01, 0.06]})
    assert goals.of(placed) == pytest.approx((0.0, 0.01, 0.1, 0.01, 0.06))
    with pytest.raises(ValueError, match="has no places"):
        goals.of(Episode(rows, actions, {"goal": "hold"}))


def test_drawn_goals_come_in_the_wanted_shares() -> None:
    goals, rng = BaodingGoals(TASK), np.random.default_rng(0)
    drawn = [goals.draw(ROWS[0], rng, (1.0, 2.0, 0.0, 1.0)) for _ in range(400)]
    signs = [one[0] for one in drawn]
    assert signs.count(1.0) == pytest.approx(100, abs=30)
    assert signs.count(-1.0) == pytest.approx(200, abs=30)


def test_some_runs_are_learned_for_other_goals() -> None:
    goals = BaodingGoals(TASK, relabelled=0.5)
    count = 3000
    observations = ROWS[:4].expand(count, 4, -1)
    own = torch.tensor(CCW).expand(count, 5)
    runs = Runs(
        observations, torch.zeros(count, 3, 24), torch.full((count,), 3), torch.zeros(count), own
    )
    given = goals.relabel(runs, torch.Generator().manual_seed(0))
    is_place = given[:, 0] == 0.0
    assert float(is_place.float().mean()) == pytest.approx(1 / 2, abs=0.03)
    assert torch.equal(given[~is_place], own[~is_place])
    # Places lie across from each other, where both balls can be.
    points = given[is_place, 1:].unflatten(-1, (2, 2))
    center = torch.tensor(TASK.config.reach_center_m)
    assert torch.allclose(points.mean(1), center.expand(len(points), 2), atol=1e-6)
    radii = torch.tensor(TASK.config.reach_radii_m)
    assert torch.allclose(((points - center) / radii).norm(dim=-1), torch.ones(1), atol=1e-5)
    assert torch.equal(BaodingGoals(TASK, 0.0).relabel(runs, torch.Generator()), own)


class StillHands:
    """A cell in which nothing moves."""

    hands = 2
    command = np.zeros((2, 24))
    is_observable = np.ones(2, dtype=bool)

    def reset(self, seeds, hands=None) -> np.ndarray:
        return ROWS[:2].numpy()

    def step(self, action) -> np.ndarray:
        return ROWS[:2].numpy()


class Aimed:
    """Does nothing, and knows what it was told to aim at."""

    def __init__(self) -> None:
        self.values: list[tuple[float, ...]] = []

    def start(self, hand: int, seed: int) -> None:
        pass

    def aim(self, hand: int, task: Baoding) -> None:
        self.values.append(task.goal_values)

    def act(self, observations: np.ndarray) -> tuple[np.ndarray, None]:
        return np.zeros((2, 24)), None


def test_each_episode_has_places_of_its_own() -> None:
    actor = Aimed()
    records = roll_out(StillHands(), actor, Baoding("move"), [1, 2, 3], 5)
    places = [tuple(record.episode.meta["places"]) for record in records]
    assert len(set(places)) == 3
    assert sorted(actor.values) == sorted(places)
    assert all(len(one) == 4 for one in places)
    held = roll_out(StillHands(), actor, Baoding("hold"), [1], 12)[0]
    assert held.succeeded
    assert BaodingGoals(TASK).of(held.episode)[0] == 0.0


def test_hands_are_told_targets_of_their_own_episode() -> None:
    aims = Aims(TASK, 3)
    seen = ROWS[:3]
    assert torch.equal(aims.targets(seen, 2), TASK.targets(seen, 2))
    moves = Baoding("move").begin(seen[1], 5)
    aims.set(1, moves)
    told = aims.targets(seen, 2)
    assert torch.allclose(told[[0, 2]], TASK.targets(seen[[0, 2]], 2))
    assert torch.equal(told[1], moves.targets(seen[1], 2))
