# SPDX-License-Identifier: Apache-2.0
"""Calibration from corners: stereo pairs, cameras on the hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from board_sessions import (
    CAMERA,
    MOUNT,
    PALM,
    VGA,
    draw_board_on_mount,
    draw_board_on_palm,
    draw_mount,
    draw_pair,
    draw_wrist,
)
from board_views import TWIN, held_views, pair_views
from twinloop.perception.calibration.boards import parse_board
from twinloop.perception.calibration.bundle import composed
from twinloop.perception.calibration.hand_camera import MountPromise, calibrate_mount
from twinloop.perception.calibration.least_squares import Normal, NotSolvable, solve
from twinloop.perception.calibration.link import Link
from twinloop.perception.calibration.stereo import calibrate_stereo
from twinloop.perception.calibration.views import CalibrationRefused, View, transform, vectors
from twinloop.robots.description import hand_urdf

BOARD = parse_board("charuco:8x5:34:25")
CHESSBOARD = parse_board("chessboard:9x6:25")
HAND_BOARD = parse_board("charuco:6x4:30:22")


@cache
def link(name: str) -> Link:
    return Link(hand_urdf(), MOUNT, name)


# Stereo pairs.


@pytest.mark.parametrize(("board", "form"), [(BOARD, TWIN), (CHESSBOARD, VGA)])
def test_a_pair_is_found_as_it_was_built_and_as_surely_as_it_says(board, form) -> None:
    truth, views = held_views(board, form=form)
    found = calibrate_stereo(board, views)
    for eye, name in enumerate(("left", "right")):
        one, true = getattr(found.model, name), getattr(truth, name)
        share = np.diag(one.k)[:2] / np.diag(true.k)[:2] - 1.0
        assert np.abs(share).max() < 4.0 * found.focal_std[eye] < 0.005
        np.testing.assert_allclose(one.k[:2, 2], true.k[:2, 2], atol=1.5)
        assert one.name == name
        assert one.size == form.size
    assert abs(found.model.baseline_m - truth.baseline_m) < 4.0 * found.baseline_std_m < 0.0005
    turn = found.model.right_from_left()[:3, :3] @ truth.right_from_left()[:3, :3].T
    assert np.linalg.norm(cv2.Rodrigues(turn)[0]) < np.radians(0.1)


def test_opencv_finds_the_same_pair_in_the_same_corners() -> None:
    _, views = held_views(BOARD)
    found = calibrate_stereo(BOARD, views)
    pairs = [view.seen for view in found.views if None not in view.seen]
    shared = [np.intersect1d(left.ids, right.ids) for left, right in pairs]
    usable = [(pair, ids) for pair, ids in zip(pairs, shared, strict=True) if len(ids) >= 20][:10]
    points = [BOARD.points[ids].astype(np.float32) for _, ids in usable]
    pixels = [
        [pair[eye].pixels[np.isin(pair[eye].ids, ids)].astype(np.float32) for pair, ids in usable]
        for eye in (0, 1)
    ]
    start = [array for one in found.fit.lenses for array in (one.k.copy(), one.d.copy())]
    flags = cv2.CALIB_USE_INTRINSIC_GUESS | cv2.CALIB_FIX_K3
    _, left_k, _, right_k, _, turn, way, _, _ = cv2.stereoCalibrate(
        points, *pixels, *start, TWIN.size, flags=flags
    )
    assert float(np.linalg.norm(way)) == pytest.approx(found.model.baseline_m, abs=1e-4)
    for k, one in ((left_k, found.model.left), (right_k, found.model.right)):
        np.testing.assert_allclose(np.diag(k)[:2], np.diag(one.k)[:2], rtol=0.003)
    np.testing.assert_allclose(turn, found.fit.rig[:3, :3], atol=2e-3)


def test_rectified_rows_match_and_triangulation_gives_the_board_its_size() -> None:
    _, views = held_views(BOARD)
    found = calibrate_stereo(BOARD, views)
    both = [view for view in found.views if None not in view.seen]
    for view in both[:5]:
        left, right = view.seen
        shared = np.intersect1d(left.ids, right.ids)
        pixels = [one.pixels[np.isin(one.ids, shared)] for one in (left, right)]
        rows = [
            cv2.undistortPoints(seen[:, None], one.k, one.d, R=one.r, P=one.p)[:, 0, 1]
            for seen, one in zip(pixels, (found.model.left, found.model.right), strict=True)
        ]
        assert np.abs(rows[0] - rows[1]).max() < 0.2
        points = found.model.triangulate(*pixels)
        size = np.linalg.norm(points[-1] - points[0])
        true = np.linalg.norm(BOARD.points[shared[-1]] - BOARD.points[shared[0]])
        assert size == pytest.approx(true, abs=0.001)


def test_a_view_that_contradicts_the_others_is_left_out() -> None:
    truth, views = held_views(BOARD)
    index = next(i for i, view in enumerate(views) if None not in view.seen)
    left, right = views[index].seen
    views[index] = replace(views[index], seen=(left, replace(right, pixels=right.pixels + 4.0)))
    found = calibrate_stereo(BOARD, views)
    assert found.left_out == [views[index].name]
    assert abs(found.model.baseline_m - truth.baseline_m) < 0.0002


def test_a_chessboard_that_one_eye_reads_upside_down_is_turned() -> None:
    truth, views = held_views(CHESSBOARD, 40)
    whole = [
        replace(
            view,
            seen=tuple(
                one if one is not None and len(one.ids) == 54 else None for one in view.seen
            ),
        )
        for view in views
    ]
    turned = [
        replace(view, seen=(view.seen[0], replace(view.seen[1], pixels=view.seen[1].pixels[::-1])))
        if index % 2 and view.seen[1] is not None
        else view
        for index, view in enumerate(whole)
    ]
    found = calibrate_stereo(CHESSBOARD, turned)
    assert abs(found.model.baseline_m - truth.baseline_m) < 0.0002


def refusal(views: list[View], **more) -> str:
    with pytest.raises(CalibrationRefused) as refused:
        calibrate_stereo(BOARD, views, **more)
    return str(refused.value)


def test_too_few_views_are_refused_with_how_many_are_missing() -> None:
    _, views = held_views(BOARD, 6)
    text = refusal(views)
    assert "the left eye sees the board in" in text
    assert "10 are needed: take" in text


def test_views_without_a_board_are_refused() -> None:
    assert "seen in no view" in refusal([View("1", (None, None))] * 20)


def test_views_by_one_eye_at_a_time_are_refused() -> None:
    _, views = held_views(BOARD)
    alone = [
        replace(
            view, seen=tuple(one if eye == i % 2 else None for eye, one in enumerate(view.seen))
        )
        for i, view in enumerate(views)
    ]
    assert "both eyes see the board in no views, 8 are needed" in refusal(alone)


def test_a_board_that_is_never_tilted_is_refused_with_the_axes_it_lacks() -> None:
    _, views = held_views(BOARD, 40, tilt_deg=(0.0, 3.0))
    text = refusal(views)
    for axis in ("vertical", "horizontal"):
        assert f"by at least 20 degrees about its {axis} axis, in three more views" in text


def test_a_board_that_is_always_at_one_distance_is_refused() -> None:
    _, views = held_views(BOARD, 40, distance_m=(0.45, 0.46))
    assert "the board is always about 0.4" in refusal(views)


def test_parts_of_the_picture_without_corners_are_named() -> None:
    _, views = held_views(BOARD, 40, form=VGA, reach=0.05, distance_m=(0.9, 1.2))
    text = refusal(views)
    assert "move the board to where the left eye has seen little of it" in text
    assert "the upper left" in text


def test_pictures_of_different_sizes_are_refused() -> None:
    _, views = held_views(BOARD)
    index = next(i for i, view in enumerate(views) if None not in view.seen)
    left, right = views[index].seen
    views[index] = replace(views[index], seen=(left, replace(right, size=(640, 480))))
    assert "different sizes, 280x180, 640x480" in refusal(views)


def test_swapped_eyes_are_refused() -> None:
    _, views = held_views(BOARD)
    swapped = [replace(view, seen=view.seen[::-1]) for view in views]
    assert "left and right are swapped" in refusal(swapped)


def test_pairs_of_different_times_are_refused() -> None:
    _, views = held_views(BOARD, 40)
    rights = [view.seen[1] for view in views]
    shifted = [
        replace(view, seen=(view.seen[0], right))
        for view, right in zip(views, rights[1:] + rights[:1], strict=True)
    ]
    assert "the eyes contradict each other" in refusal(shifted)


def test_a_result_that_is_less_certain_than_promised_is_refused() -> None:
    _, views = held_views(BOARD, noise_px=0.3)
    text = refusal(views)
    assert "focal length is known to" in text
    assert "take more views" in text


def test_an_unknown_distortion_is_refused() -> None:
    _, views = held_views(BOARD, 6)
    assert "plumb_bob, rational_polynomial" in refusal(views, distortion="fisheye")


# Cameras on the hand.


def on_mount(seed: int = 3, noise_px: float = 0.02):
    rng = np.random.default_rng(seed)
    pair, mount = draw_pair(TWIN, rng), draw_mount(rng)
    board = draw_board_on_mount(HAND_BOARD, mount, rng)
    views = pair_views(HAND_BOARD, pair, [np.linalg.inv(mount) @ board], rng, noise_px)
    return pair, mount, board, views


def on_palm(seed: int = 3, count: int = 20, joint_deg: float = 0.2, used=(1.0, 1.0)):
    rng = np.random.default_rng(seed)
    pair, mount = draw_pair(TWIN, rng), draw_mount(rng)
    board = draw_board_on_palm(HAND_BOARD, rng)
    wrists = [draw_wrist(rng) * used for _ in range(count)]
    poses = [np.linalg.inv(mount) @ link(PALM).pose(wrist) @ board for wrist in wrists]
    views = pair_views(HAND_BOARD, pair, poses, rng)
    measured = [
        replace(view, joints=wrist + np.radians(rng.normal(0.0, joint_deg, 2)))
        for view, wrist in zip(views, wrists, strict=True)
    ]
    return pair, mount, board, measured


def mount_error(found, truth: np.ndarray) -> tuple[float, float]:
    """Distance [m] and angle [rad] between a mount and the true one."""
    turn = cv2.Rodrigues(truth[:3, :3].T @ found.mount.transform[:3, :3])[0]
    return (
        float(np.linalg.norm(found.mount.transform[:3, 3] - truth[:3, 3])),
        float(np.linalg.norm(turn)),
    )


@pytest.mark.parametrize("seed", [3, 4])
def test_one_view_of_a_board_at_a_known_place_gives_the_mount(seed: int) -> None:
    pair, truth, board, views = on_mount(seed)
    found = calibrate_mount(HAND_BOARD, views, pair, link(MOUNT), board, CAMERA)
    position_m, angle = mount_error(found, truth)
    assert position_m < 4.0 * found.position_std_m < 0.002
    assert angle < 4.0 * found.rotation_std_rad < np.radians(0.3)
    assert (found.mount.parent, found.mount.child) == (MOUNT, CAMERA)


def test_views_of_a_board_that_stands_still_promise_no_more_than_one() -> None:
    pair, _, board, views = on_mount()
    once = calibrate_mount(HAND_BOARD, views, pair, link(MOUNT), board, CAMERA)
    often = calibrate_mount(HAND_BOARD, views * 9, pair, link(MOUNT), board, CAMERA)
    assert often.position_std_m == pytest.approx(once.position_std_m, rel=0.1)


@pytest.mark.parametrize("joint_deg", [0.05, 0.3])
def test_a_board_anyhow_on_the_palm_gives_the_mount_and_how_far_joints_are_off(joint_deg) -> None:
    pair, truth, board, views = on_palm(joint_deg=joint_deg)
    found = calibrate_mount(HAND_BOARD, views, pair, link(PALM), None, CAMERA)
    position_m, angle = mount_error(found, truth)
    assert position_m < 4.0 * found.position_std_m < 0.004
    assert angle < 4.0 * found.rotation_std_rad < np.radians(0.6)
    assert np.degrees(found.estimate.joint_std_rad) == pytest.approx(joint_deg, rel=0.4)
    assert found.estimate.pixel_std == pytest.approx(0.02, rel=0.2)
    np.testing.assert_allclose(found.estimate.on_link[:3, 3], board[:3, 3], atol=0.004)


def test_a_board_at_a_known_place_on_the_palm_is_as_sure_as_the_joints_are() -> None:
    pair, truth, board, views = on_palm(joint_deg=0.05)
    found = calibrate_mount(HAND_BOARD, views[:8], pair, link(PALM), board, CAMERA)
    position_m, angle = mount_error(found, truth)
    assert position_m < 4.0 * found.position_std_m < 0.004
    assert angle < 4.0 * found.rotation_std_rad < np.radians(0.6)
    # One view tells nothing about the joint sensors, which are then taken to be good to 0.2 deg.
    text = mount_refusal(pair, views[:1], PALM, board)
    assert "direction is known to" in text


def test_one_camera_alone_can_be_placed_too() -> None:
    pair, truth, board, views = on_mount()
    alone = [replace(view, seen=view.seen[:1]) for view in views]
    found = calibrate_mount(HAND_BOARD, alone, pair.left, link(MOUNT), board, CAMERA)
    assert mount_error(found, truth)[0] < 0.002


def mount_refusal(pair, views, on: str, known, **more) -> str:
    with pytest.raises(CalibrationRefused) as refused:
        calibrate_mount(HAND_BOARD, views, pair, link(on), known, CAMERA, **more)
    return str(refused.value)


def test_a_board_of_unknown_place_must_be_on_a_link_that_moves() -> None:
    pair, _, _, views = on_mount()
    text = mount_refusal(pair, views, MOUNT, None)
    assert "no joint moves rh_forearm" in text
    assert "place on it must be given" in text


def test_too_few_views_of_a_palm_are_refused() -> None:
    pair, _, _, views = on_palm(count=6)
    assert "10 are needed where its place on rh_palm is unknown" in mount_refusal(
        pair, views, PALM, None
    )


def test_a_palm_that_turns_about_one_axis_only_is_refused() -> None:
    pair, _, _, views = on_palm(used=(0.1, 1.0))
    text = mount_refusal(pair, views, PALM, None)
    assert "move rh_WRJ2 and rh_WRJ1 through more of their range" in text


def test_a_board_that_nobody_sees_is_refused() -> None:
    pair, _, board, views = on_mount()
    blind = [replace(view, seen=(None, None)) for view in views]
    assert "is seen in none of 1 views" in mount_refusal(pair, blind, MOUNT, board)


def test_pictures_of_another_size_than_the_calibration_are_refused() -> None:
    pair, _, board, views = on_mount()
    left, right = views[0].seen
    other = [replace(views[0], seen=(replace(left, size=(640, 480)), right))]
    text = mount_refusal(pair, other, MOUNT, board)
    assert "640x480 pixels, and the camera's calibration of 280x180" in text


def test_views_without_the_joints_that_move_the_link_are_refused() -> None:
    pair, _, _, views = on_palm()
    text = mount_refusal(pair, [replace(view, joints=None) for view in views], PALM, None)
    assert "has 0 joint positions, expected those of rh_WRJ2, rh_WRJ1" in text


def test_joints_that_contradict_the_pictures_are_refused() -> None:
    pair, _, _, views = on_palm()
    joints = [view.joints for view in views]
    wrong = [replace(v, joints=q) for v, q in zip(views, joints[1:] + joints[:1], strict=True)]
    assert "degrees off what the pictures show" in mount_refusal(pair, wrong, PALM, None)


def test_a_mount_that_is_less_certain_than_promised_is_refused() -> None:
    pair, _, board, views = on_mount(noise_px=0.05)
    promise = MountPromise(position_m=1e-4, rotation_rad=1e-4)
    text = mount_refusal(pair, views, MOUNT, board, promise=promise)
    assert "place is known to" in text
    assert "direction is known to" in text


# What both stand on.


def test_slopes_of_composed_poses_are_those_of_small_steps() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.0, 0.5, 6), rng.normal(0.0, 0.5, 6)
    both, by_first, by_second = composed(first, second)
    expected = transform(second[:3], second[3:]) @ transform(first[:3], first[3:])
    np.testing.assert_allclose(both, vectors(expected), atol=1e-9)
    step = 1e-6
    for index, change in enumerate(step * np.eye(6)):
        slope = (composed(first + change, second)[0] - both) / step
        np.testing.assert_allclose(slope, by_first[:, index], atol=1e-4)
        slope = (composed(first, second + change)[0] - both) / step
        np.testing.assert_allclose(slope, by_second[:, index], atol=1e-4)


def test_least_squares_finds_a_line_and_its_covariance() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 1.0, 200)
    design = np.stack([x, np.ones_like(x), x], axis=1)
    y = 2.0 * x + 1.0 + rng.normal(0.0, 0.1, 200)

    def evaluate(shared: np.ndarray, own: np.ndarray) -> Normal:
        normal = Normal(3)
        normal.add(design @ shared - y, [(slice(0, 3), design)])
        return normal

    with pytest.raises(NotSolvable):
        solve(evaluate, np.zeros(3))
    found = solve(evaluate, np.zeros(3), free=np.array([True, True, False]))
    np.testing.assert_allclose(found.shared, [*np.polyfit(x, y, 1), 0.0], atol=1e-6)
    expected = np.linalg.inv(design[:, :2].T @ design[:, :2]) * found.sigma**2
    np.testing.assert_allclose(found.covariance[:2, :2], expected, rtol=1e-6)
    assert found.sigma == pytest.approx(0.1, rel=0.15)


def test_eliminating_what_views_do_not_share_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    views, shared_by, own_by = 5, rng.normal(size=(5, 9, 3)), rng.normal(size=(5, 9, 2))
    y = rng.normal(size=(views, 9))
    dense = np.zeros((views, 9, 3 + 2 * views))
    for view in range(views):
        dense[view, :, :3] = shared_by[view]
        dense[view, :, 3 + 2 * view : 5 + 2 * view] = own_by[view]
    design = dense.reshape(-1, 3 + 2 * views)

    def evaluate(shared: np.ndarray, own: np.ndarray) -> Normal:
        normal = Normal(3, *own.shape)
        for view in range(views):
            error = shared_by[view] @ shared + own_by[view] @ own[view] - y[view]
            normal.add(error, [(slice(0, 3), shared_by[view])], view, own_by[view])
        return normal

    found = solve(evaluate, np.zeros(3), np.zeros((views, 2)))
    expected = np.linalg.lstsq(design, y.ravel(), rcond=None)[0]
    np.testing.assert_allclose(found.shared, expected[:3], atol=1e-6)
    np.testing.assert_allclose(found.own.ravel(), expected[3:], atol=1e-6)
    covariance = np.linalg.inv(design.T @ design) * found.sigma**2
    np.testing.assert_allclose(found.covariance, covariance[:3, :3], rtol=1e-6)
    np.testing.assert_allclose(found.own_covariance[1], covariance[5:7, 5:7], rtol=1e-6)
