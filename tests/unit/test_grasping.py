# SPDX-License-Identifier: Apache-2.0
"""Grasps from depth images: geometry, quality, refusals, calibration, and the network's file."""

from __future__ import annotations

import dataclasses
import itertools
import json

import grasp_views
import numpy as np
import pytest
import torch
from twinloop.grasping import calibration, candidates, crops, heights, surface, weights
from twinloop.grasping.baselines import top_down
from twinloop.grasping.drawing import annotate
from twinloop.grasping.force_closure import ferrari_canny, wrenches
from twinloop.grasping.gripper import ANGLE, FRANKA_HAND, TIP, WIDTH, X, Y
from twinloop.grasping.network import NetworkConfig, QualityNetwork
from twinloop.grasping.planner import GraspPlanner, PlannerSettings, poses, rows
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.models.base import ModelInvalid
from twinloop.models.network_file import WEIGHTS

CAMERA = grasp_views.camera()
BOX = (0.05, -0.03, 0.04, 0.09, 0.05)
SETTINGS = PlannerSettings(first=60, rounds=1, again=30)


@pytest.fixture(scope="module")
def network() -> QualityNetwork:
    torch.manual_seed(0)
    return QualityNetwork(NetworkConfig(channels=(4, 4, 4), hidden=8)).eval()


