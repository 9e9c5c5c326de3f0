# SPDX-License-Identifier: Apache-2.0
"""The ball tracker with its shipped network on drawn images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from twinloop.models.base import ModelInvalid
from twinloop.perception.ball_tracker import BallTracker, TrackerSettings, Tracks, annotate
from twinloop.perception.mount import Mount, mount_from_urdf
from twinloop.robots.description import hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import palm_chain
from twinloop_sim.cameras import Eyes, Sensor, draw_appearance, open_eyes
from twinloop_sim.cameras.stage import stereo_model
from twinloop_sim.settings import scene_settings
from twinloop_sim.tracker_scenes import rig_error

FRAME_S = 1.0 / 30.0
CUP = HAND24.poses["cup"]
PALM_POSITION, PALM_ROTATION = (pose[0] for pose in palm_chain("right").poses(CUP[:2]))
IN_CUP = np.array([[-0.031, -0.036, 0.105], [0.026, -0.036, 0.118]])  # palm frame
NOWHERE = np.array([0.0, 0.5, 0.0])
TURNS = np.tile([1.0, 0.0, 0.0, 0.0], (2, 1))


@pytest.fixture(scope="module")
def eyes() -> Iterator[Eyes]:
    made = open_eyes("pybullet")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nominal(eyes: Eyes) -> None:
    eyes.shift(np.eye(4))


def mount() -> Mount:
    return mount_from_urdf(hand_urdf(), "rh_forearm", "camera_left_optical")


def new_tracker(**settings: float) -> BallTracker:
    return BallTracker(stereo_model(scene_settings()), mount(), TrackerSettings(**settings))


def look(eyes: Eyes, in_palm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both images of balls at places [2, 3] in the palm's frame."""
    eyes.pose(CUP, PALM_POSITION + in_palm @ PALM_ROTATION.T, TURNS)
    rng = np.random.default_rng(0)
    left, right = (Sensor().expose(image, rng) for image in eyes.pair())
    return left, right


def follow(
    tracker: BallTracker, eyes: Eyes, path: list[np.ndarray], first: int = 0
) -> list[Tracks]:
    """What the tracker tells of balls on a path, a place [2, 3] a frame."""
    return [
        tracker.update(*look(eyes, place), (first + i) * FRAME_S, CUP)
        for i, place in enumerate(path)
    ]


def error_mm(tracks: Tracks, place: np.ndarray) -> np.ndarray:
    return 1e3 * np.linalg.norm(tracks.position - place, axis=-1)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_balls_of_any_look_with_a_rig_off_its_place(eyes: Eyes, seed: int) -> None:
    eyes.dress(draw_appearance(seed, "test"))
    eyes.shift(rig_error(np.random.default_rng(seed)))
    told = follow(new_tracker(), eyes, [IN_CUP] * 6)[-1]
    assert not told.stale.any()
    assert (error_mm(told, IN_CUP) < 6.0).all()
    assert (np.linalg.norm(told.velocity, axis=-1) < 0.05).all()
    assert (told.visible_fraction > 0.5).all()
    deviation = np.sqrt(np.diagonal(told.covariance, axis1=1, axis2=2))[:, :3]
    assert ((deviation > 2e-4) & (deviation < 0.01)).all()


def test_balls_that_turn_about_each_other_keep_their_names(eyes: Eyes) -> None:
    eyes.dress(draw_appearance(2, "test"))
    middle, arm = IN_CUP.mean(axis=0), np.array([0.029, 0.0, 0.0])
    path = []
    for angle in np.linspace(0.0, np.pi, 26):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
        path.append(np.stack([middle - turn @ arm, middle + turn @ arm]))
    told = follow(new_tracker(), eyes, path)
    errors = np.array([error_mm(one, place) for one, place in zip(told, path, strict=True)])
    assert np.median(errors[3:]) < 5.0
    assert errors[3:].max() < 20.0  # a swap is 58 mm
    speed = np.linalg.norm(told[-1].velocity, axis=-1)
    np.testing.assert_allclose(speed, 0.029 * np.pi / (25 * FRAME_S), rtol=0.5)


def test_a_ball_that_is_gone_is_stale_within_100_ms_the_other_is_not(eyes: Eyes) -> None:
    eyes.dress(draw_appearance(3, "test"))
    tracker = new_tracker()
    before = follow(tracker, eyes, [IN_CUP] * 4)[-1]
    alone = np.stack([IN_CUP[0], NOWHERE])
    told = follow(tracker, eyes, [alone] * 4, first=4)
    assert [bool(one.stale[1]) for one in told] == [False, False, True, True]
    assert not any(one.stale[0] for one in told)
    assert told[-1].visible_fraction[1] == 0.0
    assert (told[-1].velocity[1] == 0.0).all()
    # A stale ball is told where it was last.
    np.testing.assert_allclose(told[-1].position[1], before.position[1], atol=0.01)


