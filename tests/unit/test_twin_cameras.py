# SPDX-License-Identifier: Apache-2.0
import colorsys
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from twinloop.paths import share
from twinloop.perception.camera_model import load_camera
from twinloop.perception.mount import load_mount
from twinloop.robots.hand24 import HAND24
from twinloop.robots.rotations import matrix_from_rpy
from twinloop_sim.cameras import (
    BALL0,
    BALL1,
    FAMILIES,
    HAND,
    Appearance,
    Eyes,
    Sensor,
    draw_appearance,
    gl,
    open_eyes,
)
from twinloop_sim.cameras.appearance import Light, Surface
from twinloop_sim.cameras.nominal import MOUNT, write_nominal
from twinloop_sim.settings import scene_settings

CUP = HAND24.poses["cup"]
UPRIGHT = np.tile([1.0, 0.0, 0.0, 0.0], (2, 1))
# Over the cup, clear of the fingers, and in it, behind some.
FREE = np.array([[-0.045, -0.01, 0.26], [0.045, 0.03, 0.29]])
IN_CUP = np.array(scene_settings().balls.start_m)
RADIUS = scene_settings().balls.radius_m


def opened(backend: str) -> Eyes:
    if backend == "mujoco" and gl.platform() is None:
        pytest.skip("no OpenGL here: neither EGL nor OSMesa works")
    return open_eyes(backend)


@pytest.fixture(scope="module", params=["mujoco", "pybullet"])
def shared_eyes(request: pytest.FixtureRequest) -> Iterator[Eyes]:
    eyes = opened(request.param)
    yield eyes
    eyes.close()


@pytest.fixture
def eyes(shared_eyes: Eyes) -> Eyes:
    shared_eyes.shift(np.eye(4))
    shared_eyes.dress(Appearance())
    shared_eyes.pose(CUP, FREE, UPRIGHT)
    return shared_eyes


def rig_error(xyz_m: tuple[float, ...], rpy_deg: tuple[float, ...]) -> np.ndarray:
    error = np.eye(4)
    error[:3, :3], error[:3, 3] = matrix_from_rpy(np.radians(rpy_deg)), xyz_m
    return error


def assert_balls_are_where_the_camera_model_says(eyes: Eyes) -> None:
    for camera in ("left", "right", "depth"):
        labels = eyes.labels(camera)
        for label, ball in zip((BALL0, BALL1), FREE, strict=True):
            rows, columns = np.nonzero(labels == label)
            x, y, z = (np.linalg.inv(eyes.camera_pose(camera)) @ [*ball, 1.0])[:3]
            # A ball's outline is an ellipse. Its middle is not quite where the ball's centre is.
            beyond = z**2 - RADIUS**2
            middle = eyes.cameras[camera].project([x * z, y * z, beyond])
            assert np.hypot(*(middle - [columns.mean(), rows.mean()])) < 0.15
            focal = eyes.cameras[camera].k[0, 0]
            area = np.pi * (focal * RADIUS) ** 2 * np.sqrt(x**2 + y**2 + beyond) / beyond**1.5
            assert len(rows) == pytest.approx(area, rel=0.02)


def test_balls_are_seen_where_the_camera_model_projects_them(eyes: Eyes) -> None:
    assert_balls_are_where_the_camera_model_says(eyes)


def test_a_rig_that_is_shifted_sees_from_where_it_then_is(eyes: Eyes) -> None:
    nominal = eyes.camera_pose("left"), eyes.camera_pose("right"), eyes.labels("left")
    eyes.shift(rig_error((0.02, -0.01, 0.03), (2.0, -1.0, 3.0)))
    assert_balls_are_where_the_camera_model_says(eyes)
    assert (eyes.labels("left") != nominal[2]).any()
    between = np.linalg.inv(nominal[0]) @ nominal[1]
    after = np.linalg.inv(eyes.camera_pose("left")) @ eyes.camera_pose("right")
    np.testing.assert_allclose(after, between, atol=1e-12)  # the eyes stay as they are together
    eyes.shift(np.eye(4))
    np.testing.assert_array_equal(eyes.labels("left"), nominal[2])


