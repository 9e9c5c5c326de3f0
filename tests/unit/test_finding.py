# SPDX-License-Identifier: Apache-2.0
"""Grasps in a view of the bin: inside of it alone, away from what failed, of one thing first."""

from __future__ import annotations

import grasp_views
import numpy as np
import pytest
from numpy.typing import NDArray
from twinloop.grasping.finding import BinFinder
from twinloop.grasping.pick_devices import View
from twinloop.grasping.pick_settings import load_settings
from twinloop.grasping.planner import GraspPlanner, PlannerSettings
from twinloop.grasping.refusals import GraspRefused, Reason

SETTINGS = load_settings()
CAMERA = grasp_views.camera()
LEFT, RIGHT = (-0.02, 0.0, 0.03, 0.06, 0.05), (0.02, 0.0, 0.03, 0.06, 0.05)
BESIDE_THE_BIN = (0.0, 0.25, 0.04, 0.06, 0.05)


def seen(*boxes: tuple[float, float, float, float, float]) -> View:
    down = np.diag([1.0, -1.0, -1.0])
    place = np.array([0.0, 0.0, grasp_views.DISTANCE_M])
    return View(0.0, grasp_views.table(list(boxes)), CAMERA, down, place)


def finder(segment=None) -> BinFinder:
    return BinFinder(GraspPlanner(None, settings=PlannerSettings(told=60)), SETTINGS, segment)


def by_side(
    depth: NDArray[np.float32], _camera: object, region: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """What is left of the middle is one thing, what is right of it another."""
    labels = np.ones(depth.shape, np.uint16)
    labels[:, depth.shape[1] // 2 :] = 2
    labels[~region] = 0
    return labels


def test_grasps_are_of_what_lies_in_the_bin_and_told_in_the_arms_world() -> None:
    grasps = finder()(seen(LEFT, BESIDE_THE_BIN), [])
    assert grasps
    for grasp in grasps:
        # The camera's x axis is the world's, its y axis points the other way.
        assert np.abs(grasp.tips.position[:2] - [-0.02, 0.0]).max() < 0.04
        assert 0.0 < grasp.tips.position[2] < 0.05
        assert grasp.tips.rotation[2, 2] == pytest.approx(-1.0, abs=0.01)


def test_places_that_failed_are_avoided() -> None:
    failed = np.array([-0.02, 0.0, 0.03])
    grasps = finder()(seen(LEFT), [failed])
    off = [np.linalg.norm(grasp.tips.position - failed) for grasp in grasps]
    assert min(off) > SETTINGS.grasp.avoid_m


def test_grasps_of_one_thing_come_before_those_of_two() -> None:
    view = seen(LEFT, RIGHT)

    def spans_both(grasp) -> bool:
        half = grasp.tips.rotation[:, 1] * (grasp.width_m / 2 - 0.012)
        ends = np.stack([grasp.tips.position - half, grasp.tips.position + half])
        return bool(ends[:, 0].min() < -0.008 and ends[:, 0].max() > 0.008)

    mixed = [spans_both(grasp) for grasp in finder()(view, [])]
    ordered = [spans_both(grasp) for grasp in finder(by_side)(view, [])]
    assert any(mixed)
    assert sum(mixed[: len(mixed) // 3]) > 0
    assert not any(ordered[: len(ordered) // 3])


def test_an_empty_bin_is_told_from_one_without_grasps() -> None:
    crumb = (0.0, 0.0, 0.01, 0.01, 0.02)
    for view in (seen(), seen(BESIDE_THE_BIN), seen(crumb)):
        with pytest.raises(GraspRefused) as refused:
            finder()(view, [])
        assert refused.value.reason is Reason.EMPTY_SCENE
    wide = (0.0, 0.0, 0.12, 0.12, 0.04)
    with pytest.raises(GraspRefused) as refused:
        finder()(seen(wide), [])
    assert refused.value.reason is Reason.NO_GRASP
