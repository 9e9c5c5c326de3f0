# SPDX-License-Identifier: Apache-2.0
"""The cell's URDF in PyBullet: the same joints, limits and kinematics, and balls reach the tray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import pytest
from twinloop.motion.semantics import semantics
from twinloop.robots.description import cell_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_JOINTS, FINGER_TRAVEL_M, PANDA
from twinloop_sim.arm_cell import arm_cell_settings, build_cell_model
from twinloop_sim.bullet_server import connect
from twinloop_sim.settings import mujoco_settings, scene_settings

NAMES = (*HAND24.joint_names, *PANDA.joint_names, *FINGER_JOINTS)
LOWER = np.concatenate([HAND24.lower, PANDA.lower, [0.0, 0.0]])
UPPER = np.concatenate([HAND24.upper, PANDA.upper, [FINGER_TRAVEL_M] * 2])
TICK_S = 0.005


@dataclass
class Cell:
    client: Any
    body: int
    joints: dict[str, int]
    links: dict[str, int]

    def pose(self, q: np.ndarray) -> None:
        for name, value in zip(NAMES, q, strict=True):
            self.client.resetJointState(self.body, self.joints[name], value)


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    path = tmp_path_factory.mktemp("cell") / "cell.urdf"
    path.write_text(cell_urdf())
    client = connect()
    body = client.loadURDF(str(path), useFixedBase=True)
    infos = [client.getJointInfo(body, index) for index in range(client.getNumJoints(body))]
    joints = {info[1].decode(): info[0] for info in infos}
    links = {info[12].decode(): info[0] for info in infos}
    yield Cell(client, body, joints, links)
    client.disconnect()


def test_joints_have_their_names_limits_and_speeds(cell: Cell) -> None:
    infos = [cell.client.getJointInfo(cell.body, cell.joints[name]) for name in NAMES]
    np.testing.assert_allclose([info[8] for info in infos], LOWER, atol=1e-6)
    np.testing.assert_allclose([info[9] for info in infos], UPPER, atol=1e-6)
    arm = infos[24:31]
    np.testing.assert_allclose([info[11] for info in arm], PANDA.velocity)
    movable = {
        name for name, i in cell.joints.items() if cell.client.getJointInfo(cell.body, i)[2] != 4
    }
    assert movable == set(NAMES)


def test_every_link_is_where_mujoco_has_it(cell: Cell) -> None:
    model = build_cell_model(scene_settings(), mujoco_settings())
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(3):
        q = rng.uniform(LOWER, UPPER)
        data.qpos[: q.size] = q
        mujoco.mj_kinematics(model, data)
        cell.pose(q)
        states = cell.client.getLinkStates(
            cell.body, list(cell.links.values()), computeForwardKinematics=1
        )
        for name, state in zip(cell.links, states, strict=True):
            np.testing.assert_allclose(state[4], data.body(name).xpos, atol=2e-5, err_msg=name)


def test_dropped_balls_roll_from_the_palm_to_the_tray(cell: Cell) -> None:
    client = cell.client
    q = np.concatenate([HAND24.poses["cup"], semantics().states["rest"], [0.04, 0.04]])
    cell.pose(q)
    for name, value in zip(NAMES, q, strict=True):
        client.setJointMotorControl2(
            cell.body, cell.joints[name], client.POSITION_CONTROL, targetPosition=value, force=90
        )
    for surface in (arm_cell_settings().floors, arm_cell_settings().walls):
        sliding, torsional, rolling = surface.friction
        for link in surface.links:
            client.changeDynamics(
                cell.body,
                cell.links[link],
                lateralFriction=sliding,
                spinningFriction=torsional,
                rollingFriction=rolling,
            )
    client.setGravity(0.0, 0.0, -9.81)
    client.setTimeStep(TICK_S)
    scene = scene_settings()
    sphere = client.createCollisionShape(client.GEOM_SPHERE, radius=scene.balls.radius_m)
    balls = [client.createMultiBody(scene.balls.mass_kg, sphere) for _ in range(2)]
    for ball, side in zip(balls, (1.0, -1.0), strict=True):
        client.changeDynamics(ball, -1, lateralFriction=1.0, rollingFriction=1e-4)
        client.resetBasePositionAndOrientation(ball, [side * 0.14, -0.02, 0.29], [0, 0, 0, 1])
    for _ in range(round(4.0 / TICK_S)):
        client.stepSimulation()
    place, turn = client.getLinkState(cell.body, cell.links["tray"])[4:6]
    axes = np.reshape(client.getMatrixFromQuaternion(turn), (3, 3))
    found = [np.array(client.getBasePositionAndOrientation(ball)[0]) for ball in balls]
    along = sorted(float(((one - place) @ axes)[0]) for one in found)
    # Where MuJoCo has them too: one at the end board, one behind it.
    np.testing.assert_allclose(along, [-0.142, -0.086], atol=0.003)