def test_both_renderers_see_the_same_shapes_at_the_same_places() -> None:
    pair = [opened("mujoco"), opened("pybullet")]
    rng = np.random.default_rng(4)
    for seed in range(4):
        q = np.clip(CUP + rng.normal(0.0, 0.15, 24), HAND24.lower, HAND24.upper)
        balls = (IN_CUP if seed % 2 else FREE) + rng.normal(0.0, 0.005, (2, 3))
        error = rig_error(rng.normal(0.0, 0.002, 3), rng.normal(0.0, 0.3, 3))
        for eyes in pair:
            eyes.shift(error)
            eyes.pose(q, balls, UPRIGHT)
        for camera in ("left", "right", "depth"):
            first, second = (eyes.labels(camera) for eyes in pair)
            for label, least in ((BALL0, 0.97), (BALL1, 0.97), (HAND, 0.9)):
                ours, theirs = first == label, second == label
                assert (ours & theirs).sum() / (ours | theirs).sum() > least
        near, also = (eyes.depth() for eyes in pair)
        assert np.nanmedian(np.abs(near - also)) < 1e-4
    for eyes in pair:
        eyes.close()


def test_images_have_the_size_of_the_calibration_and_the_pair_is_both_eyes(eyes: Eyes) -> None:
    eyes.dress(draw_appearance(1, "train"))
    left, right = eyes.pair()
    assert left.shape == right.shape == (180, 280, 3)
    assert left.dtype == np.uint8
    for image, camera in ((left, "left"), (right, "right")):
        # Edges of shadows may fall a pixel beside.
        assert (image != eyes.image(camera)).any(axis=-1).mean() < 0.005
    for name, model in eyes.cameras.items():
        assert eyes.image(name).shape == (*model.size[::-1], 3)
        assert eyes.labels(name).shape == model.size[::-1]


def test_depth_is_the_distance_along_the_axis(eyes: Eyes) -> None:
    depth = eyes.depth()
    model, pose = eyes.cameras["depth"], eyes.camera_pose("depth")
    assert depth.shape == model.size[::-1]
    assert depth.dtype == np.float32
    for ball in FREE:
        local = (np.linalg.inv(pose) @ [*ball, 1.0])[:3]
        column, row = np.round(model.project(local)).astype(int)
        ray = model.rays([column, row])
        # Where the ray meets the ball: its nearer solution.
        middle, far = ray @ local, ray @ ray
        meet = (middle - np.sqrt(middle**2 - far * (local @ local - RADIUS**2))) / far
        assert depth[row, column] == pytest.approx(meet, abs=0.001)
    corner = pose[:3, :3] @ model.rays([0, 0])
    assert depth[0, 0] == pytest.approx(-pose[2, 3] / corner[2], abs=0.001)  # the floor, z = 0


def test_what_is_hidden_is_not_labelled(eyes: Eyes) -> None:
    below = FREE.copy()
    below[1] = (0.0, -0.07, 0.14)  # under the palm
    eyes.pose(CUP, below, UPRIGHT)
    assert not (eyes.labels("left") == BALL1).any()
    eyes.pose(CUP, FREE, UPRIGHT)
    assert (eyes.labels("left") == BALL1).sum() > 500


@pytest.mark.parametrize("backend", ["mujoco", "pybullet"])
def test_eyes_that_are_dropped_leave_others_as_they_are(backend: str) -> None:
    kept = opened(backend)
    kept.pose(CUP, FREE, UPRIGHT)
    before = kept.image("left")
    opened(backend).image("left")
    np.testing.assert_array_equal(kept.image("left"), before)
    dropped = opened(backend)
    newest = opened(backend)
    del dropped
    newest.pose(CUP, FREE, UPRIGHT)
    np.testing.assert_array_equal(newest.image("left"), before)
    for eyes in (kept, newest):
        eyes.close()
        eyes.close()


def test_what_cannot_be_posed_or_shifted_is_refused(eyes: Eyes) -> None:
    with pytest.raises(ValueError, match="ball_position"):
        eyes.pose(CUP, np.full((2, 3), np.nan), UPRIGHT)
    with pytest.raises(ValueError, match=r"q has the shape \(20,\), expected \(24,\)"):
        eyes.pose(CUP[:20], FREE, UPRIGHT)
    with pytest.raises(ValueError, match="rig_error"):
        eyes.shift(2.0 * np.eye(4))
    with pytest.raises(ValueError, match="'rear', there are left, right, depth"):
        eyes.image("rear")


