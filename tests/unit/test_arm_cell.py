# SPDX-License-Identifier: Apache-2.0
"""The cell with ramp, tray and arm, in MuJoCo."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree

import mujoco
import numpy as np
import pytest
from twinloop.motion import make_planner
from twinloop.motion.planner import Pose, Scene
from twinloop.motion.trajectory import Trajectory
from twinloop.robots.description import cell_urdf, hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_JOINTS, FINGER_TRAVEL_M, PANDA
from twinloop_sim.arm_cell import arm_cell_settings, arm_positions, arm_targets, build_cell_model
from twinloop_sim.mujoco_twin import build_model
from twinloop_sim.settings import mujoco_settings, scene_settings

READY = PANDA.poses["ready"]


@pytest.fixture(scope="module")
def cell() -> mujoco.MjModel:
    return build_cell_model(scene_settings(), mujoco_settings())


def at_rest(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:24] = data.ctrl[:24] = HAND24.poses["cup"]
    if model.nu > 24:
        data.qpos[arm_positions(model)] = READY
        for name, value in zip(PANDA.joint_names, READY, strict=True):
            data.ctrl[model.actuator(name).id] = value
    return data


def links(urdf: str) -> dict[str, bytes]:
    return {
        element.attrib["name"]: ElementTree.canonicalize(
            ElementTree.tostring(element, encoding="unicode"), strip_text=True
        ).encode()
        for element in ElementTree.fromstring(urdf)
        if element.tag in ("link", "joint")
    }


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_hand_of_the_cell_is_the_hand_unchanged(side: str) -> None:
    whole, hand = links(cell_urdf(side)), links(hand_urdf(side))
    assert {name: whole[name] for name in hand} == hand


def test_joints_start_with_those_of_the_hand_and_the_balls_come_last(cell) -> None:
    names = [cell.joint(index).name for index in range(cell.njnt)]
    assert names[:24] == list(HAND24.joint_names)
    assert names[24:31] == list(PANDA.joint_names)
    assert names[-2:] == ["ball0", "ball1"]


def test_limits_of_the_arm_are_those_of_the_robot(cell) -> None:
    limits = np.array([cell.joint(name).range for name in PANDA.joint_names])
    np.testing.assert_allclose(limits, np.stack([PANDA.lower, PANDA.upper], axis=1))


def test_dropped_balls_come_to_rest_in_the_two_places_of_the_tray(cell) -> None:
    rng = np.random.default_rng(0)
    settled = []
    for _ in range(15):
        data = at_rest(cell)
        for ball, side in ((0, 0.0), (1, np.pi)):
            angle = side + rng.uniform(-0.9, 0.9)
            out = np.array([np.cos(angle), np.sin(angle)])
            joint = cell.joint(f"ball{ball}")
            start = [*(np.array([0.0, -0.03]) + rng.uniform(0.12, 0.15) * out), 0.29]
            data.qpos[joint.qposadr[0] :][:3] = start
            data.qvel[joint.dofadr[0] :][:2] = rng.uniform(0.0, 0.2) * out
        mujoco.mj_step(cell, data, 300)
        tray = data.body("tray")
        turn = tray.xmat.reshape(3, 3)
        places = [(data.body(f"ball{i}").xpos - tray.xpos) @ turn for i in range(2)]
        speeds = [np.linalg.norm(data.joint(f"ball{i}").qvel[:3]) for i in range(2)]
        settled.append((sorted(place[0] for place in places), max(speeds)))
    # One in front of the end board, one behind it, after 3 s.
    for found, speed in settled:
        np.testing.assert_allclose(found, [-0.142, -0.086], atol=0.002)
        assert speed < 0.01


def test_a_ball_on_the_roof_over_the_wrist_rolls_off(cell) -> None:
    data = at_rest(cell)
    joint = cell.joint("ball0")
    data.qpos[joint.qposadr[0] :][:3] = [0.01, -0.2, 0.31]
    mujoco.mj_step(cell, data, 300)
    assert data.body("ball0").xpos[2] < 0.0


def test_the_arm_rests_where_it_was_told_to(cell) -> None:
    data = at_rest(cell)
    mujoco.mj_step(cell, data, 200)
    np.testing.assert_allclose(data.qpos[arm_positions(cell)], READY, atol=1e-4)


def test_the_arm_brings_a_ball_from_the_tray_to_the_palm(cell) -> None:
    data = at_rest(cell)
    data.qpos[cell.joint("ball0").qposadr[0] :][:3] = [-0.45, 0.263, -0.2]
    data.qpos[cell.joint("ball1").qposadr[0] :][:3] = [0.5, 0.5, -0.57]
    fingers = [cell.actuator(name).id for name in FINGER_JOINTS]
    arm = [cell.actuator(name).id for name in PANDA.joint_names]
    data.ctrl[fingers] = FINGER_TRAVEL_M
    mujoco.mj_step(cell, data, 150)
    planner = make_planner()
    planner.set_start_state(READY)

    def follow(motion: Trajectory) -> None:
        for position, velocity in zip(motion.position[1:], motion.velocity[1:], strict=True):
            data.ctrl[arm] = arm_targets(position, velocity)
            mujoco.mj_step(cell, data)
            # Without lag, but for the fingers' reaction.
            assert np.abs(data.qpos[arm_positions(cell)] - position).max() < 0.03
        planner.set_start_state(motion.position[-1])

    def grip(opening_m: float) -> float:
        data.ctrl[fingers] = opening_m
        mujoco.mj_step(cell, data, 40)
        return sum(float(data.joint(name).qpos[0]) for name in FINGER_JOINTS)

    down = np.diag([1.0, -1.0, -1.0])
    pick = Pose(data.body("ball0").xpos + np.array([0.0, 0.0, 0.005]), down)
    planner.set_goal_state(pose=pick.moved([0.0, 0.0, 0.12]))
    follow(planner.plan())
    follow(planner.plan_line(pick, speed=0.3))
    assert grip(0.015) == pytest.approx(0.056, abs=0.003)  # as wide as the ball
    follow(planner.plan_line(pick.moved([0.0, 0.0, 0.12]), speed=0.3))
    planner.set_scene(Scene(finger_m=0.028, held_radius_m=0.028))
    # Over the middle of the palm, fingers of the gripper along those of the hand.
    tilt = np.radians(20.0)
    point = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
    opening = np.array([np.cos(tilt), 0.0, np.sin(tilt)])
    place = Pose([-0.029, 0.0, 0.205], np.stack([np.cross(opening, point), opening, point], 1))
    planner.set_goal_state(pose=place.moved([0.0, 0.0, 0.08]))
    follow(planner.plan(velocity_scaling=0.5, acceleration_scaling=0.2))
    follow(planner.plan_line(place, speed=0.2))
    grip(FINGER_TRAVEL_M)
    planner.set_scene(Scene())
    follow(planner.plan_line(place.moved([0.0, 0.0, 0.10]), speed=0.3))
    mujoco.mj_step(cell, data, 50)
    np.testing.assert_allclose(data.body("ball0").xpos, [0.0, 0.01, 0.17], atol=0.035)


def test_the_arm_at_rest_costs_at_most_six_tenths_of_the_hand() -> None:
    models = {
        "hand": build_model(scene_settings(), mujoco_settings()),
        "cell": build_cell_model(scene_settings(), mujoco_settings()),
    }
    states = {name: at_rest(model) for name, model in models.items()}
    spent: dict[str, list[float]] = {"hand": [], "cell": []}
    for name, model in models.items():
        mujoco.mj_step(model, states[name], 100)
    # Turn about, on the processor's clock, and the least of many: other load does not count.
    for _ in range(30):
        for name, model in models.items():
            began = time.process_time()
            mujoco.mj_step(model, states[name], 50)
            spent[name].append(time.process_time() - began)
    assert min(spent["cell"]) <= 1.6 * min(spent["hand"])


def test_settings_of_the_cell_are_read_and_checked() -> None:
    assert set(arm_cell_settings().floors.links) == {"ramp", "tray", "roof"}
