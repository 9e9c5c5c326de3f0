# SPDX-License-Identifier: Apache-2.0
"""The in-process cell with its arm: balls that drop and are brought back, stops, saved states."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from twinloop.motion import make_planner
from twinloop.motion.gripper_controller import Grip
from twinloop.motion.planner import Pose, Scene
from twinloop.motion.semantics import arm_limits, semantics
from twinloop.motion.timing import assemble, straight_leg
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import Following
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import PANDA
from twinloop_sim.cell import Cell

REST = semantics().states["rest"]
FLAT = np.clip(0.0, HAND24.lower, HAND24.upper)
CUP = HAND24.poses["cup"]
LIMITS = arm_limits()
DOWN = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def cell() -> Cell:
    return Cell(1, arm=True)


def until(cell: Cell, is_true: Callable[[], bool], at_most_s: float = 20.0) -> None:
    """Step with the hand where it is."""
    for _ in range(round(at_most_s * 10)):
        if is_true():
            return
        cell.step(cell.command)
    raise AssertionError(f"it did not come within {at_most_s} s")


def drop(cell: Cell, seed: int = 3) -> None:
    """Turn the palm so that both balls roll off, and wait until they lie still."""
    cell.reset([seed])
    tipped = cell.command.copy()
    tipped[0] = FLAT
    tipped[0, 1] = HAND24.lower[1]
    for _ in range(12):
        cell.step(tipped)
    for _ in range(45):
        cell.step(CUP[None])


def move(delta: float, start: np.ndarray = REST) -> Trajectory:
    leg = straight_leg(0, np.full(7, delta), LIMITS.scaled(0.4, 0.3))
    return assemble(PANDA.joint_names, start, [leg])


def test_a_reset_puts_the_balls_into_the_cup_and_the_arm_to_rest(cell: Cell) -> None:
    hand = Cell(1)
    for one in (hand, cell):
        one.reset([5])
    np.testing.assert_allclose(cell.truth().ball_position, hand.truth().ball_position, atol=2e-3)
    np.testing.assert_allclose(cell.arms[0].q, REST, atol=1e-3)
    assert cell.arms[0].width == pytest.approx(0.08, abs=1e-3)


def test_dropped_balls_stay_where_they_come_to_rest_until_something_brings_them(cell: Cell) -> None:
    drop(cell)
    balls = cell.state.ball_position[0]
    assert (balls[:, 2] < -0.15).all()
    before = cell.state
    observation = cell.reset([9], "present")
    assert observation.shape == (1, 84)
    np.testing.assert_array_equal(cell.state.ball_position, before.ball_position)
    np.testing.assert_array_equal(cell.state.q, before.q)
    cell.step(cell.command)
    np.testing.assert_allclose(cell.state.ball_position[0], balls, atol=1e-3)


def test_the_arm_brings_a_ball_back(cell: Cell) -> None:
    drop(cell)
    arm = cell.arms[0]
    planner = make_planner(current=lambda: arm.setpoint.position)

    def follow(motion: Trajectory) -> None:
        arm.execute(motion)
        until(cell, lambda: arm.motion.is_over)
        assert arm.motion.state is Following.SUCCEEDED, arm.motion
        planner.set_start_state_to_current_state()

    def to(pose: Pose, scaling: float = 0.5) -> None:
        planner.set_start_state_to_current_state()
        planner.set_goal_state(pose=pose)
        follow(planner.plan(velocity_scaling=scaling, acceleration_scaling=0.2))

    def line(pose: Pose) -> None:
        follow(planner.plan_line(pose, speed=0.2))

    balls = cell.state.ball_position[0]
    near = int(np.argmin(balls[:, 0]))
    pick = Pose(balls[near] + [0.0, 0.0, 0.005], DOWN)
    to(pick.moved([0.0, 0.0, 0.12]))
    line(pick)
    arm.grip(0.03, max_effort_n=30.0)
    until(cell, lambda: arm.grasp.is_over)
    assert arm.grasp.state is Grip.STALLED
    assert arm.width == pytest.approx(0.056, abs=0.003)
    line(pick.moved([0.0, 0.0, 0.12]))
    planner.set_scene(Scene(finger_m=0.028, held_radius_m=0.028))
    place = over_the_palm()
    to(place.moved([0.0, 0.0, 0.08]))
    line(place)
    assert np.linalg.norm(cell.state.ball_position[0, near] - place.position) < 0.02
    arm.grip(0.08)
    until(cell, lambda: arm.grasp.is_over)
    assert arm.grasp.state is Grip.REACHED
    planner.set_scene(Scene())
    line(place.moved([0.0, 0.0, 0.10]))
    np.testing.assert_allclose(cell.state.ball_position[0, near], [0.0, 0.01, 0.17], atol=0.035)


def over_the_palm() -> Pose:
    """Fingers of the gripper along those of the hand."""
    tilt = np.radians(20.0)
    point = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
    opening = np.array([np.cos(tilt), 0.0, np.sin(tilt)])
    turn = np.stack([np.cross(opening, point), opening, point], axis=1)
    return Pose(np.array([-0.029, 0.0, 0.205]), turn)


def test_a_gripper_that_holds_nothing_closes_whole(cell: Cell) -> None:
    cell.reset([1])
    arm = cell.arms[0]
    arm.grip(0.0, max_effort_n=10.0)
    until(cell, lambda: arm.grasp.is_over)
    assert arm.grasp.state is Grip.REACHED
    assert arm.width < 0.002


@pytest.mark.parametrize("how", ["cancel", "stop"])
def test_a_motion_that_is_ended_brakes_within_the_limits(cell: Cell, how: str) -> None:
    cell.reset([2])
    arm = cell.arms[0]
    arm.execute(move(1.2))
    told, measured = [], []
    command = cell.command
    for tick in range(150):
        if tick == 70:
            getattr(arm, how)("enough")
        cell.tick(command)
        told.append(arm.setpoint.position)
        measured.append(arm.q)
    speed = np.abs(np.diff(told, axis=0)) / cell.tick_s
    assert speed[68].max() > 0.8
    # From the tick after the word on it brakes, and comes to rest soon.
    assert speed[69].max() < speed[68].max()
    assert not arm.controller.is_moving
    np.testing.assert_array_equal(told[-1], told[-2])
    assert np.abs(measured[-1] - told[-1]).max() < 1e-3
    # The servos follow without lag, which would come to 0.06 rad.
    assert np.abs(np.array(measured) - told).max() < 0.02
    rates = {n: np.abs(np.diff(told, n, axis=0)) / cell.tick_s**n for n in (1, 2, 3)}
    assert (rates[1] <= LIMITS.velocity * 1.01).all()
    assert (rates[2] <= LIMITS.acceleration * 1.01).all()
    assert (rates[3] <= LIMITS.jerk * 1.01).all()


def test_a_saved_cell_goes_on_exactly_amid_a_motion(cell: Cell) -> None:
    cell.reset([4])
    cell.arms[0].execute(move(0.3))
    cell.arms[0].grip(0.02)
    cell.step(cell.command)
    state = cell.get_state()

    def go_on() -> list[np.ndarray]:
        arm = cell.arms[0]
        ends = [cell.step(CUP[None] - 0.1) for _ in range(8)]
        return [*ends, arm.q, cell.state.ball_position, np.array(arm.motion.number)]

    first = go_on()
    cell.reset([0])
    cell.set_state(state)
    for one, two in zip(first, go_on(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_steps_and_ticks_come_to_the_same(cell: Cell) -> None:
    ends = []
    for by_tick in (False, True):
        cell.reset([6])
        cell.arms[0].execute(move(0.1))
        for _ in range(8):
            if by_tick:
                for _ in range(10):
                    cell.tick(cell.ramp.step(cell.command))
            else:
                cell.step(cell.command)
        ends.append((cell.state.ball_position, cell.arms[0].q))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_cells_beside_each_other_do_not_matter() -> None:
    many, one = Cell(2, arm=True), Cell(1, arm=True)
    many.reset([1, 2])
    one.reset([2])
    many.arms[0].execute(move(0.2))
    for cell in (many, one):
        cell.arms[-1].execute(move(-0.2))
        for _ in range(5):
            cell.step(cell.command)
    np.testing.assert_array_equal(many.arms[1].q, one.arms[0].q)
    np.testing.assert_array_equal(many.state.ball_position[1], one.state.ball_position[0])


def test_an_engine_without_an_arm_says_so() -> None:
    with pytest.raises(ValueError, match="the cell with the arm runs on mujoco, got 'pybullet'"):
        Cell(1, "pybullet", arm=True)


def test_a_resting_arm_costs_the_cell_at_most_six_tenths(cell: Cell) -> None:
    hand = Cell(1)
    spent: dict[Cell, list[float]] = {hand: [], cell: []}
    for one in spent:
        one.reset([0])
    # Turn about, on the processor's clock, and the least of many: other load does not count.
    for _ in range(20):
        for one, times in spent.items():
            began = time.process_time()
            for _ in range(5):
                one.step(one.command)
            times.append(time.process_time() - began)
    assert min(spent[cell]) <= 1.6 * min(spent[hand])