def test_balls_wear_their_colours_and_turn_with_their_patterns(eyes: Eyes) -> None:
    up, down = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0])
    red, green, blue = (0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9)
    halves = Surface(blue, green, "halves", gloss=0.0)
    eyes.dress(Appearance(balls=(halves, Surface(red, gloss=0.0)), light=Light(elevation_deg=85.0)))

    def share(quaternion: np.ndarray, channel: int) -> float:
        eyes.pose(CUP, FREE, np.stack([quaternion, up]))
        ball = eyes.image("left")[eyes.labels("left") == BALL0].astype(int)
        return float((ball.argmax(axis=1) == channel).mean())

    assert share(up, 1) > 0.9  # the +z half is seen from above
    assert share(down, 2) > 0.9
    other = eyes.image("left")[eyes.labels("left") == BALL1].astype(int)
    assert (other.argmax(axis=1) == 0).all()


def test_an_appearance_looks_the_same_each_time_and_unlike_others(eyes: Eyes) -> None:
    images = []
    for seed in (5, 6, 5):
        eyes.dress(draw_appearance(seed, "train"))
        images.append(eyes.image("left"))
    np.testing.assert_array_equal(images[0], images[2])
    assert np.abs(images[0].astype(int) - images[1]).mean() > 10.0


def test_the_lamp_brightens_and_colours_the_cell(eyes: Eyes) -> None:
    means = []
    for light in (Light(ambient=0.2, strength=0.2), Light(), Light(color=(1.0, 0.4, 0.4))):
        eyes.dress(Appearance(light=light))
        means.append(eyes.image("left").mean(axis=(0, 1)))
    assert (means[1] > means[0] + 30.0).all()
    assert means[2][0] - means[2][2] > means[1][0] - means[1][2] + 50.0


def test_families_share_no_hue_pattern_or_direction_of_light() -> None:
    hues: dict[str, set[int]] = {}
    looks: dict[str, set[str]] = {}
    lamps: dict[str, tuple[float, float]] = {}
    for family in FAMILIES:
        drawn = [draw_appearance(seed, family) for seed in range(60)]
        surfaces = [s for a in drawn for s in (*a.balls, a.floor, *a.hand.values())]
        hsv = [colorsys.rgb_to_hsv(*s.color) for s in surfaces]
        hues[family] = {int(h * 12.0) for h, s, _ in hsv if s > 0.01}
        looks[family] = {s.pattern for a in drawn for s in a.balls}
        azimuths = [a.light.azimuth_deg for a in drawn]
        lamps[family] = (min(azimuths), max(azimuths))
        for appearance in drawn:
            first, second = (colorsys.rgb_to_hsv(*ball.color)[0] for ball in appearance.balls)
            assert abs((first - second + 0.5) % 1.0 - 0.5) > 0.15  # balls can be told apart
    for i, one in enumerate(FAMILIES):
        for other in FAMILIES[i + 1 :]:
            assert not hues[one] & hues[other]
            assert not looks[one] & looks[other]
            assert lamps[one][1] < lamps[other][0] or lamps[other][1] < lamps[one][0]


def test_appearances_are_functions_of_their_seed() -> None:
    assert draw_appearance(3, "test") == draw_appearance(3, "test")
    assert draw_appearance(3, "test") != draw_appearance(4, "test")
    with pytest.raises(ValueError, match="'holiday', expected one of train, tune, test"):
        draw_appearance(0, "holiday")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed is -1"):
        draw_appearance(-1, "train")


def test_a_sensor_adds_noise_that_grows_with_the_light() -> None:
    sensor = Sensor(noise=0.01, shot_noise=0.02, blur_px=0.0)
    for level in (0.2, 0.8):
        image = np.full((180, 280, 3), round(255 * level), np.uint8)
        seen = sensor.expose(image, np.random.default_rng(1)).astype(float) / 255.0
        assert seen.mean() == pytest.approx(level, abs=0.003)
        assert seen.std() == pytest.approx(np.sqrt(0.01**2 + 0.02**2 * level), rel=0.05)
    again = sensor.expose(image, np.random.default_rng(1))
    np.testing.assert_array_equal(again, sensor.expose(image, np.random.default_rng(1)))
    assert (again != sensor.expose(image, np.random.default_rng(2))).any()