def test_covered_lenses_make_both_stale_within_100_ms(eyes: Eyes) -> None:
    tracker = new_tracker()
    follow(tracker, eyes, [IN_CUP] * 3)
    dark = np.zeros((180, 280, 3), dtype=np.uint8)
    told = [tracker.update(dark, dark, (3 + i) * FRAME_S, CUP) for i in range(3)]
    assert told[-1].stale.all()


@pytest.mark.parametrize("kind", ["black", "grey", "noise", "hand alone"])
def test_nothing_is_told_of_images_without_balls(eyes: Eyes, kind: str) -> None:
    eyes.dress(draw_appearance(4, "test"))
    tracker, rng = new_tracker(), np.random.default_rng(0)
    for frame in range(4):
        left, right = look(eyes, np.stack([NOWHERE, NOWHERE]))
        if kind != "hand alone":
            level = {"black": 0, "grey": 128, "noise": 0}[kind]
            high = 256 if kind == "noise" else level + 1
            left, right = (rng.integers(level, high, left.shape, dtype=np.uint8) for _ in "lr")
        told = tracker.update(left, right, frame * FRAME_S, CUP)
        assert told.stale.all()
        assert np.isnan(told.position).all()
        assert (told.velocity == 0.0).all()


def test_a_gap_between_frames_carries_nothing_over(eyes: Eyes) -> None:
    tracker = new_tracker()
    follow(tracker, eyes, [IN_CUP] * 3)
    dark = np.zeros((180, 280, 3), dtype=np.uint8)
    assert tracker.update(dark, dark, 0.5, CUP).stale.all()


def test_reset_forgets_the_balls_and_the_time(eyes: Eyes) -> None:
    tracker = new_tracker()
    told = follow(tracker, eyes, [IN_CUP] * 3)[-1]
    assert not told.stale.any()
    tracker.reset()
    dark = np.zeros((180, 280, 3), dtype=np.uint8)
    again = tracker.update(dark, dark, 0.0, CUP)
    assert np.isnan(again.position).all()


def test_wrong_input_is_refused_by_name_and_changes_nothing(eyes: Eyes) -> None:
    tracker = new_tracker()
    follow(tracker, eyes, [IN_CUP] * 2)
    left, right = look(eyes, IN_CUP)
    with pytest.raises(ValueError, match=r"left image is uint8 \[90, 280, 3\], expected uint8"):
        tracker.update(left[::2], right, 1.0, CUP)
    with pytest.raises(ValueError, match="right image is float64"):
        tracker.update(left, right.astype(np.float64), 1.0, CUP)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a later one"):
        tracker.update(left, right, FRAME_S, CUP)
    with pytest.raises(ValueError, match="stamp is nan"):
        tracker.update(left, right, float("nan"), CUP)
    with pytest.raises(ValueError, match="expected 24 finite"):
        tracker.update(left, right, 1.0, np.full(24, np.nan))
    assert not tracker.update(left, right, 2 * FRAME_S, CUP).stale.any()


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=r"tracker\.json: is missing"):
        BallTracker(stereo_model(scene_settings()), mount(), weights=tmp_path)


def test_a_mount_that_looks_away_is_refused(eyes: Eyes) -> None:
    away = mount().transform.copy()
    away[:3, :3] = away[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    turned = Mount("rh_forearm", "camera_left_optical", away)
    tracker = BallTracker(stereo_model(scene_settings()), turned)
    with pytest.raises(ValueError, match="check the mount file"):
        tracker.update(*look(eyes, IN_CUP), 0.0, CUP)


def test_the_picture_shows_the_balls_and_leaves_the_image_alone(eyes: Eyes) -> None:
    tracker = new_tracker()
    told = follow(tracker, eyes, [IN_CUP] * 2)[-1]
    left, _ = look(eyes, IN_CUP)
    before = left.copy()
    picture = annotate(left, told)
    np.testing.assert_array_equal(left, before)
    changed = (picture != left).any(axis=-1)
    columns = np.nonzero(changed)[1]
    assert 50 < changed.sum() < 2000
    seen = told.left.project(told.in_left)
    assert (np.abs(columns[:, None] - seen[:, 0]).min(axis=1) < 40).all()
    dark = np.zeros_like(left)
    tracker.reset()
    never = tracker.update(dark, dark, 0.0, CUP)
    np.testing.assert_array_equal(annotate(left, never), left)
