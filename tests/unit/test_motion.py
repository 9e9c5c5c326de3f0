# SPDX-License-Identifier: Apache-2.0
"""The arm's planner: goals, errors, lines, and an independent check of what it plans."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import yaml
from cell_checker import CellChecker, limit_share
from twinloop.motion import make_planner
from twinloop.motion.errors import (
    ExecutionFailed,
    GoalInCollision,
    NoPath,
    OutOfLimits,
    StartInCollision,
    Unreachable,
)
from twinloop.motion.ompl_planner import OmplPlanner
from twinloop.motion.planner import Ball, Pose, Scene
from twinloop.motion.semantics import arm_limits, semantics, srdf
from twinloop.motion.timing import excess
from twinloop.paths import share
from twinloop.robots.description import cell_urdf
from twinloop.robots.panda import PANDA

DOWN = np.diag([1.0, -1.0, -1.0])
OVER_PALM = Pose(np.array([0.0, 0.0, 0.30]), DOWN)


@pytest.fixture(scope="module")
def shared() -> OmplPlanner:
    planner = make_planner()
    assert isinstance(planner, OmplPlanner)
    return planner


@pytest.fixture
def planner(shared: OmplPlanner) -> OmplPlanner:
    shared.set_scene(Scene())
    shared.set_start_state("rest")
    shared.goal = None
    return shared


def over_tray(planner: OmplPlanner, height: float) -> Pose:
    """Over the ball that lies in front of the tray's end board."""
    tray = planner.world.pose(PANDA.poses["ready"], "tray")
    ball = tray.position + tray.rotation @ [-0.142, 0.0, 0.0284]
    return Pose(ball, DOWN).moved([0.0, 0.0, 0.005 + height])


def test_limits_are_the_same_for_moveit_and_for_us() -> None:
    table = yaml.safe_load(share("config", "moveit", "joint_limits.yaml").read_text())
    for index, name in enumerate(PANDA.joint_names):
        row = table["joint_limits"][name]
        assert row["max_velocity"] == PANDA.velocity[index]
        assert row["max_acceleration"] == PANDA.acceleration[index]
        assert row["max_jerk"] == PANDA.jerk[index]
    limits = arm_limits()
    for kind in ("lower", "upper", "velocity", "acceleration", "jerk"):
        np.testing.assert_array_equal(getattr(limits, kind), getattr(PANDA, kind))


def test_named_states_are_free_and_ready_is_frankas(planner) -> None:
    np.testing.assert_allclose(planner.semantics.states["ready"], PANDA.poses["ready"])
    for q in planner.semantics.states.values():
        assert planner.world.is_free(q, 0.05)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_srdf_names_links_that_are_there(side: str) -> None:
    planner = make_planner(side=side)
    names = set().union(*semantics(side).allowed)
    assert [name for name in names if not planner.world.model.existFrame(name)] == []
    assert 'name="twinloop_cell"' in srdf(side)


def test_the_srdf_lets_all_touch_that_the_arm_cannot_help() -> None:
    tree = ElementTree.fromstring(cell_urdf())
    solid = [
        link.get("name") for link in tree.findall("link") if link.find("collision") is not None
    ]
    others = [name for name in solid if not name.startswith("panda")]
    missing = [
        pair
        for pair in itertools.combinations(others, 2)
        if frozenset(pair) not in semantics().allowed
    ]
    assert missing == []


def test_the_tool_is_where_mujoco_puts_it(planner) -> None:
    checker = CellChecker(planner.semantics.allowed)
    q = np.random.default_rng(0).uniform(PANDA.lower, PANDA.upper)
    position, rotation = checker.tool(q)
    pose = planner.world.pose(q)
    np.testing.assert_allclose(pose.position, position, atol=1e-9)
    np.testing.assert_allclose(pose.rotation, rotation, atol=1e-9)


def test_checks_with_a_margin_agree_with_distances(planner) -> None:
    rng = np.random.default_rng(1)
    planner.set_scene(Scene(finger_m=0.028, held_radius_m=0.028))
    near = 0
    for q in rng.uniform(PANDA.lower, PANDA.upper, (300, 7)):
        distance = planner.world.clearance(q)
        near += 0.0 < distance < 0.03
        for margin in (0.0, 0.01, 0.03):
            if abs(distance - margin) > 1e-5:
                assert planner.world.is_free(q, margin) == (distance > margin)
    assert near > 3


