# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from twinloop.robots.hand24 import HAND24
from twinloop.tasks.baoding import Baoding
from twinloop_sim.cell import Cell, CellState
from twinloop_sim.oracle import OracleSettings, TrueDynamics, demonstrate
from twinloop_sim.settings import scene_settings
from twinloop_sim.tracker_standin import TrackerStandin, into_palm
from twinloop_sim.visibility import Visibility


def actions(steps: int, hands: int = 1, seed: int = 0) -> np.ndarray:
    """Joint targets [steps, hands, 24] that wander about the cup pose."""
    walk = np.random.default_rng(seed).normal(0.0, 0.04, (steps, hands, 24)).cumsum(axis=0)
    return np.clip(HAND24.poses["cup"] + walk, HAND24.lower, HAND24.upper)


@pytest.fixture
def make() -> Callable[..., Cell]:
    cells = []

    def build(*args, **kwargs) -> Cell:
        cells.append(Cell(*args, **kwargs))
        return cells[-1]

    yield build
    for cell in cells:
        cell.close()


def test_observations_are_laid_out_by_the_contract(make) -> None:
    cell = make(2)
    observation = cell.reset([3, 4])
    place = cell.contract.slices
    assert observation.shape == (2, 84)
    assert observation.dtype == np.float32
    np.testing.assert_allclose(observation[:, place["joint_position"]], cell.state.q, rtol=1e-6)
    np.testing.assert_array_equal(observation[:, place["command"]], cell.command.astype(np.float32))
    balls = observation[:, place["ball_position"]].reshape(2, 2, 3)
    error = np.linalg.norm(balls - cell.truth().ball_position, axis=-1)
    assert (error > 1e-4).all()  # seen by a tracker
    assert (error < 0.02).all()
    np.testing.assert_array_equal(observation[:, place["ball_velocity"]], 0.0)


def test_a_command_acts_50_ms_after_its_step(make) -> None:
    moved, still = make(1), make(1)
    for cell in (moved, still):
        cell.reset([0])
    action = still.command + 0.1
    targets = {}
    for name, cell, goal in (("moved", moved, action), ("still", still, still.command)):
        step, seen = cell.twin.step, []
        cell.twin.step = lambda ctrl, step=step, seen=seen: seen.append(ctrl) or step(ctrl)
        cell.step(goal)
        targets[name] = seen[0][0]
    differs = np.abs(targets["moved"] - targets["still"]).max(axis=1) > 1e-9
    assert differs.tolist() == [False] * 5 + [True] * 5


def test_ticks_and_steps_are_the_same_cell(make) -> None:
    """A node goes tick by tick with a guard's ramp, a fleet step by step: equal to the last bit."""
    fleet, node = make(1), make(1)
    expected = [fleet.reset([5])]
    observed = [node.reset([5])]
    ramp, held = node.make_ramp(1), node.command
    ramp.reset(held)
    for action in actions(12):
        expected.append(fleet.step(action))
        goal = node.limit(action, held)
        for tick in range(10):
            node.tick(ramp.step(held if tick < 5 else goal))
        held = goal
        node.command = goal
        observed.append(node.observe())
    np.testing.assert_array_equal(observed, expected)


def test_targets_are_clamped_to_limits_and_joint_speed(make) -> None:
    cell = make(1, joint_speed=1.0)
    cell.reset([0])
    before = cell.command.copy()
    cell.step(np.full((1, 24), 10.0))
    assert np.abs(cell.command - before).max() == pytest.approx(0.1)
    for _ in range(40):
        cell.step(np.full((1, 24), -10.0))
    np.testing.assert_allclose(cell.command[0], HAND24.lower)


