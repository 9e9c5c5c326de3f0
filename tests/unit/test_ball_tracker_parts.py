# SPDX-License-Identifier: Apache-2.0
"""Votes, fusion, circles, motion, identities, the hand's outline and the network's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from twinloop.models.base import ModelInvalid
from twinloop.models.network_file import WEIGHTS
from twinloop.perception.ball_tracker import weights
from twinloop.perception.ball_tracker.alignment import RigAlignment
from twinloop.perception.ball_tracker.circles import fit_circle
from twinloop.perception.ball_tracker.detector import Masks
from twinloop.perception.ball_tracker.eyes import FOCAL_PX, WINDOW, Eyes
from twinloop.perception.ball_tracker.fusion import Sight, match
from twinloop.perception.ball_tracker.identity import Appearances, assign
from twinloop.perception.ball_tracker.motion import BallMotion, PalmMotion
from twinloop.perception.ball_tracker.network import (
    NetworkConfig,
    VoteNetwork,
    folded,
    read,
    standardised,
)
from twinloop.perception.ball_tracker.silhouette import blob_of_outline
from twinloop.perception.ball_tracker.votes import Blob, Votes, find_blobs
from twinloop.perception.camera_model import CameraModel, StereoModel, pinhole
from twinloop.robots.hand24 import HAND24

RADIUS_M, BASELINE_M = 0.028, 0.12
CENTRES = np.array([[0.05, -0.02, 0.40], [0.10, 0.01, 0.41]])


def stereo(size: tuple[int, int] = (280, 180)) -> StereoModel:
    return StereoModel(pinhole("left", size, 60.0), pinhole("right", size, 60.0, BASELINE_M))


def votes_for(centres: np.ndarray, hidden: float = 0.0, noise: float = 0.3, seed: int = 0) -> Votes:
    """Votes of cells on a 4-pixel grid over discs, the left part of each of them hidden."""
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(-60, 100, 4.0), np.arange(-60, 60, 4.0)), -1)
    cells = cells.reshape(-1, 2)
    place, radius, color = [], [], []
    for ball, centre in enumerate(centres):
        pixel, r = FOCAL_PX * centre[:2] / centre[2], FOCAL_PX * RADIUS_M / centre[2]
        on = np.linalg.norm(cells - pixel, axis=-1) < r
        on &= cells[:, 0] > pixel[0] - r + 2 * r * hidden
        middle = pixel / (1.0 - (r / FOCAL_PX) ** 2)
        place.append(middle + rng.normal(0.0, noise, (on.sum(), 2)))
        radius.append(np.full(on.sum(), r))
        color.append(np.tile([200.0 - 150.0 * ball, 30.0, 30.0], (on.sum(), 1)))
    place, radius = np.concatenate(place), np.concatenate(radius)
    count = len(place)
    return Votes(
        place,
        np.full((count, 2), noise),
        radius,
        np.full(count, 0.02),
        np.ones(count),
        np.concatenate(color),
        16.0,
    )


def blobs_of(centres: np.ndarray, hidden: float = 0.0) -> tuple[list[Blob], list[Blob]]:
    left, right = centres, centres - [BASELINE_M, 0.0, 0.0]
    found = [find_blobs(votes_for(c, hidden, seed=i), 60.0) for i, c in enumerate((left, right))]
    return found[0], found[1]


@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_votes_of_touching_balls_part_into_two_centres(hidden: float) -> None:
    touching = CENTRES.copy()
    touching[1] = touching[0] + [0.056, 0.0, 0.0]
    left, _ = blobs_of(touching, hidden)
    expected = FOCAL_PX * touching[:, :2] / touching[:, 2:]
    found = np.array(sorted(tuple(blob.centre) for blob in left))
    np.testing.assert_allclose(found, expected, atol=0.2)
    fraction = [blob.visible_fraction for blob in left]
    np.testing.assert_allclose(fraction, 1.0 - hidden, atol=0.12)


def test_few_votes_are_no_ball() -> None:
    votes = votes_for(CENTRES[:1], hidden=0.95)
    assert find_blobs(votes, least_area=120.0) == []


def test_both_eyes_place_balls_within_a_millimetre() -> None:
    sights = match(*blobs_of(CENTRES), RADIUS_M, BASELINE_M)
    found = np.array(sorted(tuple(sight.position) for sight in sights))
    assert all(sight.is_stereo for sight in sights)
    np.testing.assert_allclose(found, CENTRES, atol=0.001)
    depth_std, across_std = (np.sqrt(sights[0].covariance[i, i]) for i in (2, 1))
    assert depth_std > 2.0 * across_std


def test_one_eye_places_a_ball_by_its_size_and_knows_how_badly() -> None:
    left, _ = blobs_of(CENTRES[:1])
    [sight] = match(left, [], RADIUS_M, BASELINE_M)
    assert not sight.is_stereo
    assert sight.visible_fraction == 0.0
    np.testing.assert_allclose(sight.position[:2], CENTRES[0, :2], atol=0.002)
    assert np.sqrt(sight.covariance[2, 2]) > 0.004


def test_circles_are_found_among_points_of_other_things() -> None:
    rng = np.random.default_rng(0)
    angle = rng.uniform(0.0, np.pi, 40)
    on = np.array([30.0, 40.0]) + 17.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    points = np.concatenate([on + rng.normal(0, 0.1, on.shape), rng.uniform(10, 60, (25, 2))])
    fit = fit_circle(points, (13.0, 22.0), rng)
    assert fit is not None
    np.testing.assert_allclose(fit[0], [30.0, 40.0, 17.0], atol=0.3)
    assert fit_circle(rng.uniform(0, 200, (12, 2)), (13.0, 22.0), rng) is None


def test_an_outline_gives_the_spheres_centre_not_its_own() -> None:
    x, z = 0.1, 0.4
    # The outline's ends left and right, exactly.
    reach, turn = np.arcsin(RADIUS_M / np.hypot(x, z)), np.arctan2(x, z)
    ends = FOCAL_PX * np.tan([turn - reach, turn + reach])
    radius = FOCAL_PX * RADIUS_M / np.sqrt(z**2 - RADIUS_M**2)
    circle = np.array([ends.mean(), 0.0, radius])
    blob = blob_of_outline(circle, 1.0, np.zeros(2), np.zeros(3))
    assert blob.centre[0] == pytest.approx(FOCAL_PX * x / z, abs=0.01)
    assert circle[0] - blob.centre[0] > 0.2
    assert blob.radius == pytest.approx(FOCAL_PX * RADIUS_M / z, abs=0.01)


def test_motion_errs_as_much_as_its_covariance_says() -> None:
    rng = np.random.default_rng(0)
    dt, q, count = 1 / 30, 0.1, 400
    spread = np.diag([3e-4, 3e-4, 1e-3]) ** 2
    shape = np.linalg.cholesky(q * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]]))
    scores = []
    for _ in range(count):
        position, velocity = np.zeros(3), rng.normal(0.0, 0.1, 3)
        motion = BallMotion(rng.multivariate_normal(position, spread), spread, 0.1)
        for _ in range(12):
            kick = rng.normal(size=(3, 2)) @ shape.T
            position = position + velocity * dt + kick[:, 0]
            velocity = velocity + kick[:, 1]
            motion.predict(dt, q, 1e6)
            motion.correct(rng.multivariate_normal(position, spread), spread)
        error = motion.state - np.concatenate([position, velocity])
        scores.append(error @ np.linalg.solve(motion.covariance, error))
    assert np.mean(scores) == pytest.approx(6.0, rel=0.15)


def test_a_palm_that_speeds_up_carries_points_at_its_present_velocity() -> None:
    palm, point = PalmMotion(), np.array([0.0, -0.04, 0.1])
    np.testing.assert_array_equal(palm.velocity(point), 0.0)
    rate, gain = 0.4, 1.5  # rad/s, rad/s^2, about x
    for stamp in (0.0, 0.03, 0.07, 0.10):
        angle = rate * stamp + 0.5 * gain * stamp**2
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
        palm.add(stamp, np.zeros(3), turn)
    expected = np.cross([rate + gain * 0.10, 0.0, 0.0], point)
    np.testing.assert_allclose(palm.velocity(point), expected, atol=5e-4)


def test_a_surprise_lets_the_estimate_follow() -> None:
    spread = 1e-7 * np.eye(3)
    calm, hit = (BallMotion(np.zeros(3), spread, 0.01) for _ in range(2))
    place = np.array([0.0, -0.01, 0.0])
    for motion in (calm, hit):
        motion.predict(1 / 30, 1e-3, 0.2)
    assert hit.distance(place, spread) > 9.0
    hit.disturb(1 / 30, 5.0)
    for motion in (calm, hit):
        motion.correct(place, spread)
    assert hit.velocity[1] == pytest.approx(-0.01 * 30 * 1.5, rel=0.05)
    assert abs(calm.velocity[1]) < 0.7 * abs(hit.velocity[1])


def sight_at(position: np.ndarray, color: np.ndarray) -> Sight:
    return Sight(position, 1e-6 * np.eye(3), 1.0, 1.0, color, True)


RED, BLUE = np.array([200.0, 20.0, 20.0]), np.array([20.0, 20.0, 200.0])


def assigned(
    sights: list[Sight], tracks: list[BallMotion | None], looks: Appearances
) -> list[int | None]:
    places = [(sight.position, sight.covariance) for sight in sights]
    return assign(sights, places, tracks, looks, np.full((2, 3), np.nan), RADIUS_M)


def test_at_first_the_ball_near_its_start_place_is_ball_0() -> None:
    places = [np.array([0.03, -0.035, 0.12]), np.array([-0.03, -0.035, 0.11])]
    sights = [sight_at(place, RED) for place in places]
    assert assigned(sights, [None, None], Appearances()) == [1, 0]


def test_balls_keep_their_names_where_they_were() -> None:
    tracks = [BallMotion(np.array([x, 0.0, 0.4]), 1e-6 * np.eye(3), 0.1) for x in (0.03, -0.03)]
    sights = [sight_at(np.array([x, 0.0, 0.4]), RED) for x in (-0.031, 0.031)]
    assert assigned(sights, [*tracks], Appearances()) == [1, 0]
    assert assigned(sights[:1], [*tracks], Appearances()) == [None, 0]


def test_lost_balls_are_told_apart_by_their_colours() -> None:
    looks = Appearances()
    looks.learn(0, BLUE)
    looks.learn(1, RED)
    places = [np.array([-0.03, -0.035, 0.11]), np.array([0.03, -0.035, 0.12])]
    sights = [sight_at(places[0], RED), sight_at(places[1], BLUE)]
    assert assigned(sights, [None, None], looks) == [1, 0]


def test_two_sights_of_one_place_are_not_two_balls() -> None:
    near = [sight_at(np.array([x, -0.035, 0.11]), RED) for x in (-0.03, -0.02)]
    found = assigned(near, [None, None], Appearances())
    assert sum(index is not None for index in found) == 1


def test_the_hand_tells_how_far_the_rig_is_off() -> None:
    eyes, q = Eyes(stereo()), HAND24.poses["cup"]
    alignment = RigAlignment("right", BASELINE_M)
    from twinloop.robots.description import hand_urdf
    from twinloop.robots.kinematics import fixed_transform

    left_from_world = np.linalg.inv(fixed_transform(hand_urdf(), "world", "camera_left_optical"))
    motion = np.eye(4)
    motion[:3, 3] = [0.0015, -0.001, 0.002]
    truth = RigAlignment("right", BASELINE_M)
    middle = left_from_world[:3, :3] @ [0.01, 0.0, 0.2] + left_from_world[:3, 3]
    corners = eyes.corners(middle)
    ends, boxes = truth._hand.pose(q)
    moved = motion @ left_from_world
    masks = []
    for eye in range(2):
        shift = moved[:3, 3] - [eye * BASELINE_M, 0.0, 0.0]
        masks.append(
            drawn(
                ends @ moved[:3, :3].T + shift,
                boxes @ moved[:3, :3].T + shift,
                truth._hand._radius,
                corners[eye],
            )
        )
    for frame in range(10):
        eye = frame % 2
        alignment.update(frame / 30, q, left_from_world, eye, masks[eye], corners[eye])
    seen = motion[:3, :3] @ middle + motion[:3, 3]
    found = alignment.correction[:3, :3] @ middle + alignment.correction[:3, 3]
    assert np.linalg.norm(seen - middle) > 0.002
    assert np.linalg.norm(found - seen) < 0.0008


def drawn(ends: np.ndarray, boxes: np.ndarray, radius: np.ndarray, corner: np.ndarray) -> Masks:
    """Masks of a hand of rods and boxes, four times finer than they are and averaged."""
    import cv2

    fine = 4
    picture = np.zeros((WINDOW[1] * fine, WINDOW[0] * fine), dtype=np.uint8)

    def pixels(points: np.ndarray) -> np.ndarray:
        flat = FOCAL_PX * points[..., :2] / points[..., 2:] - corner
        return fine * (flat + 0.5) - 0.5

    for rod, r in zip(ends, radius, strict=True):
        for share in np.linspace(0.0, 1.0, 80):
            point = rod[0] + share * (rod[1] - rod[0])
            x, y = np.rint(16 * pixels(point)).astype(int)
            size = round(16 * fine * FOCAL_PX * r / np.sqrt(point[2] ** 2 - r**2))
            cv2.circle(picture, (x, y), size, 255, -1, shift=4)
    for box in boxes:
        hull = cv2.convexHull(np.rint(pixels(box)).astype(np.int32))
        cv2.fillConvexPoly(picture, hull, 255)
    size = (WINDOW[0] // 2, WINDOW[1] // 2)
    hand = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    return Masks(hand, np.zeros_like(hand))


def test_windows_of_distorted_cameras_are_those_of_ideal_ones() -> None:
    size = (560, 360)
    ideal = pinhole("left", size, 60.0)
    bent = CameraModel("left", size, ideal.k, np.array([-0.2, 0.05, 0, 0, 0]), ideal.r, ideal.p)
    points = np.array([[0.05, -0.02, 0.4], [0.06, 0.0, 0.4], [0.04, 0.02, 0.41]])
    for camera in (ideal, bent):
        eyes = Eyes(StereoModel(camera, pinhole("right", size, 60.0, BASELINE_M)))
        image = np.zeros((360, 560, 3), dtype=np.uint8)
        import cv2

        for pixel in camera.project(points):
            x, y = np.rint(16 * pixel).astype(int)
            cv2.circle(image, (x, y), 16 * 6, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
        corners = eyes.corners(points[0])
        window = eyes.windows(image, image, corners)[0]
        assert window.shape == (WINDOW[1], WINDOW[0], 3)
        for pixel in eyes.project(points)[0] - corners[0]:
            x, y = np.rint(pixel).astype(int)
            patch = window[y - 5 : y + 6, x - 5 : x + 6, 0].astype(float)
            rows, columns = np.mgrid[-5:6, -5:6]
            middle = np.array([(patch * columns).sum(), (patch * rows).sum()]) / patch.sum()
            np.testing.assert_allclose(middle + np.array([x, y]), pixel, atol=0.25)


def test_folding_changes_no_output() -> None:
    torch.manual_seed(0)
    network = VoteNetwork(NetworkConfig(widths=(4, 8, 8), depths=(1, 2)))
    windows = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    for _ in range(3):
        network(standardised(windows))
    network.eval()
    with torch.no_grad():
        plain = read(*network(standardised(windows)))
        fast = read(*folded(network)(standardised(windows)))
    torch.testing.assert_close(plain.offset, fast.offset, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(plain.logits, fast.logits, atol=1e-3, rtol=1e-3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "tracker"
    weights.save(folder, VoteNetwork(NetworkConfig(widths=(4, 8, 8), depths=(1, 1))), {"seed": 0})
    return folder


def test_a_saved_network_is_loaded_whole(saved: Path) -> None:
    torch.manual_seed(0)
    made = VoteNetwork(NetworkConfig(widths=(4, 8, 8), depths=(1, 1))).state_dict()
    for name, tensor in weights.load(saved).state_dict().items():
        torch.testing.assert_close(tensor, made[name])


def test_spoilt_weights_are_refused_by_name(saved: Path) -> None:
    path = saved / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(ModelInvalid, match=r"weights\.safetensors: is \d+ bytes long, expected"):
        weights.load(saved)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelInvalid, match="sha256"):
        weights.load(saved)
    path.unlink()
    with pytest.raises(ModelInvalid, match=r"weights\.safetensors: is missing"):
        weights.load(saved)


def test_weights_that_are_not_finite_are_refused(saved: Path, tmp_path: Path) -> None:
    network = weights.load(saved)
    with torch.no_grad():
        network.votes.weight[0, 0] = torch.nan
    with pytest.raises(ModelInvalid, match=r"votes\.weight has 1 values that are NaN"):
        weights.save(tmp_path / "other", network, {})


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    path = saved / weights.MANIFEST
    content = json.loads(path.read_text())
    content["network"]["widths"] = [4, 8, 16]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelInvalid, match=r"weights\.safetensors: tensor .* has shape"):
        weights.load(saved)
    content["network"]["widths"] = [4, 8, 100000]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelInvalid, match=r"tracker\.json: .*widths"):
        weights.load(saved)