def test_plans_are_free_and_within_limits_by_another_engine(planner) -> None:
    checker = CellChecker(planner.semantics.allowed)
    scene = Scene(finger_m=0.028, held_radius_m=0.028)
    planner.set_scene(scene)
    for goal in (over_tray(planner, 0.15), OVER_PALM, over_tray(planner, 0.15)):
        planner.set_goal_state(pose=goal)
        trajectory = planner.plan()
        found = checker.check(scene, trajectory)
        assert found["collisions"] == 0
        assert found["limit_share"] <= 1.0 + 1e-6
        position, _ = checker.tool(trajectory.position[-1])
        np.testing.assert_allclose(position, goal.position, atol=1e-4)
        np.testing.assert_array_equal(trajectory.position[0], planner.start)
        planner.set_start_state(trajectory.position[-1])


def test_the_independent_check_sees_collisions_and_limits(planner) -> None:
    planner.set_goal_state(pose=OVER_PALM)
    trajectory = planner.plan()
    # What was planned free of a ball is in its way.
    middle = planner.world.pose(trajectory.at(trajectory.duration / 2)).position
    planner.set_scene(Scene(balls=(Ball(middle, 0.02),)))
    assert not all(planner.world.is_free(q, 0.0) for q in trajectory.position)
    checker = CellChecker(frozenset())
    assert checker.check(Scene(), trajectory)["collisions"] > 0  # neighbours meet at joints
    fast = trajectory.__class__(
        trajectory.joint_names,
        trajectory.time * 0.5,
        trajectory.position,
        trajectory.velocity * 2,
        trajectory.acceleration * 4,
    )
    assert limit_share(fast) > 1.0
    assert excess(fast, planner.limits) > 1.0


def test_a_ball_in_the_way_is_gone_round(planner) -> None:
    planner.set_goal_state(pose=OVER_PALM)
    direct = planner.plan()
    middle = planner.world.pose(direct.at(direct.duration / 2)).position
    scene = Scene(balls=(Ball(middle, 0.03),))
    planner.set_scene(scene)
    around = planner.plan()
    tool = [planner.world.pose(q).position for q in around.position]
    assert np.linalg.norm(np.array(tool) - middle, axis=1).min() > 0.03


def test_scaling_makes_motions_gentler(planner) -> None:
    planner.set_goal_state("ready")
    whole = planner.plan()
    gentle = planner.plan(velocity_scaling=0.3, acceleration_scaling=0.1)
    assert gentle.duration > 2 * whole.duration
    assert limit_share(gentle) < 0.31
    with pytest.raises(ValueError, match="velocity scaling"):
        planner.plan(velocity_scaling=0.0)


def test_lines_are_straight_and_reach_the_ball_in_the_tray(planner) -> None:
    planner.set_goal_state(pose=over_tray(planner, 0.12))
    planner.set_start_state(planner.plan().position[-1])
    goal = over_tray(planner, 0.0)
    line = planner.plan_line(goal, speed=0.2)
    poses = [planner.world.pose(q) for q in line.position]
    offset = np.array([pose.position for pose in poses]) - goal.position
    assert np.linalg.norm(offset[:, :2], axis=1).max() < 5e-4
    assert all(np.allclose(pose.rotation, DOWN, atol=2e-3) for pose in poses)
    assert np.linalg.norm(offset[-1]) < 1e-4
    assert excess(line, planner.limits) <= 1.0
    speed = np.linalg.norm(np.diff(offset, axis=0), axis=1) / 0.01
    assert speed.max() <= 0.2 + 1e-3
    # Fingers in the tray, so the way back is a line too, or a plan with less margin.
    planner.set_start_state(line.position[-1])
    back = planner.plan_line(over_tray(planner, 0.12))
    assert limit_share(line.then(back)) <= 1.0
    touching = planner.plan_line(over_tray(planner, 0.12), margin_m=0.0)
    assert touching.duration == back.duration
    planner.set_goal_state("rest")
    assert planner.plan().duration > 0.0


def test_lines_that_lead_into_things_or_out_of_reach_are_refused(planner) -> None:
    planner.set_goal_state(pose=OVER_PALM)
    planner.set_start_state(planner.plan().position[-1])
    with pytest.raises(GoalInCollision, match="rh_"):
        planner.plan_line(OVER_PALM.moved([0.0, 0.0, -0.17]))
    with pytest.raises(Unreachable, match="cannot be followed"):
        planner.plan_line(OVER_PALM.moved([0.9, 0.0, 0.0]))
    planner.set_scene(Scene(balls=(Ball(OVER_PALM.moved([-0.1, 0.0, 0.0]).position, 0.045),)))
    with pytest.raises(NoPath, match="ball 0"):
        planner.plan_line(OVER_PALM.moved([-0.2, 0.0, 0.0]))


