# SPDX-License-Identifier: Apache-2.0
"""Episodes in process: what is recorded, and when they end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from twinloop.fleet import Job, run_job
from twinloop.learning.rollout import PlannedActor, RandomActor, roll_out
from twinloop.models.baoding import new_model
from twinloop.robots.hand24 import HAND24
from twinloop.tasks.baoding import Baoding
from twinloop_sim.cell import Cell

from twinloop import planners

torch.set_num_threads(1)
TASK = Baoding()
SMALL = {"samples": 6, "horizon": 2}


class ScriptedHands:
    """Hands whose first ball drops, or is lost from view, after a number of steps per seed."""

    def __init__(self, hands: int, drops: dict[int, int], losses: dict[int, int]) -> None:
        self.hands = hands
        self.command = np.zeros((hands, 24))
        self.seeds = [-1] * hands
        self.age = [0] * hands
        self.drops, self.losses = drops, losses

    def reset(self, seeds, start="cup", hands=None):
        for seed, hand in zip(seeds, hands, strict=True):
            self.seeds[hand], self.age[hand] = seed, 0
        return self._observe()

    def step(self, action):
        self.command = np.clip(action, -0.1, 0.1)
        self.age = [age + 1 for age in self.age]
        return self._observe()

    @property
    def is_observable(self):
        pairs = zip(self.seeds, self.age, strict=True)
        return np.array([age < self.losses.get(seed, 999) for seed, age in pairs])

    def _observe(self):
        rows = np.zeros((self.hands, 84), dtype=np.float32)
        rows[:, 72:78] = [-0.03, -0.035, 0.07, 0.03, -0.035, 0.07]
        for hand, (seed, age) in enumerate(zip(self.seeds, self.age, strict=True)):
            rows[hand, 0] = seed + age / 100
            if age >= self.drops.get(seed, 999):
                rows[hand, 73] = 0.1
        return rows


class Pushing:
    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []

    def start(self, hand: int, seed: int) -> None:
        self.started.append((hand, seed))

    def act(self, observations):
        return np.full((len(observations), 24), 0.5), None


def test_episodes_end_at_a_drop_a_loss_of_view_or_their_last_step() -> None:
    cell = ScriptedHands(2, drops={1: 3}, losses={2: 2})
    actor = Pushing()
    heard = []
    records = roll_out(cell, actor, TASK, [1, 2, 3], 5, {"source": "test"}, heard.append)
    assert [(r.stop_reason, len(r.episode)) for r in records] == [
        ("dropped", 3),
        ("balls_lost", 2),
        ("completed", 5),
    ]
    assert [r.episode.meta["seed"] for r in heard] == [2, 1, 3]
    assert [r.episode.meta["dropped"] for r in records] == [True, False, False]
    # The hand that is free first takes the seed that waits.
    assert actor.started == [(0, 1), (1, 2), (1, 3)]


def test_rows_belong_to_their_episode_and_actions_are_those_applied() -> None:
    records = roll_out(ScriptedHands(2, {1: 3}, {}), Pushing(), TASK, [1, 2, 3], 5)
    for record in records:
        seed, length = record.episode.meta["seed"], len(record.episode)
        expected = seed + np.arange(length + 1) / 100
        assert np.allclose(record.episode.observations[:, 0], expected)
        assert np.allclose(record.episode.actions, 0.1)
    ids = {record.episode.meta["episode_id"] for record in records}
    assert len(ids) == 3


@pytest.mark.parametrize("seeds", [[], [4, 4]])
def test_no_or_repeated_seeds_are_refused(seeds) -> None:
    with pytest.raises(ValueError, match="distinct seeds"):
        roll_out(ScriptedHands(1, {}, {}), Pushing(), TASK, seeds, 5)


def plan(seeds: list[int], hands: int = 2) -> list:
    planner = planners.make("mppi", new_model(0, 2, (8,)), TASK, 0, **SMALL)
    cell = Cell(hands)
    try:
        return roll_out(cell, PlannedActor(planner, TASK, hands, (0.0, 0.5)), TASK, seeds, 6)
    finally:
        cell.close()


def test_seeds_fix_planned_episodes_in_the_cell() -> None:
    first, again, other = plan([3, 4]), plan([3, 4]), plan([5, 6])
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a.episode.observations, b.episode.observations)
        assert np.array_equal(a.episode.actions, b.episode.actions)
        assert not np.array_equal(a.episode.actions, c.episode.actions)
    assert len(first[0].plan_ms) == len(first[0].disagreement) == 6


def test_recorded_actions_are_the_next_command_and_keep_to_the_joint_speed() -> None:
    for record in plan([8, 9, 10]):
        command = record.episode.observations[:, TASK.command]
        assert np.allclose(command[1:], record.episode.actions, atol=1e-6)
        change = np.abs(np.diff(command, axis=0)).max()
        assert 0.0 < change <= TASK.contract.action.rate * TASK.contract.period_s + 1e-6


def test_random_motion_keeps_to_its_speed_and_is_fixed_by_the_seed() -> None:
    def moves(seed: int) -> np.ndarray:
        actor = RandomActor(HAND24.poses["cup"], np.full(24, 0.2), TASK.command, 0.15, hands=1)
        actor.start(0, seed)
        row = np.zeros((1, 84), dtype=np.float32)
        row[0, TASK.command] = HAND24.poses["cup"]
        result = []
        for _ in range(10):
            action, _ = actor.act(row)
            assert np.abs(action - row[:, TASK.command]).max() <= 0.15 + 1e-6
            row[:, TASK.command] = action
            result.append(action[0])
        return np.array(result)

    assert np.array_equal(moves(1), moves(1))
    assert not np.array_equal(moves(1), moves(2))


def test_an_oracle_records_what_the_sensors_saw() -> None:
    record = run_job(Job("baoding", "oracle", (5,), steps=3, planner=SMALL))[0]
    assert record.episode.meta["source"] == "oracle"
    assert len(record.episode) == 3
    cell = Cell(1)
    seen, truth = cell.reset([5])[0], cell.truth().ball_position.reshape(-1)
    cell.close()
    balls = TASK.contract.slices["ball_position"]
    assert np.array_equal(record.episode.observations[0], seen)
    assert np.abs(seen[balls] - truth).max() > 1e-4
