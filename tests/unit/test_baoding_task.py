# SPDX-License-Identifier: Apache-2.0
"""The Baoding task: targets, cost, drops and rotation in the palm frame."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from twinloop.learning.episode import Episode
from twinloop.tasks.baoding import Baoding, RotationTracker, load_config

CONFIG = load_config()
DEPTH = -0.035  # palm y of a ball that lies in the cup [m]
RADIUS = 0.028


def observation(angle_deg: float) -> Tensor:
    """Both balls at rest about the middle of the cup, the line from 2 to 1 at this angle."""
    task = Baoding()
    row = torch.zeros(task.observation_size)
    x, z = CONFIG.center_m
    dx = RADIUS * math.cos(math.radians(angle_deg))
    dz = RADIUS * math.sin(math.radians(angle_deg))
    where = task.contract.slices["ball_position"]
    row[where] = torch.tensor([x + dx, DEPTH, z + dz, x - dx, DEPTH, z - dz])
    return row


def turning(degrees: list[float]) -> np.ndarray:
    return torch.stack([observation(angle) for angle in degrees]).numpy()


def with_ball(row: Tensor, ball: int, place: tuple[float, float, float]) -> Tensor:
    row = row.clone()
    start = Baoding().contract.slices["ball_position"].start + 3 * ball
    row[start : start + 3] = torch.tensor(place)
    return row


@pytest.mark.parametrize(("goal", "sign"), [("ccw", 1.0), ("cw", -1.0)])
def test_targets_lead_the_balls_in_the_tasks_direction_on_the_ellipse(goal, sign) -> None:
    task = Baoding(goal)
    targets = task.targets(observation(10.0), horizon=6)
    assert targets.shape == (6, 4)
    center, radii = torch.tensor(CONFIG.center_m), torch.tensor(CONFIG.radii_m)
    first = (targets[:, :2] - center) / radii
    assert torch.allclose(first.norm(dim=-1), torch.ones(6), atol=1e-5)
    assert torch.allclose(targets[:, 2:] - center, center - targets[:, :2], atol=1e-6)
    angle = torch.rad2deg(torch.atan2(first[:, 1], first[:, 0]))
    expected = 10.0 + sign * (CONFIG.lead_deg + torch.arange(6) * 360.0 / CONFIG.period_steps)
    assert torch.allclose((angle - expected + 180) % 360 - 180, torch.zeros(6), atol=1e-3)


def test_being_nearer_to_the_targets_costs_less_and_a_batch_costs_what_its_rows_do() -> None:
    task = Baoding()
    target = task.targets(observation(0.0), 1)[0]
    rows = torch.stack([observation(a) for a in (0.0, 30.0, 60.0)])
    cost = task.cost(rows, torch.zeros(3, task.action_size), target)
    assert cost[0] > cost[1] > cost[2]
    alone = [task.cost(row, torch.zeros(task.action_size), target) for row in rows]
    assert torch.allclose(cost, torch.stack(alone))
    nested = task.cost(rows.expand(2, 4, 3, -1), torch.zeros(task.action_size), target)
    assert nested.shape == (2, 4, 3)


def test_the_cost_has_derivatives_where_the_balls_are_in_their_places() -> None:
    task, row = Baoding(), observation(30.0)
    target = row[list(task.target_of)]
    action = torch.zeros(task.action_size)

    def cost(seen: Tensor) -> Tensor:
        return task.cost(seen, action, target)

    assert bool(torch.func.grad(cost)(row).isfinite().all())
    assert bool(torch.func.hessian(cost)(row).isfinite().all())


def test_a_dropped_ball_and_a_lifted_wrist_are_charged() -> None:
    task, row = Baoding(), observation(0.0)
    action, target = torch.zeros(task.action_size), task.targets(row, 1)[0]
    base = task.cost(row, action, target)
    dropped = with_ball(row, 0, (0.0, CONFIG.safe_upper_m[1] + 0.01, 0.07))
    assert task.cost(dropped, action, target) > base + CONFIG.drop_cost
    wrist = row.clone()
    wrist[1] = CONFIG.wrist_limit + 0.01
    assert torch.isclose(task.cost(wrist, action, target), base + CONFIG.wrist_cost)


def test_nearing_the_edge_costs_before_the_ball_is_lost() -> None:
    task, row = Baoding(), observation(0.0)
    x, z = CONFIG.center_m
    aim = torch.tensor([x, z, x, z])
    edge = CONFIG.safe_lower_m[0]
    costs = []
    for inside in (2 * CONFIG.spill_margin_m, 0.5 * CONFIG.spill_margin_m):
        moved = with_ball(row, 1, (edge + inside, DEPTH, z))
        costs.append(float(task.cost(moved, torch.zeros(task.action_size), aim)))
        assert not bool(task.failed(moved))
    nearer = 1.5 * CONFIG.spill_margin_m
    assert costs[1] - costs[0] > CONFIG.distance_weight * nearer + 0.5


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", ["safe_lower_m", "safe_upper_m"])
@pytest.mark.parametrize("ball", [0, 1])
def test_either_ball_beyond_any_face_of_the_box_has_dropped(axis, side, ball) -> None:
    place = [0.0, DEPTH, CONFIG.center_m[1]]
    out = 1.0 if side == "safe_upper_m" else -1.0
    for beyond, expected in ((-0.001, False), (0.001, True)):
        place[axis] = getattr(CONFIG, side)[axis] + out * beyond
        assert bool(Baoding().failed(with_ball(observation(0.0), ball, tuple(place)))) is expected


def test_a_ball_at_no_number_counts_as_dropped() -> None:
    assert bool(Baoding().failed(with_ball(observation(0.0), 0, (math.nan, DEPTH, 0.07))))


def test_rotation_is_unwrapped_and_positive_in_the_tasks_direction() -> None:
    turns = list(range(100, 541, 20))
    assert np.allclose(Baoding("ccw").rotation_deg(turning(turns))[[0, 4, -1]], [0, 80, 440])
    assert np.isclose(Baoding("cw").rotation_deg(turning(turns))[-1], -440)


def test_rotation_ends_at_the_drop() -> None:
    rows = turning([0, 30, 60, 90, 150])
    rows[3] = with_ball(torch.from_numpy(rows[3]), 0, (0.02, 0.1, 0.07)).numpy()
    task = Baoding()
    assert np.isclose(task.final_rotation_deg(rows), task.rotation_deg(rows[:4])[-1])
    assert np.isclose(task.final_rotation_deg(rows[:3]), 60)


@pytest.mark.parametrize("goal", ["ccw", "cw"])
def test_the_tracker_agrees_with_the_whole_episode(goal) -> None:
    task = Baoding(goal)
    rows = turning([170, 190, 230, 200, 160, 350, 371, 560])
    tracker = RotationTracker(task)
    assert np.allclose([tracker.update(row) for row in rows], task.rotation_deg(rows), atol=1e-3)


def test_success_needs_the_goal_and_both_balls() -> None:
    task = Baoding()

    def episode(rows: np.ndarray) -> Episode:
        return Episode(rows, np.zeros((len(rows) - 1, task.action_size)))

    far = turning(list(range(0, int(CONFIG.goal_deg) + 40, 20)))
    assert task.succeeded(episode(far))
    assert not task.succeeded(episode(far[:3]))
    lost = far.copy()
    lost[-1] = with_ball(torch.from_numpy(far[-1]), 1, (0.0, 0.1, 0.0)).numpy()
    assert not task.succeeded(episode(lost))


def test_bad_settings_are_refused_by_name(tmp_path) -> None:
    with pytest.raises(ValueError, match="goal is 'left'"):
        Baoding("left")
    with pytest.raises(ValueError, match="period_steps is 0"):
        dataclasses.replace(CONFIG, period_steps=0)
    with pytest.raises(ValueError, match="radii_m"):
        dataclasses.replace(CONFIG, radii_m=(0.0, 0.02))
    with pytest.raises(ValueError, match="not below"):
        dataclasses.replace(CONFIG, safe_lower_m=CONFIG.safe_upper_m)
    path = tmp_path / "task.yaml"
    path.write_text("task: {lead_deg: 3, speed: 2}")
    with pytest.raises(ValueError, match=r"missing \['center_m'.*unknown \['speed'\]"):
        load_config(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no section 'task'"):
        load_config(path)