def test_a_sensor_exposes_and_blurs() -> None:
    plain = Sensor(noise=0.0, shot_noise=0.0, blur_px=0.0)
    dot = np.zeros((21, 21, 3), np.uint8)
    dot[10, 10] = 200
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(plain.expose(dot, rng), dot)
    half = Sensor(noise=0.0, shot_noise=0.0, blur_px=0.0, exposure=0.5).expose(dot, rng)
    assert half[10, 10, 0] == 100
    over = Sensor(noise=0.0, shot_noise=0.0, blur_px=0.0, exposure=4.0).expose(dot, rng)
    assert over[10, 10, 0] == 255
    soft = Sensor(noise=0.0, shot_noise=0.0, blur_px=1.0).expose(dot, rng)
    assert 20 < soft[10, 10, 0] < 60 < soft.sum() / 3
    with pytest.raises(ValueError, match="blur_px is -1"):
        Sensor(blur_px=-1.0)
    with pytest.raises(ValueError, match="exposure is 0"):
        Sensor(exposure=0.0)


def test_sensed_depth_is_in_millimetres_and_0_where_nothing_is() -> None:
    depth = np.array([[0.4, np.nan], [0.4006, 70.0]], np.float32)
    exact = Sensor(depth_noise=0.0).sense_depth(depth, np.random.default_rng(0))
    np.testing.assert_array_equal(exact, np.array([[400, 0], [401, 65535]], np.uint16))
    flat = np.full((200, 200), 0.5, np.float32)
    noisy = Sensor(depth_noise=0.02).sense_depth(flat, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(0.02 * 0.25 * 1000, rel=0.05)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    gl.platform.cache_clear()
    yield monkeypatch
    gl.platform.cache_clear()


def test_without_opengl_pybullet_draws_and_mujoco_is_refused(untried: pytest.MonkeyPatch) -> None:
    untried.setenv("MUJOCO_GL", "off")
    eyes = open_eyes()
    assert eyes.backend == "pybullet"
    eyes.close()
    with pytest.raises(RuntimeError, match="libegl1"):
        open_eyes("mujoco")
    with pytest.raises(ValueError, match="expected one of auto, mujoco, pybullet"):
        open_eyes("vulkan")


def test_a_driver_that_crashes_takes_only_the_trial_with_it(
    untried: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    untried.setattr(gl.sys, "executable", str(crashing))
    untried.delenv("MUJOCO_GL", raising=False)
    with caplog.at_level("INFO"):
        eyes = open_eyes()
    assert eyes.backend == "pybullet"
    eyes.close()
    assert "no EGL: exit code -11" in caplog.text
    assert "no OSMesa" in caplog.text
    assert "PyBullet's software renderer" in caplog.text


def test_the_choice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    if gl.platform() is None:
        pytest.skip("no OpenGL here: neither EGL nor OSMesa works")
    with caplog.at_level("INFO"):
        eyes = open_eyes()
    eyes.close()
    assert eyes.backend.startswith("mujoco (")
    assert "drawn by MuJoCo through" in caplog.text


def test_nominal_calibration_files_are_those_of_the_scene(tmp_path: Path) -> None:
    write_nominal(tmp_path, scene_settings())
    kept = share("config", "cameras", "twin")
    assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(kept))
    for name in ("left", "right", "depth"):
        ours, theirs = load_camera(kept / f"{name}.yaml"), load_camera(tmp_path / f"{name}.yaml")
        assert (ours.name, ours.size) == (theirs.name, theirs.size)
        for field in ("k", "d", "r", "p"):
            np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), atol=1e-9)
    ours, theirs = load_mount(kept / MOUNT), load_mount(tmp_path / MOUNT)
    assert (ours.parent, ours.child) == (theirs.parent, theirs.child)
    np.testing.assert_allclose(ours.transform, theirs.transform, atol=1e-9)
