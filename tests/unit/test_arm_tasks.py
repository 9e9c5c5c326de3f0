# SPDX-License-Identifier: Apache-2.0
"""Stacking and pushing with the arm: their errors and costs, and that their cells allow success."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from twinloop.learning.episode import Episode
from twinloop.planners.linear_quadratic.encoding import encoding_of
from twinloop.tasks.panda_tool import tool
from twinloop_sim import cells
from twinloop_sim.cells.arm_scene import reach, tool_chain
from twinloop_sim.cells.stacking import SEAT_M, STARTS

from twinloop import tasks


def seen(task: Any, **channels: Any) -> torch.Tensor:
    """An observation [O] at the task's pose with some channels set."""
    vector = torch.zeros(task.observation_size)
    for where in (task.joint_position, task.command):
        vector[where] = torch.tensor(task.center, dtype=torch.float32)
    if "block_rotation" in task.slices:
        vector[task.slices["block_rotation"]] = torch.tensor([1.0, 0, 0, 0, 1.0, 0])
    for name, values in channels.items():
        vector[task.slices[name]] = torch.as_tensor(values)
    return vector


def cost(task: Any, observation: torch.Tensor) -> float:
    action = observation[task.joint_position]
    return float(task.cost(observation, action, task.targets(observation, 1)[0]))


def test_a_block_is_stacked_when_it_sits_over_the_studs() -> None:
    task: Any = tasks.make("stacking")
    goal = [0.5, 0.0, SEAT_M]
    places = {
        "sits": ([0.5005, 0.0, SEAT_M + 0.0005], True),
        "on the studs": ([0.5, 0.0, SEAT_M + 0.0045], False),
        "beside": ([0.5, 0.04, SEAT_M], False),
    }
    for name, (place, stacked) in places.items():
        row = seen(task, block_position=place, goal=goal).numpy()
        episode = Episode(np.stack([row, row]), np.zeros((1, 7), dtype=np.float32))
        assert task.succeeded(episode) is stacked, name


def test_a_block_costs_more_low_beside_the_other_than_high() -> None:
    task: Any = tasks.make("stacking")
    goal = [0.5, 0.0, SEAT_M]
    low = seen(task, block_position=[0.5, 0.05, SEAT_M - 0.02], goal=goal)
    high = seen(task, block_position=[0.5, 0.05, SEAT_M + 0.03], goal=goal)
    seated = seen(task, block_position=goal, goal=goal)
    turned = seen(task, block_position=goal, goal=goal, block_rotation=[0.9, 0.4, 0, -0.4, 0.9, 0])
    assert cost(task, seated) < cost(task, high) < cost(task, low)
    assert cost(task, seated) < cost(task, turned)


def test_a_block_that_rests_on_the_studs_costs_much_more_than_one_in_its_seat() -> None:
    """4.5 mm are little of the way; a policy that hurries must not find it worth them."""
    task = tasks.make("stacking")
    goal = torch.tensor([0.5, 0.0, SEAT_M])
    seated, resting, high = (
        cost(task, seen(task, block_position=goal + torch.tensor([0.0, 0.0, z]), goal=goal))
        for z in (0.0, 0.0045, 0.05)
    )
    assert resting - seated > 0.12 * (high - seated)


def test_a_mug_nearer_to_its_coaster_costs_less_and_earns_more() -> None:
    task: Any = tasks.make("pushing")
    far = seen(task, mug_position=[0.40, 0.0, 0.035], goal=[0.56, 0.0, 0.035])
    near = seen(task, mug_position=[0.42, 0.0, 0.035], goal=[0.56, 0.0, 0.035])
    where = tool(torch.tensor(task.center))[0][0].item() + task.config.touch_m
    goals = [[where + ahead, 0.0, 0.035] for ahead in (0.16, 0.14)]
    costs = [cost(task, seen(task, mug_position=[where, 0.0, 0.035], goal=goal)) for goal in goals]
    assert costs[1] < costs[0]
    still = torch.zeros(7)
    assert float(task.reward(far, still, near)) > 0.9 > -0.9 > float(task.reward(near, still, far))
    assert float(task.error(far)) == pytest.approx(0.16)


def test_the_tool_is_where_the_kinematics_of_the_urdf_have_it() -> None:
    q = np.random.default_rng(0).uniform(-1.0, 1.0, (5, 7)) + tasks.make("pushing").center
    place, direction = tool(torch.from_numpy(q))
    position, rotation = tool_chain().poses(q)
    np.testing.assert_allclose(place, position[:, 0], atol=1e-9)
    np.testing.assert_allclose(direction, rotation[:, 0, :, 2], atol=1e-9)


