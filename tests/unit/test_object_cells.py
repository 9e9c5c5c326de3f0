# SPDX-License-Identifier: Apache-2.0
"""Cells with one tracked object: every one of them is deterministic, whatever is beside it."""

from collections.abc import Callable

import numpy as np
import pytest
from twinloop_sim import cells
from twinloop_sim.cells.object_cell import ObjectCell
from twinloop_sim.cells.pose_tracker import rotation_of, vector_of
from twinloop_sim.cells.strokes import digit_stroke, random_stroke

OBJECTS = sorted(set(cells.available()) - {"baoding"})


@pytest.fixture
def make() -> Callable[..., ObjectCell]:
    made = []

    def build(*args, **kwargs) -> ObjectCell:
        made.append(cells.make(*args, **kwargs))
        return made[-1]

    yield build
    for cell in made:
        cell.close()


def wandering(cell: ObjectCell, steps: int, seed: int = 0) -> np.ndarray:
    """Joint targets [steps, A] about where the command stands."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(0.0, 0.03, (steps, cell.joints)).cumsum(axis=0)
    return cell.command[0] + walk


@pytest.mark.parametrize("name", OBJECTS)
def test_equal_seeds_and_actions_give_equal_observations_whatever_is_beside(make, name) -> None:
    alone, among = make(name, 1), make(name, 3, threads=2)
    first = [alone.reset([5])[0]]
    second = [among.reset([4, 5, 6])[1]]
    for action in wandering(alone, 4):
        first.append(alone.step(action[None])[0])
        second.append(among.step(np.stack([action + 0.01, action, action - 0.01]))[1])
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_restored_state_goes_on_bit_exactly(make, name) -> None:
    cell = make(name, 2)
    cell.reset([1, 2])
    actions = wandering(cell, 5)
    for action in actions[:2]:
        cell.step(np.stack([action, action]))
    kept = cell.get_state([1])
    ahead = [cell.step(np.stack([action, action]))[1] for action in actions[2:]]
    other = make(name, 1)
    other.reset([9])
    again = [other.set_state(kept)[0]]
    again += [other.step(action[None])[0] for action in actions[2:]]
    np.testing.assert_array_equal(again[1:], ahead)


@pytest.mark.parametrize("name", OBJECTS)
def test_observations_follow_the_contract_and_see_through_a_tracker(make, name) -> None:
    cell = make(name, 2)
    observation = cell.reset([3, 4])
    place = cell.contract.slices
    assert observation.shape == (2, cell.contract.observation_size)
    assert observation.dtype == np.float32
    np.testing.assert_array_equal(observation[:, place["command"]], cell.command.astype(np.float32))
    assert cell.is_observable.all()
    assert not np.array_equal(
        cell.reset([3, 4])[:, place["goal"]], cell.reset([7, 8])[:, place["goal"]]
    )


@pytest.mark.parametrize("name", OBJECTS)
def test_commands_are_limited_in_place_and_speed(make, name) -> None:
    cell = make(name, 1)
    cell.reset([0])
    before = cell.command.copy()
    cell.step(before + 10.0)
    largest = cell.joint_speed * cell.contract.period_s
    assert (cell.command - before).max() <= largest + 1e-9
    assert (cell.command <= np.array(cell.contract.action.upper) + 1e-9).all()
    with pytest.raises(ValueError, match="finite"):
        cell.step(np.full_like(before, np.nan))


def test_unknown_cells_engines_and_seeds_are_refused(make) -> None:
    with pytest.raises(ValueError, match="no cell for task 'juggling'"):
        cells.make("juggling", 1)
    with pytest.raises(ValueError, match="runs on mujoco"):
        cells.make("valve", 1, engine="pybullet")
    cell = make("valve", 1)
    with pytest.raises(ValueError, match="negative"):
        cell.reset([-1])
    with pytest.raises(ValueError, match="seeds"):
        cell.reset([1, 2])


def test_an_untouched_valve_stays_where_it_is(make) -> None:
    cell = make("valve", 2)
    cell.reset([0, 1])
    before = cell.truth().rotation
    for _ in range(5):
        cell.step(cell.command)
    np.testing.assert_allclose(cell.truth().rotation, before, atol=1e-6)


def test_a_cube_at_rest_stays_in_the_palm(make) -> None:
    cell = make("cube", 2)
    cell.reset([0, 1])
    before = cell.truth().position
    for _ in range(10):
        cell.step(cell.command)
    np.testing.assert_allclose(cell.truth().position, before, atol=0.005)


def test_a_pencil_at_rest_keeps_its_tip_on_the_paper(make) -> None:
    cell = make("pencil", 2)
    cell.reset([0, 1])
    for _ in range(10):
        cell.step(cell.command)
    assert (np.abs(cell.truth().position[:, 2]) < 0.002).all()


def test_the_path_ahead_moves_on_with_the_steps(make) -> None:
    cell = make("pencil", 1)
    where = cell.contract.slices["goal"]
    before = cell.reset([0])[0, where].reshape(-1, 2)
    after = cell.step(cell.command)[0, where].reshape(-1, 2)
    np.testing.assert_array_equal(after[:-1], before[1:])


def test_strokes_begin_at_the_origin_and_digits_have_their_height() -> None:
    assert np.linalg.norm(random_stroke(np.random.default_rng(0), 80, 0.1)[0]) < 0.002
    for digit in range(10):
        path = digit_stroke(digit, 80, 0.016)
        np.testing.assert_array_equal(path[0], 0.0)
        assert np.ptp(path[:, 1]) == pytest.approx(0.016, rel=0.1)
    with pytest.raises(ValueError, match="digit is 12"):
        digit_stroke(12, 80, 0.016)


def test_rotation_vectors_and_matrices_are_inverse_to_each_other() -> None:
    vectors = np.random.default_rng(0).normal(0.0, 0.8, (20, 3))
    np.testing.assert_allclose(vector_of(rotation_of(vectors)), vectors, atol=1e-9)
    np.testing.assert_array_equal(vector_of(rotation_of(np.zeros((1, 3)))), 0.0)
