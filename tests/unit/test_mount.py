# SPDX-License-Identifier: Apache-2.0
"""Where a camera rig sits: its file, and what a robot description says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from twinloop.perception.mount import Mount, load_mount, mount_from_urdf, save_mount
from twinloop.robots.description import hand_urdf
from twinloop.robots.kinematics import Chain, joints_between
from twinloop.robots.rotations import matrix_from_rpy

FRAMES = "parent_frame: rh_forearm\nchild_frame: camera_left_optical\n"


def some_mount() -> Mount:
    transform = np.eye(4)
    transform[:3, :3] = matrix_from_rpy(np.array([1.2, -0.4, 2.9]))
    transform[:3, 3] = (-0.06, -0.38, 0.27)
    return Mount("rh_forearm", "camera_left_optical", transform)


def test_a_written_mount_is_read_again(tmp_path: Path) -> None:
    save_mount(tmp_path / "mount.yaml", some_mount())
    found = load_mount(tmp_path / "mount.yaml")
    assert (found.parent, found.child) == ("rh_forearm", "camera_left_optical")
    np.testing.assert_allclose(found.transform, some_mount().transform, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2", "not YAML"),
        (FRAMES + "position: [0, 0, 0]", "quaternion"),
        (FRAMES + "position: [0, 0]\nquaternion: [1, 0, 0, 0]", "position"),
        (FRAMES + "position: [0, .nan, 0]\nquaternion: [1, 0, 0, 0]", "position"),
        (FRAMES + "position: [0, 0, 0]\nquaternion: [1, 1, 0, 0]", r"length 1\.41"),
        (FRAMES + "position: [0, 0, 0]\nquaternion: [1, 0, 0, 0]\nscale: 2", "scale"),
    ],
)
def test_a_file_that_is_no_mount_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mount.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as refusal:
        load_mount(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    "transform",
    [np.eye(3), np.diag([1.0, 1.0, -1.0, 1.0]), 2.0 * np.eye(4), np.full((4, 4), np.nan)],
)
def test_a_transform_that_is_not_rigid_is_refused(transform: np.ndarray) -> None:
    with pytest.raises(ValueError, match="camera_left_optical in rh_forearm"):
        Mount("rh_forearm", "camera_left_optical", transform)


@pytest.mark.parametrize("parent", ["world", "rh_forearm", "camera_right_optical"])
def test_the_description_agrees_with_its_kinematics(parent: str) -> None:
    urdf = hand_urdf()
    found = mount_from_urdf(urdf, parent, "camera_left_optical").transform
    links = ("camera_left_optical", *(() if parent == "world" else (parent,)))
    position, rotation = Chain(urdf, (), links).poses(np.zeros(0))
    if parent == "world":
        expected = position[0], rotation[0]
    else:
        back = rotation[1].T
        expected = back @ (position[0] - position[1]), back @ rotation[0]
    np.testing.assert_allclose(found[:3, 3], expected[0], atol=1e-12)
    np.testing.assert_allclose(found[:3, :3], expected[1], atol=1e-12)


def test_the_left_camera_is_beside_the_right_one() -> None:
    mount = mount_from_urdf(hand_urdf(), "camera_left_optical", "camera_right_optical")
    np.testing.assert_allclose(mount.transform[:3, 3], [0.12, 0.0, 0.0], atol=1e-12)


def test_what_moves_is_no_mount() -> None:
    with pytest.raises(ValueError, match="rh_WRJ2.*rh_WRJ1"):
        mount_from_urdf(hand_urdf(), "camera_left_optical", "rh_palm")
    with pytest.raises(ValueError, match="no link 'camera_third'"):
        mount_from_urdf(hand_urdf(), "rh_forearm", "camera_third")


def test_the_wrist_moves_the_palm_and_nothing_the_cameras() -> None:
    urdf = hand_urdf()
    assert joints_between(urdf, "rh_forearm", "rh_palm") == ("rh_WRJ2", "rh_WRJ1")
    assert joints_between(urdf, "rh_palm", "camera_left_optical") == ("rh_WRJ2", "rh_WRJ1")
    assert joints_between(urdf, "rh_forearm", "camera_left_optical") == ()