def test_goals_that_cannot_be_reached_have_named_errors(planner) -> None:
    planner.set_goal_state(pose=Pose(np.array([1.5, 0.0, 0.3]), DOWN))
    with pytest.raises(Unreachable, match=r"1\.5"):
        planner.plan()
    planner.set_goal_state(pose=Pose(np.array([0.0, -0.02, 0.17]), DOWN))
    with pytest.raises(GoalInCollision, match="rh_palm"):
        planner.plan()
    folded = np.array([0.0, 1.7, 0.0, -0.5, 0.0, 1.6, 0.0])
    planner.set_goal_state(joint_positions=folded)
    with pytest.raises(GoalInCollision, match="panda"):
        planner.plan()
    planner.set_start_state(folded)
    planner.set_goal_state("ready")
    with pytest.raises(StartInCollision, match="panda"):
        planner.plan()


def test_a_goal_behind_a_wall_has_no_path(planner) -> None:
    # Columns of balls before and behind the base; above the shoulder so near that not even the
    # upright arm turns past.
    base = planner.world.pose(PANDA.poses["ready"], "panda_link0")
    columns = [
        Ball(base.position + side * away * base.rotation[:, 0] + np.array([0.0, 0.0, z]), 0.26)
        for side in (1, -1)
        for z in np.arange(0.0, 1.5, 0.15)
        for away in (0.43 if z < 0.5 else 0.38,)
    ]
    planner.set_scene(Scene(balls=tuple(columns)))
    aside = PANDA.poses["ready"] + np.array([-1.6, 0, 0, 0, 0, 0, 0])
    planner.set_start_state(aside + np.array([3.2, 0, 0, 0, 0, 0, 0]))
    planner.set_goal_state(joint_positions=aside)
    with pytest.raises(NoPath, match=r"0\.3 s"):
        planner.plan(timeout_s=0.3)


@pytest.mark.parametrize("value", [3.0, np.nan, np.inf])
def test_joint_positions_outside_limits_are_refused_by_name(planner, value: float) -> None:
    q = PANDA.poses["ready"].copy()
    q[3] = value
    for setter in (planner.set_start_state, lambda q: planner.set_goal_state(joint_positions=q)):
        with pytest.raises(OutOfLimits, match="panda_joint4"):
            setter(q)


def test_goals_and_states_that_make_no_sense_are_refused(planner) -> None:
    with pytest.raises(ValueError, match="'nowhere'.*ready"):
        planner.set_goal_state("nowhere")
    with pytest.raises(ValueError, match="one goal is needed, got 2"):
        planner.set_goal_state("rest", PANDA.poses["ready"])
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        planner.set_start_state(np.zeros(6))
    with pytest.raises(ValueError, match="not a rotation"):
        Pose(np.zeros(3), -np.eye(3))
    with pytest.raises(ValueError, match="no goal"):
        planner.plan()
    with pytest.raises(ValueError, match="fingers at"):
        Scene(finger_m=0.05)
    with pytest.raises(ValueError, match="'chomp'"):
        make_planner("chomp")


def test_a_pose_may_be_of_another_link_of_the_tool(planner) -> None:
    flange = planner.world.pose(planner.semantics.states["ready"], "panda_link8")
    planner.set_goal_state(pose=flange, pose_link="panda_link8")
    reached = planner.world.pose(planner.plan().position[-1], "panda_link8")
    np.testing.assert_allclose(reached.position, flange.position, atol=1e-4)


def test_the_present_state_is_taken_and_motions_are_carried_out() -> None:
    measured = PANDA.poses["ready"].copy()
    measured[1] = PANDA.upper[1] + 0.002  # as encoders read at a stop
    done = []
    planner = make_planner(current=lambda: measured, execute=lambda t: bool(done.append(t)) or True)
    planner.set_start_state_to_current_state()
    np.testing.assert_allclose(planner.start[1], PANDA.upper[1])
    measured[1] = -0.785
    planner.set_start_state_to_current_state()
    planner.set_goal_state("rest")
    trajectory = planner.plan()
    planner.execute(trajectory)
    assert done == [trajectory]
    with pytest.raises(ExecutionFailed, match="did not finish"):
        make_planner(execute=lambda t: False).execute(trajectory)
