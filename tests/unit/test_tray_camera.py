# SPDX-License-Identifier: Apache-2.0
"""What the cameras of the cell with the arm see: ramp, tray, arm, and the balls in the tray."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from twinloop.motion.semantics import semantics
from twinloop.paths import share
from twinloop.perception.camera_model import load_camera
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_TRAVEL_M, PANDA
from twinloop_sim.arm_cell import build_cell_model
from twinloop_sim.cameras import BALL0, HAND, Eyes, gl, open_eyes
from twinloop_sim.cameras.stage import Shapes
from twinloop_sim.settings import TRAY, mujoco_settings, scene_settings

CUP, REST = HAND24.poses["cup"], semantics().states["rest"]
JOINTS = np.concatenate([CUP, REST, [0.04, 0.04]])
IN_TRAY = np.array([[-0.504, 0.263, -0.254], [-0.449, 0.263, -0.247]])
UPRIGHT = np.tile([1.0, 0.0, 0.0, 0.0], (2, 1))


@pytest.fixture(scope="module", params=["mujoco", "pybullet"])
def eyes(request: pytest.FixtureRequest) -> Iterator[Eyes]:
    if request.param == "mujoco" and gl.platform() is None:
        pytest.skip("no OpenGL here: neither EGL nor OSMesa works")
    made = open_eyes(request.param, arm=True)
    yield made
    made.close()


def test_shapes_are_where_the_physics_has_them() -> None:
    """Each visible piece is drawn at the pose of the collision shape of the same place."""
    model = build_cell_model(scene_settings(), mujoco_settings())
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    shapes = Shapes("right", arm=True)
    q = np.concatenate(
        [
            rng.uniform(HAND24.lower, HAND24.upper),
            rng.uniform(PANDA.lower, PANDA.upper),
            rng.uniform(0.0, FINGER_TRAVEL_M, 2),
        ]
    )
    data.qpos[: q.size] = q
    mujoco.mj_kinematics(model, data)
    position, _ = shapes.poses(q)
    assert shapes.joints == q.size
    assert shapes.floor_m == pytest.approx(-0.6)
    fingers = [i for i, p in enumerate(shapes.pieces) if "finger" in p.link]
    assert len({shapes.pieces[i].link for i in fingers}) == 2
    for index, piece in enumerate(shapes.pieces):
        turn = data.body(piece.link).xmat.reshape(3, 3)
        expected = data.body(piece.link).xpos + turn @ piece.offset[:3, 3]
        np.testing.assert_allclose(position[index], expected, atol=1e-6, err_msg=piece.link)


def test_balls_in_the_tray_are_seen_where_the_camera_model_has_them(eyes: Eyes) -> None:
    eyes.pose(JOINTS, IN_TRAY, UPRIGHT)
    labels = eyes.labels(TRAY)
    pose, camera = eyes.camera_pose(TRAY), eyes.cameras[TRAY]
    assert labels.shape == camera.size[::-1]
    for ball, place in enumerate(IN_TRAY):
        x, y, z = (place - pose[:3, 3]) @ pose[:3, :3]
        row, column = np.nonzero(labels == BALL0 + ball)
        assert row.size > 500
        expected = camera.k[0, 0] * x / z + camera.k[0, 2], camera.k[1, 1] * y / z + camera.k[1, 2]
        # The tray's wall hides a little of one.
        np.testing.assert_allclose([column.mean(), row.mean()], expected, atol=4.0)


def test_the_palm_cameras_see_the_hand_and_the_balls_as_without_the_arm(eyes: Eyes) -> None:
    plain = open_eyes("mujoco" if eyes.backend.startswith("mujoco") else "pybullet")
    balls = np.asarray(scene_settings().balls.start_m)
    eyes.pose(JOINTS, balls, UPRIGHT)
    plain.pose(CUP, balls, UPRIGHT)
    one, two = eyes.labels("left"), plain.labels("left")
    plain.close()
    for ball in (BALL0, BALL0 + 1):
        assert np.mean((one == ball) != (two == ball)) < 1e-3
    # A roof covers the forearm; nothing else may change.
    assert np.mean((one == HAND) & (two != HAND)) < 1e-3
    covered = np.nonzero((one != HAND) & (two == HAND))[0]
    assert np.mean(covered < 130) < 0.05


def test_a_moved_rig_does_not_move_the_camera_of_the_tray(eyes: Eyes) -> None:
    before = eyes.camera_pose(TRAY).copy()
    error = np.eye(4)
    error[:3, 3] = 0.01
    eyes.shift(error)
    np.testing.assert_array_equal(eyes.camera_pose(TRAY), before)
    eyes.shift(np.eye(4))


def test_joints_of_the_hand_alone_are_refused(eyes: Eyes) -> None:
    with pytest.raises(ValueError, match=r"q has the shape \(24,\), expected \(33,\)"):
        eyes.pose(CUP, IN_TRAY, UPRIGHT)


def test_the_nominal_calibration_is_that_of_the_scene() -> None:
    kept = load_camera(share("config", "cameras", "twin", "tray.yaml"))
    eyes = open_eyes("pybullet", arm=True)
    np.testing.assert_allclose(kept.k, eyes.cameras[TRAY].k)
    assert kept.size == eyes.cameras[TRAY].size
    eyes.close()
