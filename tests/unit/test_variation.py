# SPDX-License-Identifier: Apache-2.0
"""Hands that differ from the nominal twin: each in its own way, and exactly as told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from twinloop.robots.hand24 import HAND24
from twinloop_sim.cell import Cell
from twinloop_sim.oracle import TrueDynamics
from twinloop_sim.variation import Variation, gap, spread

NOMINAL = Variation()


@pytest.fixture
def make() -> Callable[..., Cell]:
    cells = []

    def build(*args, **kwargs) -> Cell:
        cells.append(Cell(*args, **kwargs))
        return cells[-1]

    yield build
    for cell in cells:
        cell.close()


def actions(steps: int, hands: int) -> np.ndarray:
    """Joint targets [steps, hands, 24] that wander about the cup pose, equal for all hands."""
    walk = np.random.default_rng(0).normal(0.0, 0.04, (steps, 1, 24)).cumsum(axis=0)
    path = np.clip(HAND24.poses["cup"] + walk, HAND24.lower, HAND24.upper)
    return np.repeat(path, hands, axis=1)


def run(cell: Cell, seeds: list[int], steps: int = 8) -> np.ndarray:
    rows = [cell.reset(seeds)]
    rows += [cell.step(action) for action in actions(steps, cell.hands)]
    return np.stack(rows, axis=1)


def test_nominal_variations_change_nothing(make) -> None:
    plain, told = make(2), make(2, variations=[NOMINAL, NOMINAL])
    np.testing.assert_array_equal(run(plain, [1, 2]), run(told, [1, 2]))


def test_a_varied_hand_does_the_same_alone_and_beside_others(make) -> None:
    real = gap().draw(3)
    mixed = run(make(3, threads=2, variations=[NOMINAL, real, NOMINAL]), [5, 5, 6])
    np.testing.assert_array_equal(mixed[1:2], run(make(1, variations=[real]), [5]))
    np.testing.assert_array_equal(mixed[2:], run(make(1), [6]))
    assert not np.allclose(mixed[0], mixed[1], atol=1e-3)


@pytest.mark.parametrize("change", [{"ball_mass": 1.4}, {"friction": 0.6}, {"actuator_gain": 0.8}])
def test_physics_is_varied_one_by_one(make, change: dict[str, float]) -> None:
    cell = make(2, variations=[NOMINAL, Variation(**change)])
    run(cell, [0, 0])
    balls = cell.truth().ball_position
    assert np.abs(balls[0] - balls[1]).max() > 1e-5
    # A hand that is made nominal again is so to the last bit.
    cell.vary([1], [NOMINAL])
    same = run(cell, [0, 0])
    np.testing.assert_array_equal(same[0], same[1])


def test_heavier_balls_push_fingers_further_away(make) -> None:
    cell = make(2, variations=[NOMINAL, Variation(ball_mass=2.0)])
    observation = cell.reset([0, 0])
    give = np.abs(observation[:, :24] - cell.command)
    # Part of it is the weight of the hand itself.
    assert give[1].sum() > 1.2 * give[0].sum()


def test_encoders_are_off_by_the_offset_while_servos_follow_them(make) -> None:
    offsets = tuple(np.linspace(-0.03, 0.03, 24).tolist())
    cell = make(2, variations=[NOMINAL, Variation(joint_offset_rad=offsets)])
    observation = cell.reset([0, 0])
    # It starts where encoders say that the cup is, so the joints truly stand elsewhere.
    np.testing.assert_allclose(cell.command[0], cell.command[1], atol=1e-12)
    np.testing.assert_allclose(observation[1, :24], cell.state.q[1] + offsets, atol=1e-6)
    # By what encoders tell, both give way alike under the balls' weight.
    assert np.abs(observation[1, :24] - observation[0, :24]).max() < 0.025
    assert np.abs(cell.state.q[1] - cell.state.q[0] + offsets).max() < 0.025


def test_a_delay_holds_commands_back_by_as_many_ticks(make) -> None:
    cell = make(2, variations=[NOMINAL, Variation(command_delay_ticks=3)])
    cell.reset([0, 0])
    seen = []
    step = cell.twin.step
    cell.twin.step = lambda ctrl: seen.append(np.asarray(ctrl)) or step(ctrl)
    for action in actions(3, 2):
        cell.step(action)
    sent = np.concatenate(seen, axis=1)
    np.testing.assert_array_equal(sent[1, 3:], sent[0, :-3])
    assert not np.array_equal(sent[1], sent[0])


def test_the_tracker_sees_balls_beside_their_places(make) -> None:
    cell = make(2, variations=[NOMINAL, Variation(tracker_bias_m=(0.0, 0.0, 0.02))])
    balls = cell.contract.slices["ball_position"]
    seen = cell.reset([0, 0])[:, balls].reshape(2, 2, 3)
    shift = np.linalg.norm(seen[1] - seen[0], axis=-1)
    np.testing.assert_allclose(shift, 0.02, atol=1e-6)
    np.testing.assert_allclose(cell.truth().ball_position[1], cell.truth().ball_position[0])


def test_a_saved_varied_hand_goes_on_to_the_last_bit(make) -> None:
    real = gap().draw(0)
    cell, other = make(1, variations=[real]), make(1, variations=[real])
    cell.reset([4])
    path = actions(6, 1)
    for action in path[:3]:
        cell.step(action)
    other.set_state(cell.get_state())
    for action in path[3:]:
        np.testing.assert_array_equal(cell.step(action), other.step(action))


def test_ticks_and_steps_are_the_same_for_a_varied_hand(make) -> None:
    real = gap().draw(0)
    stepped, ticked = make(1, variations=[real]), make(1, variations=[real])
    stepped.reset([1])
    ticked.reset([1])
    ramp, before = ticked.make_ramp(1), ticked.command
    ramp.reset(before)
    for action in actions(3, 1):
        stepped.step(action)
        for tick in range(10):
            ticked.tick(ramp.step(before if tick < 5 else stepped.command))
        before = stepped.command
        np.testing.assert_array_equal(stepped.state.q, ticked.state.q)
        np.testing.assert_array_equal(stepped.joint_position, ticked.joint_position)


def test_true_dynamics_foretell_what_varied_hands_do(make) -> None:
    cell = make(2, variations=[NOMINAL, gap().draw(2)])
    cell.reset([0, 1])
    truth = TrueDynamics(cell)
    path = actions(4, 2)
    cell.step(path[0])
    foretold = truth.rollout(torch.zeros(1, 2, 84), torch.from_numpy(path[1:]))[:, 0]
    for step, action in enumerate(path[1:]):
        cell.step(action)
        np.testing.assert_allclose(foretold[step], truth.observe(), atol=1e-6)


def test_the_gap_is_what_was_promised_with_signs_of_its_seed() -> None:
    one = gap().draw(1)
    assert (one.ball_mass, one.friction, one.actuator_gain) == (1.4, 0.6, 0.8)
    assert one.command_delay_ticks == 2
    assert set(np.abs(one.joint_offset_rad)) == {0.03}
    assert set(np.abs(one.tracker_bias_m)) == {0.003}
    assert one == gap().draw(1)
    assert one.joint_offset_rad != gap().draw(2).joint_offset_rad


def test_drawn_variations_stay_within_their_spread() -> None:
    rng = np.random.default_rng(0)
    limits = spread()
    drawn = [limits.draw(rng) for _ in range(200)]
    for name in ("ball_mass", "friction", "actuator_gain", "command_delay_ticks"):
        low, high = getattr(limits, name)
        values = [getattr(one, name) for one in drawn]
        assert low <= min(values) <= max(values) <= high
        assert max(values) - min(values) > 0.8 * (high - low)
    offsets = np.array([one.joint_offset_rad for one in drawn])
    assert offsets.std() == pytest.approx(limits.joint_offset_rad, rel=0.1)


def test_what_cannot_be_varied_is_refused(make) -> None:
    with pytest.raises(ValueError, match="only those of mujoco"):
        make(1, "pybullet", variations=[NOMINAL])
    with pytest.raises(ValueError, match="2 hands need as many variations, got 1"):
        make(2, variations=[NOMINAL])
    with pytest.raises(ValueError, match="expected 24"):
        Variation(joint_offset_rad=(0.1,))
    with pytest.raises(ValueError, match="no variation 'nowhere'"):
        gap("nowhere")
    with pytest.raises(ValueError, match=r"scene\.yaml: "):
        gap("scene")