def test_states_of_stacking_are_relative_to_the_goal_and_lead_back_at_goal_zero() -> None:
    task: Any = tasks.make("stacking")
    encoding = encoding_of(task)
    rng = np.random.default_rng(0)
    observation = rng.normal(size=task.observation_size)
    moved = observation.copy()
    for part in ("block_position", "goal"):
        moved[task.slices[part]] += [0.1, -0.2, 0.3]
    state = encoding.encode(observation)
    np.testing.assert_allclose(encoding.encode(moved), state, atol=1e-12)
    back = torch.from_numpy(encoding.decoder @ state)
    np.testing.assert_allclose(encoding.encode(back.numpy()), state, atol=1e-12)
    still = torch.from_numpy(rng.normal(size=7))
    rows = [task.cost(row, still, row[:0]) for row in (back, torch.from_numpy(observation))]
    assert float(rows[0]) == pytest.approx(float(rows[1]))


def test_states_of_pushing_keep_the_goal_and_lead_back_to_the_observation() -> None:
    task: Any = tasks.make("pushing")
    encoding = encoding_of(task)
    observation = np.random.default_rng(0).normal(size=task.observation_size)
    state = encoding.encode(observation)
    mug, goal = (observation[task.slices[name]] for name in ("mug_position", "goal"))
    np.testing.assert_allclose(state[task.slices["mug_position"]], mug - goal, atol=1e-12)
    np.testing.assert_allclose(encoding.decoder @ state, observation, atol=1e-12)


def test_a_block_is_wanted_lower_and_costs_less_the_nearer_it_is_to_over_its_seat() -> None:
    task: Any = tasks.make("stacking")
    goal = torch.tensor([0.5, 0.0, SEAT_M])
    heights = np.linspace(-0.005, 0.04, 91)
    wanted, costs = [], []
    for aside in (0.05, 0.02, 0.01, 0.005, 0.002, 0.0):
        each = [
            cost(task, seen(task, block_position=goal + torch.tensor([0.0, aside, z]), goal=goal))
            for z in heights
        ]
        wanted.append(heights[int(np.argmin(each))])
        costs.append(min(each))
    assert wanted == sorted(wanted, reverse=True)
    assert wanted[0] > 0.03
    assert wanted[-1] <= 0.0
    assert costs == sorted(costs, reverse=True)


def test_a_tool_that_has_left_the_mug_costs_more_than_one_that_touches_it() -> None:
    task: Any = tasks.make("pushing")
    x, y = tool(torch.tensor(task.center))[0][:2].tolist()
    costs = []
    for away in (task.config.touch_m, task.config.touch_m + 0.05):
        mug = [x + away, y, 0.035]
        goal = [mug[0] + 0.15, y, 0.035]
        costs.append(cost(task, seen(task, mug_position=mug, goal=goal)))
    assert costs[1] == pytest.approx(costs[0] + task.config.touch_weight * 0.05**2, rel=1e-3)


@pytest.mark.parametrize("start", STARTS)
def test_the_block_starts_where_it_is_said_to_and_stays_there(start) -> None:
    cell = cells.make("stacking", 2, starts=start)
    try:
        cell.reset([0, 1])
        before = cell.truth().position
        wanted = np.array([0.5, 0.0, 0.0]) + STARTS[start]
        np.testing.assert_allclose(before, np.tile(wanted, (2, 1)), atol=0.01)
        for _ in range(5):
            cell.step(cell.command)
        np.testing.assert_allclose(cell.truth().position, before, atol=0.001)
    finally:
        cell.close()


def test_a_block_that_is_led_over_the_studs_and_down_sits_and_one_beside_them_does_not() -> None:
    cell = cells.make("stacking", 2, starts="above")
    try:
        task: Any = tasks.make("stacking")
        observation = cell.reset([0, 1])
        goal = observation[:, task.slices["goal"]].astype(np.float64)
        aside = np.array([[0.0, 0.0], [0.0, 0.004]])
        down = [np.linspace(0.035, 0.007, 14), np.full(10, 0.007), np.linspace(0.007, -0.002, 40)]
        # Slowly: the servos lag behind a target that moves.
        for height in np.concatenate([np.full(18, 0.035), *down, np.full(6, -0.002)]):
            place = goal + np.column_stack([aside, np.full(2, height + 0.004)])
            observation = cell.step(np.stack([reach(row) for row in place]))
        error = task.error(torch.from_numpy(observation))
        assert float(error[0]) < task.tolerance < float(error[1])
    finally:
        cell.close()


def test_a_mug_goes_where_the_tool_pushes_it() -> None:
    cell = cells.make("pushing", 1)
    try:
        cell.reset([0])
        before = cell.truth().position[0]
        where = tool_chain().poses(cell.command[0])[0][0]
        for step in range(1, 16):
            cell.step(reach(where + np.array([0.008 * step, 0.0, 0.0]))[None])
        moved = cell.truth().position[0] - before
        assert 0.06 < moved[0] < 0.14
        assert np.abs(moved[1:]).max() < 0.02
    finally:
        cell.close()


def test_unknown_starts_and_places_out_of_reach_are_refused() -> None:
    with pytest.raises(ValueError, match="starts is 'under'"):
        cells.make("stacking", 1, starts="under")
    with pytest.raises(ValueError, match="does not reach"):
        reach([2.0, 0.0, 0.5])
