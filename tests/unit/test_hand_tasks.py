# SPDX-License-Identifier: Apache-2.0
"""Costs and measures of the valve, the cube and the pencil, on observations made by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from twinloop.bags.episodes import episode as read_episode
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.rollouts import write_rollout
from twinloop.learning.episode import Episode
from twinloop.models import from_tensors, new_model

from twinloop import tasks

HANDS = ["valve", "cube", "pencil"]


def observation(task: Any, **channels: list[float]) -> torch.Tensor:
    """An observation [O] at the task's centre with some channels set."""
    vector = torch.zeros(task.observation_size)
    center = torch.tensor(task.center, dtype=torch.float32)
    vector[task.joint_position] = center
    vector[task.command] = center
    for name, values in channels.items():
        vector[task.slices[name]] = torch.tensor(values)
    return vector


def valve_at(task: Any, angle: float, goal: float) -> torch.Tensor:
    return observation(
        task,
        valve_angle=[math.sin(angle), math.cos(angle)],
        goal=[math.sin(goal), math.cos(goal)],
    )


def columns(angle: float) -> list[float]:
    """First two columns of a rotation about y."""
    c, s = math.cos(angle), math.sin(angle)
    return [c, 0.0, -s, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("angle", "goal", "error"), [(0.0, 0.5, 0.5), (3.0, -3.0, 2 * math.pi - 6.0), (1.0, 1.0, 0.0)]
)
def test_the_valve_s_error_is_the_shorter_way_round(angle, goal, error) -> None:
    task: Any = tasks.make("valve")
    assert float(task.error(valve_at(task, angle, goal))) == pytest.approx(error, abs=1e-5)


def test_a_valve_nearer_to_its_goal_costs_less_and_earns_more() -> None:
    task: Any = tasks.make("valve")
    far, near = valve_at(task, 0.0, 1.0), valve_at(task, 0.1, 1.0)
    still = torch.zeros(task.action_size)
    target = task.targets(near, 1)[0]
    assert float(task.cost(near, still, target)) < float(task.cost(far, still, target))
    assert float(task.reward(far, still, near)) > 0.9 > 0.0 > float(task.reward(near, still, far))


def test_a_valve_succeeds_by_where_it_ends() -> None:
    task: Any = tasks.make("valve")
    rows = torch.stack([valve_at(task, a, 0.0) for a in (1.0, 0.5, 0.05)]).numpy()
    actions = np.zeros((2, task.action_size), dtype=np.float32)
    assert task.succeeded(Episode(rows, actions))
    assert not task.succeeded(Episode(rows[::-1].copy(), actions))
    assert task.score(rows) == pytest.approx(0.05, abs=1e-5)


def test_the_cube_s_error_is_the_angle_between_orientations() -> None:
    task: Any = tasks.make("cube")
    middle = list(task.config.center_m)
    seen = observation(task, cube_rotation=columns(0.2), goal=columns(0.9), cube_position=middle)
    assert float(task.error(seen)) == pytest.approx(0.7, abs=1e-4)
    # What a model predicts is not quite a rotation.
    bent = observation(task, cube_rotation=[2 * c for c in columns(0.2)], goal=columns(0.9))
    assert float(task.error(bent)) == pytest.approx(0.7, abs=1e-4)


def test_a_cube_outside_the_palm_has_dropped() -> None:
    task: Any = tasks.make("cube")
    kept = observation(task, cube_position=list(task.config.center_m))
    lost = observation(task, cube_position=[0.0, 0.1, 0.1])
    unknown = observation(task, cube_position=[math.nan, 0.0, 0.1])
    assert task.failed(torch.stack([kept, lost, unknown])).tolist() == [False, True, True]


def test_the_pencil_is_measured_against_the_waypoint_that_was_next() -> None:
    task: Any = tasks.make("pencil")
    ahead = [0.001 * k for k in range(1, 9) for _ in "xy"]
    first = observation(task, goal=ahead)
    second = observation(task, tip_position=[0.001, 0.004, 0.0])
    rows = torch.stack([first, second]).numpy()
    assert task.score(rows) == pytest.approx(3.0, abs=1e-4)
    progress = task.tracker()
    assert progress.update(rows[0]) == 0.0
    assert progress.update(rows[1]) == pytest.approx(3.0, abs=1e-4)
    np.testing.assert_allclose(task.targets(first, 3)[:, 0], [0.001, 0.002, 0.003], rtol=1e-5)


@pytest.mark.parametrize("name", HANDS)
def test_costs_take_any_leading_dimensions(name) -> None:
    task: Any = tasks.make(name)
    rows = torch.randn(2, 3, 4, task.observation_size)
    actions = torch.zeros(2, 3, 4, task.action_size)
    targets = task.targets(rows, 1)[..., 0, :]
    assert task.cost(rows, actions, targets).shape == (2, 3, 4)
    assert task.reward(rows, actions, rows).shape == (2, 3, 4)
    assert task.failed(rows).shape == (2, 3, 4)


@pytest.mark.parametrize("name", HANDS)
def test_unknown_goals_are_refused(name) -> None:
    with pytest.raises(ValueError, match=f"{name}: goal is 'upside down'"):
        tasks.make(name, "upside down")


@pytest.mark.parametrize("name", HANDS)
def test_models_know_the_command_keep_the_goal_and_do_not_look_at_it(name) -> None:
    task: Any = tasks.make(name)
    model = new_model(name, seed=0)
    rows = torch.randn(20, task.observation_size)
    actions = torch.randn(20, task.action_size)
    model.normalise(rows, actions, rows + 0.1 * torch.randn_like(rows))
    other = rows.clone()
    goal = task.slices["goal"]
    other[:, goal] += 0.5
    first, second = (
        model.predict(x.expand(model.members, -1, -1), actions).detach() for x in (rows, other)
    )
    torch.testing.assert_close(first[..., task.command], actions.expand(model.members, -1, -1))
    torch.testing.assert_close(second[..., goal], other[:, goal].expand(model.members, -1, -1))
    rest = [i for i in range(task.observation_size) if not goal.start <= i < goal.stop]
    torch.testing.assert_close(first[..., rest], second[..., rest], rtol=1e-3, atol=1e-4)
    again = from_tensors(model.config_json(), model.state_tensors())
    torch.testing.assert_close(again.predict(rows.expand(model.members, -1, -1), actions), first)


@pytest.mark.parametrize("name", HANDS)
def test_an_episode_comes_back_from_its_bag(name, tmp_path: Path) -> None:
    from twinloop_sim import cells

    task: Any = tasks.make(name)
    cell = cells.make(name, 1)
    rows, actions = [cell.reset([2])[0]], []
    for step in range(3):
        rows.append(cell.step(cell.command + 0.02 * step)[0])
        actions.append(cell.command[0].astype(np.float32))
    cell.close()
    episode = Episode(np.stack(rows), np.stack(actions))
    about = EpisodeMetadata(
        episode_id="one", index=0, task=name, goal=task.goal, robot=task.contract.robot, source="t"
    )
    write_rollout(tmp_path / "bag", episode, task.contract, about)
    again = read_episode(tmp_path / "bag", task.contract)
    np.testing.assert_allclose(again.observations, episode.observations, atol=1e-6)
    np.testing.assert_array_equal(again.actions, episode.actions)