def by_facets(hull: np.ndarray) -> float:
    """Return the exact quality: the nearest of all planes through six wrenches that bound all."""
    chosen = np.array(list(itertools.combinations(range(len(hull)), 6)))
    corners = hull[chosen]
    sound = np.abs(np.linalg.det(corners)) > 1e-12
    planes = np.linalg.solve(corners[sound], np.ones((sound.sum(), 6, 1)))[..., 0]
    bounds = (planes @ hull.T).max(1) < 1.0 + 1e-7
    return float(1.0 / np.linalg.norm(planes[bounds], axis=1).max()) if bounds.any() else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_quality_is_the_distance_of_the_nearest_facet(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normals = np.array([[[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]]) + rng.normal(0, 0.1, (1, 2, 3))
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    contacts = np.array([[[-0.02, 0.0, 0.0], [0.02, 0.0, 0.0]]]) + rng.normal(0, 0.003, (1, 2, 3))
    hull = wrenches(contacts, normals, np.zeros((1, 3)), np.array([0.6]), np.array([0.05]))
    exact = by_facets(hull[0])
    assert exact > 0.005
    # Found by descent, hence from above.
    assert exact * (1 - 1e-6) <= ferrari_canny(hull)[0] <= 1.25 * exact


def test_contacts_that_face_away_from_each_other_hold_nothing() -> None:
    contacts = np.array([[[-0.02, 0.0, 0.0], [0.02, 0.0, 0.0]]])
    normals = np.array([[[0.5, 0.866, 0.0], [-0.5, 0.866, 0.0]]])  # 60° aside, friction is 0.5
    hull = wrenches(contacts, normals, np.zeros((1, 3)), np.array([0.5]), np.array([0.05]))
    assert ferrari_canny(hull)[0] < 1e-3


@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_heights_are_those_of_the_scene_however_the_camera_hangs(tilt: float) -> None:
    scene = heights.build(grasp_views.table([BOX], tilt), CAMERA)
    assert scene.heights.max() == pytest.approx(BOX[4], abs=0.002)
    assert np.median(scene.heights) == pytest.approx(0.0, abs=0.001)
    row, column = np.nonzero(scene.is_target & (scene.heights > 0.04))
    assert np.ptp(column) * heights.RESOLUTION_M == pytest.approx(BOX[2], abs=0.006)
    assert np.ptp(row) * heights.RESOLUTION_M == pytest.approx(BOX[3], abs=0.006)


def test_heights_do_not_depend_on_the_camera_that_saw_them() -> None:
    wide = grasp_views.camera(640.0, (1280, 720))
    one = heights.build(grasp_views.table([BOX]), CAMERA)
    other = heights.build(grasp_views.table([BOX], model=wide), wide)
    assert one.heights.shape == pytest.approx(other.heights.shape, abs=2)
    assert (one.heights > 0.04).sum() == pytest.approx((other.heights > 0.04).sum(), rel=0.05)


def test_candidates_lie_across_the_box(network: QualityNetwork) -> None:
    scene = heights.build(grasp_views.table([BOX]), CAMERA)
    found = candidates.sample(scene, FRANKA_HAND, 200, np.random.default_rng(0))
    assert len(found) == 200
    # The box is 4 cm wide along x and too long along y.
    assert np.all(np.abs(np.sin(found[:, ANGLE])) < 0.75)
    assert np.all(found[:, WIDTH] > 0.04)
    assert np.all(found[:, WIDTH] <= FRANKA_HAND.opening_m)
    assert np.all(found[:, TIP] >= candidates.LOWEST_TIP_M)


def test_fingers_collide_with_what_stands_in_their_way() -> None:
    scene = heights.build(grasp_views.table([BOX]), CAMERA)
    tops = np.nonzero(scene.heights > 0.04)
    y = float(np.mean(tops[0]) * heights.RESOLUTION_M + scene.origin[1])
    x = float(np.mean(tops[1]) * heights.RESOLUTION_M + scene.origin[0])
    wide, narrow = np.array([[x, y, 0, 0.03, 0.06], [x, y, 0, 0.03, 0.03]])
    low_palm, beside = np.array([[x, y, 0, -0.02, 0.06], [x + 0.06, y, 0, 0.02, 0.03]])
    deep = surface.penetration(scene, np.array([wide, narrow, low_palm, beside]), FRANKA_HAND)
    assert deep[0] < 0.0
    assert deep[1] == pytest.approx(0.02, abs=0.004)
    assert deep[2] > 0.01
    found = surface.between(scene, np.array([wide, beside]), FRANKA_HAND)
    assert found.is_there.tolist() == [True, False]
    assert found.touch[0, 1, 0] - found.touch[0, 0, 0] == pytest.approx(BOX[2], abs=0.006)


def test_a_plan_is_ranked_sound_and_the_same_again(network: QualityNetwork) -> None:
    depth = grasp_views.table([BOX], 0.15)
    planner = GraspPlanner(network, settings=SETTINGS)
    grasps = planner.plan(depth, CAMERA, seed=3)
    again = planner.plan(depth, CAMERA, seed=3)
    assert [one.quality for one in grasps] == sorted((one.quality for one in grasps), reverse=True)
    assert all(np.array_equal(a.position, b.position) for a, b in zip(grasps, again, strict=True))
    for one in grasps:
        assert 0.01 <= one.width_m <= FRANKA_HAND.opening_m
        assert one.depth_m > 0.0
        assert one.rotation @ one.rotation.T == pytest.approx(np.eye(3), abs=1e-9)
        assert np.linalg.det(one.rotation) == pytest.approx(1.0)
        # Down onto the tilted table, whose normal the camera sees turned by as much.
        assert one.rotation[:, 2] == pytest.approx([0, np.sin(0.15), np.cos(0.15)], abs=0.02)
        spread = np.linalg.norm(one.contacts[1] - one.contacts[0])
        assert 0.02 < spread <= one.width_m + 1e-9


def test_refinement_keeps_what_was_drawn_and_finds_what_is_judged_better(
    network: QualityNetwork,
) -> None:
    scene = heights.build(grasp_views.table([BOX], 0.15), CAMERA)
    best, counts = [], []
    for rounds in (0, 2):
        planner = GraspPlanner(network, settings=dataclasses.replace(SETTINGS, rounds=rounds))
        grasps, quality = planner.search(scene, np.random.default_rng(5))
        best.append(quality[0])
        counts.append(len(grasps))
        deep = surface.penetration(scene, grasps, FRANKA_HAND)
        assert np.all(deep < surface.TOLERANCE_M)
    assert best[1] > best[0]
    assert counts[1] > counts[0]


def test_poses_and_rows_are_each_other(network: QualityNetwork) -> None:
    scene = heights.build(grasp_views.table([BOX], 0.1), CAMERA)
    given = candidates.sample(scene, FRANKA_HAND, 20, np.random.default_rng(1))
    found = rows(scene, poses(scene, given, np.zeros(20), FRANKA_HAND))
    assert found[:, [X, Y, TIP, WIDTH]] == pytest.approx(given[:, [X, Y, TIP, WIDTH]], abs=1e-9)
    assert np.sin(found[:, ANGLE] - given[:, ANGLE]) == pytest.approx(np.zeros(20), abs=1e-9)


def test_places_that_failed_are_avoided(network: QualityNetwork) -> None:
    depth = grasp_views.table([BOX, (-0.08, 0.0, 0.03, 0.03, 0.04)])
    planner = GraspPlanner(network, settings=SETTINGS)
    first = planner.plan(depth, CAMERA)[0]
    others = planner.plan(depth, CAMERA, avoid=[first.position], avoid_m=0.03)
    assert all(np.linalg.norm(one.position - first.position) > 0.03 for one in others)


def test_a_mask_keeps_grasps_to_its_things(network: QualityNetwork) -> None:
    depth = grasp_views.table([BOX, (-0.08, 0.0, 0.03, 0.03, 0.04)])
    mask = np.zeros(depth.shape, bool)
    mask[:, :300] = True
    for one in GraspPlanner(network, settings=SETTINGS).plan(depth, CAMERA, mask):
        assert np.all(one.contacts[:, 0] < 0.0)


@pytest.mark.parametrize(
    ("depth", "model", "reason"),
    [
        (np.zeros((480, 640), np.float32), CAMERA, Reason.ALL_HOLES),
        (np.full((480, 640), np.nan, np.float32), CAMERA, Reason.ALL_HOLES),
        (1000 * grasp_views.table([BOX]), CAMERA, Reason.ALL_HOLES),
        (grasp_views.table([]), CAMERA, Reason.EMPTY_SCENE),
        (grasp_views.table([BOX])[::2, ::2], CAMERA, Reason.WRONG_INTRINSICS),
        (grasp_views.table([BOX]), grasp_views.camera(1.0), Reason.WRONG_INTRINSICS),
        (grasp_views.table([BOX]), grasp_views.camera(52500.0), Reason.WRONG_INTRINSICS),
        (grasp_views.table([(0, 0, 0.2, 0.2, 0.05)]), CAMERA, Reason.NO_GRASP),
    ],
)
def test_what_cannot_be_planned_is_refused_by_name(
    depth: np.ndarray, model: object, reason: Reason, network: QualityNetwork
) -> None:
    with pytest.raises(GraspRefused) as refused:
        GraspPlanner(network, settings=SETTINGS).plan(depth, model)  # type: ignore[arg-type]
    assert refused.value.reason is reason


def test_points_without_a_plane_are_refused() -> None:
    depth = np.random.default_rng(0).uniform(0.3, 2.5, (480, 640)).astype(np.float32)
    with pytest.raises(GraspRefused) as refused:
        heights.build(depth, CAMERA)
    assert refused.value.reason is Reason.NO_SUPPORT


def test_the_heuristic_grasps_across_the_principal_axis() -> None:
    scene = heights.build(grasp_views.table([BOX]), CAMERA)
    grasp = top_down(scene, FRANKA_HAND, [], 0.02)
    assert np.sin(grasp[ANGLE]) == pytest.approx(0.0, abs=0.05)
    assert grasp[WIDTH] == pytest.approx(BOX[2] + 0.016, abs=0.006)


def test_the_network_sees_the_fingers_at_their_width() -> None:
    scene = heights.build(grasp_views.table([BOX]), CAMERA)
    given = candidates.sample(scene, FRANKA_HAND, 2, np.random.default_rng(1))
    given[0, WIDTH], given[1, WIDTH] = 0.03, 0.06
    seen = crops.network_input(
        torch.from_numpy(crops.cut(scene, given)),
        torch.from_numpy(crops.numbers(given)),
        FRANKA_HAND,
    )
    fingers = seen[:, 2].sum(1)
    along = (torch.arange(crops.COLUMNS) - (crops.COLUMNS - 1) / 2) * crops.CELL_M
    for index, width in enumerate((0.03, 0.06)):
        middle = (fingers[index] * along.abs()).sum() / fingers[index].sum()
        assert float(middle) == pytest.approx(width / 2 + 0.006, abs=0.001)


def test_calibration_makes_told_and_found_alike() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 3, 4000)
    held = rng.random(4000) < 1 / (1 + np.exp(-(0.4 * odds + 1.0)))
    slope, intercept = calibration.fit(odds, held)
    assert (slope, intercept) == pytest.approx((0.4, 1.0), abs=0.1)
    quality = 1 / (1 + np.exp(-(slope * odds + intercept)))
    assert calibration.reliability(quality, held)["expected_calibration_error"] < 0.03
    wrong = calibration.reliability(1 - quality, held)
    assert wrong["expected_calibration_error"] > 0.2


def test_calibration_never_turns_the_order_round() -> None:
    odds = np.linspace(-3, 3, 100)
    slope, _ = calibration.fit(odds, odds < 0)
    assert slope > 0.0


def test_a_network_comes_back_from_its_files(tmp_path, network: QualityNetwork) -> None:
    weights.save(tmp_path, network, {"seed": 0}, (0.5, 0.25))
    found, manifest = weights.load(tmp_path)
    assert manifest.calibration == (0.5, 0.25)
    stored = torch.randint(0, 255, (3, crops.ROWS, crops.COLUMNS), dtype=torch.uint8)
    numbers = torch.tensor([[0.01, 0.05]] * 3)
    assert torch.equal(found(stored, numbers), network(stored, numbers))


@pytest.mark.parametrize("break_it", ["truncate", "change", "calibration"])
def test_files_that_are_not_whole_are_refused(tmp_path, network, break_it: str) -> None:
    weights.save(tmp_path, network, {})
    path = tmp_path / WEIGHTS
    content = bytearray(path.read_bytes())
    if break_it == "truncate":
        path.write_bytes(content[:-4])
    elif break_it == "change":
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        about = json.loads((tmp_path / weights.MANIFEST).read_text())
        about["calibration"] = ["nan", 0.0]
        (tmp_path / weights.MANIFEST).write_text(json.dumps(about))
    with pytest.raises(ModelInvalid):
        weights.load(tmp_path)


def test_grasps_are_drawn_into_the_image(network: QualityNetwork) -> None:
    depth = grasp_views.table([BOX])
    grasps = GraspPlanner(network, settings=SETTINGS).plan(depth, CAMERA)
    with_them, without = annotate(depth, CAMERA, grasps), annotate(depth, CAMERA, [])
    assert (with_them != without).any(axis=2).sum() > 50