def test_equal_seeds_and_actions_give_equal_observations(make) -> None:
    runs = []
    for _ in range(2):
        cell = make(2, threads=2)
        runs.append([cell.reset([1, 2])] + [cell.step(a) for a in actions(10, 2)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_a_hand_observes_the_same_alone_and_in_a_fleet(make) -> None:
    fleet, alone = make(3), make(1)
    fleet.reset([1, 2, 3])
    alone.reset([2])
    for a in actions(10, 3):
        many, one = fleet.step(a), alone.step(a[1:2])
    np.testing.assert_array_equal(many[1], one[0])


@pytest.mark.parametrize("engine", ["mujoco", "pybullet"])
def test_a_saved_cell_goes_on_to_the_last_bit(make, engine: str) -> None:
    first, second = make(1, engine), make(1, engine)
    first.reset([1])
    for a in actions(4):
        first.step(a)
    saved = first.get_state()
    second.reset([9])
    second.step(actions(1)[0])
    np.testing.assert_array_equal(second.set_state(saved), first.observe())
    for a in actions(8, seed=1):
        expected, observed = first.step(a), second.step(a)
        np.testing.assert_array_equal(observed, expected)


def test_states_move_between_hands_of_different_cells(make) -> None:
    one, many = make(1), make(3)
    one.reset([1])
    for a in actions(5):
        one.step(a)
    many.reset([5, 6, 7])
    many.step(actions(1, 3)[0])
    many.set_state(one.get_state(), hands=[2])
    more = actions(6, 3, seed=2)
    for a in more:
        observed = many.step(a)
        expected = one.step(a[2:])
    np.testing.assert_array_equal(observed[2], expected[0])


def test_an_episode_can_start_from_a_state_with_noise_of_its_own(make) -> None:
    cell = make(1)
    cell.reset([1])
    for a in actions(5):
        cell.step(a)
    start = cell.get_state()
    first, second, again = (cell.reset([seed], start) for seed in (10, 11, 10))
    np.testing.assert_array_equal(first, again)
    place = cell.contract.slices
    joints, balls = place["joint_position"], place["ball_position"]
    np.testing.assert_array_equal(first[:, joints], second[:, joints])
    assert np.abs(first[:, balls] - second[:, balls]).max() > 1e-5


def test_some_hands_start_anew_while_others_go_on(make) -> None:
    fleet, alone = make(2), make(1)
    fleet.reset([1, 2])
    walk = actions(8, 2)
    for a in walk[:4]:
        fleet.step(a)
    kept = fleet.observe()[0]
    after = fleet.reset([7], hands=[1])
    np.testing.assert_array_equal(after[0], kept)
    np.testing.assert_array_equal(after[1], alone.reset([7])[0])
    for a in walk[4:]:
        np.testing.assert_array_equal(fleet.step(a)[1], alone.step(a[1:])[0])


def test_frames_come_at_30_hz_and_20_ms_late(make) -> None:
    cell = make(1)
    cell.reset([0])
    delivered = []
    for _ in range(30):
        tick = cell.tick(cell.command)
        if tick.sample is not None:
            delivered.append((tick.sample.tick, cell.tick_count))
    assert delivered == [(k + f, k + f + 2) for k in (0, 10, 20) for f in (0, 3, 7)]


def test_the_tracker_errs_by_5_mm_and_jitters_by_1_mm(make) -> None:
    hands = 64
    scene = scene_settings()
    cell = make(1)
    state = cell.state[np.zeros(hands, dtype=int)]
    tracker = TrackerStandin(hands, scene)
    tracker.reset(np.arange(hands), state, 0, list(range(hands)))
    true, _ = into_palm(state)
    errors = []
    for tick in range(600):
        if tracker.is_due(tick):
            tracker.expose(state, tick)
        sample = tracker.deliver(tick + 1)
        if sample is not None:
            errors.append(sample.position - true)
    length = np.linalg.norm(errors, axis=-1)
    jitter = np.linalg.norm(np.diff(errors, axis=0), axis=-1)
    assert length.mean() == pytest.approx(0.005, abs=0.0006)
    assert 0.0004 < jitter.mean() < 0.0015
    wander = np.linalg.norm(errors[-1] - errors[0], axis=-1)
    assert wander.mean() > 3 * jitter.mean()  # a bias that wanders


def fist(finger_joints: float) -> np.ndarray:
    q = HAND24.poses["cup"].copy()
    for name in ("FFJ3", "MFJ3", "RFJ3", "LFJ3", "FFJ2", "MFJ2", "RFJ2", "LFJ2"):
        q[HAND24.joint_names.index(f"rh_{name}")] = finger_joints
    return q


def test_balls_are_seen_in_the_open_hand_and_hidden_in_a_fist(make) -> None:
    cell = make(1)
    cell.reset([0])
    visibility = Visibility(scene_settings())
    balls = cell.state.ball_position
    assert visibility.fractions(cell.state.q, balls).min() > 0.8
    closed = visibility.fractions(fist(1.3)[None], balls - [0.0, 0.03, 0.02])
    assert closed.max() < 0.5


def test_one_ball_hides_the_other_one_behind_it() -> None:
    visibility = Visibility(scene_settings())
    far = np.array([0.005, -0.05, 0.2])
    toward = visibility.eyes.mean(axis=0) - far
    near = far + 0.07 * toward / np.linalg.norm(toward)
    fractions = visibility.fractions(fist(0.0)[None], np.array([[far, near]]))[0]
    assert fractions[1] == 1.0
    assert fractions[0] < 0.5


def test_a_hidden_ball_leaves_the_last_sample_in_force_until_it_is_too_old(
    make, monkeypatch
) -> None:
    cell = make(2)
    cell.reset([0, 1])
    cell.step(cell.command)
    place = cell.contract.slices["ball_position"]
    before = cell.observe()[:, place]
    monkeypatch.setattr(
        Visibility, "fractions", lambda self, q, balls: np.array([[0.1, 1.0], [1.0, 1.0]])
    )
    ages, observable = [], []
    for _ in range(5):
        observation = cell.step(cell.command)
        ages.append(cell.sample_age_s.round(3).tolist())
        observable.append(cell.is_observable.tolist())
    # The filter goes on for 100 ms, then its samples are stale and count no more.
    assert [age[0] for age in ages] == [0.07, 0.17, 0.27, 0.37, 0.47]
    assert observable == [[True, True]] * 2 + [[False, True]] * 3
    assert all(age[1] == 0.03 for age in ages)
    assert np.abs(observation[0, place] - before[0]).max() < 0.02


def test_what_cannot_be_done_is_refused(make) -> None:
    cell = make(1)
    cell.reset([0])
    with pytest.raises(ValueError, match=r"finite joint targets \(1, 24\), got \(1, 23\)"):
        cell.step(np.zeros((1, 23)))
    with pytest.raises(ValueError, match="finite"):
        cell.step(np.full((1, 24), np.nan))
    with pytest.raises(ValueError, match="'lap'"):
        cell.reset([0], "lap")
    with pytest.raises(ValueError, match="joint_speed"):
        Cell(1, joint_speed=-1.0)
    cell.tick(cell.command)
    for amid in (
        cell.get_state,
        lambda: cell.step(cell.command),
        lambda: cell.reset([0], hands=[0]),
    ):
        with pytest.raises(RuntimeError, match="1 ticks into a control step"):
            amid()
    cell.reset([0])
    assert cell.tick_count == 0


def test_a_state_of_another_engine_is_refused(make) -> None:
    cell, other = make(1), make(1, "pybullet")
    with pytest.raises(ValueError, match="pybullet"):
        other.set_state(cell.get_state())
    with pytest.raises(ValueError, match="needs mujoco"):
        TrueDynamics(other)


def test_true_dynamics_foretell_what_the_cell_does(make) -> None:
    cell = make(2)
    cell.reset([0, 1])
    for a in actions(3, 2):
        cell.step(a)
    model = TrueDynamics(cell)
    plan = np.stack([cell.limit(cell.command + d, cell.command) for d in (0.05, 0.1, 0.02)])
    rows = torch.from_numpy(np.repeat(plan, 3, axis=1))
    foretold = model.rollout(torch.zeros(1, 6, 84), rows).numpy()
    assert foretold.shape == (3, 1, 6, 84)
    for step, action in enumerate(plan):
        cell.step(action)
        happened = model.observe()
        np.testing.assert_array_equal(foretold[step, 0, 1], happened[0])
        np.testing.assert_array_equal(foretold[step, 0, 4], happened[1])


def test_planning_on_true_dynamics_turns_the_balls(make) -> None:
    cell = make(1, threads=2)
    settings = OracleSettings(samples=32, horizon=5)
    (episode,) = demonstrate(cell, Baoding("ccw"), [0], 25, settings)
    assert len(episode) == 25
    assert not episode.meta["dropped"]
    assert episode.meta["rotation_deg"] > 60.0
    speed = np.abs(np.diff(episode.actions, axis=0)).max()
    assert speed <= 0.15 + 1e-6


def test_states_carry_every_field_for_every_hand(make) -> None:
    cell = make(3)
    state = cell.get_state(hands=[0, 2])
    assert {field.name for field in fields(CellState)} >= {"physics", "ramp", "tracker", "held"}
    assert len(state.physics) == len(state.ramp) == len(state.command) == len(state.held) == 2
