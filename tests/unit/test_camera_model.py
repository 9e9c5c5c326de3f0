# SPDX-License-Identifier: Apache-2.0
"""Camera models: projection and its inverse, stereo geometry, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from twinloop.perception.camera_model import (
    CameraModel,
    StereoModel,
    load_camera,
    pinhole,
    save_camera,
)


def bent(name: str = "left") -> CameraModel:
    ideal = pinhole(name, (280, 180), 60.0)
    return CameraModel(
        name, ideal.size, ideal.k, np.array([0.1, -0.05, 1e-3, -2e-3, 0.0]), ideal.r, ideal.p
    )


def turned(axis: int, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    result = np.eye(3)
    result[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    return result


def test_rays_undo_projection() -> None:
    camera = bent()
    points = np.random.default_rng(0).uniform([-0.1, -0.06, 0.3], [0.1, 0.06, 0.6], (50, 3))
    rays = camera.rays(camera.project(points))
    np.testing.assert_allclose(rays * points[:, 2:], points, atol=1e-5)


def test_a_point_behind_the_camera_has_no_pixel() -> None:
    pixels = bent().project([[0.0, 0.0, -0.4], [0.0, 0.0, 0.4]])
    assert np.isnan(pixels[0]).all()
    assert np.isfinite(pixels[1]).all()


def test_triangulation_finds_points_of_cameras_that_are_turned() -> None:
    left, right = bent("left"), pinhole("right", (280, 180), 60.0, 0.12)
    left = CameraModel("left", left.size, left.k, left.d, turned(1, 0.03), left.p)
    right = CameraModel("right", right.size, right.k, right.d, turned(0, -0.02), right.p)
    stereo = StereoModel(left, right)
    assert stereo.baseline_m == pytest.approx(0.12)
    points = np.random.default_rng(1).uniform([-0.05, -0.06, 0.3], [0.1, 0.06, 0.6], (50, 3))
    transform = stereo.right_from_left()
    other = points @ transform[:3, :3].T + transform[:3, 3]
    found = stereo.triangulate(left.project(points), right.project(other))
    np.testing.assert_allclose(found, points, atol=1e-5)


def test_parallel_rays_meet_nowhere() -> None:
    stereo = StereoModel(pinhole("left", (280, 180), 60.0), pinhole("right", (280, 180), 60.0, 0.1))
    assert np.isnan(stereo.triangulate([140.0, 90.0], [140.0, 90.0])).all()


def test_a_pair_without_a_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="baseline is"):
        StereoModel(pinhole("left", (280, 180), 60.0), pinhole("right", (280, 180), 60.0))


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "left.yaml"
    save_camera(path, bent())
    loaded = load_camera(path)
    assert (loaded.name, loaded.size, loaded.distortion) == ("left", (280, 180), "plumb_bob")
    for field in ("k", "d", "r", "p"):
        np.testing.assert_array_equal(getattr(loaded, field), getattr(bent(), field))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("image_width", 0, "image_width"),
        ("image_width", None, "image_width"),
        ("distortion_model", "fisheye", "distortion model 'fisheye'"),
        ("camera_matrix", {"rows": 3, "cols": 3, "data": [1.0] * 8}, "camera_matrix has 8"),
        ("camera_matrix", {"rows": 3, "cols": 3, "data": [0.0] * 9}, "focal lengths"),
        ("camera_matrix", {"rows": 3, "cols": 3, "data": [float("nan")] * 9}, "camera_matrix"),
        ("rectification_matrix", {"rows": 3, "cols": 3, "data": [2.0] * 9}, "a rotation"),
        ("projection_matrix", {"rows": 3, "cols": 3, "data": [1.0] * 9}, "p is"),
    ],
)
def test_a_broken_file_is_refused_by_name(
    tmp_path: Path, field: str, value: object, said: str
) -> None:
    path = tmp_path / "left.yaml"
    save_camera(path, bent())
    content = yaml.safe_load(path.read_text())
    content[field] = value
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=said) as refused:
        load_camera(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00"])
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "left.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="left.yaml"):
        load_camera(path)
