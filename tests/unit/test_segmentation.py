# SPDX-License-Identifier: Apache-2.0
"""Heap segmentation: canvases, grouping, clusters, refusals, and weights on disk."""

from __future__ import annotations

import grasp_views
import numpy as np
import pytest
import torch
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.grasping.segmentation import Segmenter, weights
from twinloop.grasping.segmentation.clusters import clusters
from twinloop.grasping.segmentation.grouping import GroupingSettings, group
from twinloop.grasping.segmentation.image import HEIGHT, WIDTH, canvas, features
from twinloop.grasping.segmentation.network import (
    OFFSET_SCALE,
    Maps,
    SegmentNetwork,
    SegmentNetworkConfig,
)
from twinloop.models.base import ModelInvalid

BOXES = [(-0.08, 0.0, 0.05, 0.05, 0.04), (0.06, 0.02, 0.04, 0.08, 0.06)]
EVERYWHERE = np.ones((HEIGHT, WIDTH), bool)


def small_network() -> SegmentNetwork:
    torch.manual_seed(0)
    return SegmentNetwork(SegmentNetworkConfig(channels=(4, 4, 4, 4))).eval()


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (320, 240), (160, 120), (848, 480)])
@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_a_canvas_holds_heights_whatever_the_camera(size: tuple[int, int], tilt: float) -> None:
    camera = grasp_views.camera(525.0 * size[0] / 640, size)
    found = canvas(grasp_views.table(BOXES, tilt, camera), camera)
    assert found.heights.shape == (HEIGHT, WIDTH)
    assert found.heights.max() == pytest.approx(0.06, abs=0.002)
    assert abs(np.median(found.heights[found.is_seen])) < 0.001
    used = min(round(size[1] * WIDTH / size[0]), HEIGHT)
    assert not found.is_seen[used + 1 :].any()
    assert found.is_seen[: used - 1].all()


def test_cells_and_pixels_are_the_same_places() -> None:
    camera = grasp_views.camera()
    found = canvas(grasp_views.table(BOXES), camera)
    cells = np.arange(HEIGHT * WIDTH, dtype=np.uint32).astype(np.uint16).reshape(HEIGHT, WIDTH)
    assert np.array_equal(found.reduced(found.enlarged(cells)), cells)


def test_clusters_part_things_that_stand_apart_or_on_each_other() -> None:
    lower, upper = (0.0, 0.0, 0.12, 0.12, 0.03), (0.02, 0.0, 0.04, 0.04, 0.06)
    found = canvas(grasp_views.table([lower, upper, (-0.15, 0.0, 0.04, 0.04, 0.03)]),
                   grasp_views.camera())  # fmt: skip
    labels, scores = clusters(found, EVERYWHERE)
    assert len(scores) == 3
    assert list(scores) == sorted(scores, reverse=True)
    assert scores[0] == 1.0
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert (labels == 1).sum() > (labels == 2).sum() > 40
    assert len(clusters(found, ~EVERYWHERE)[1]) == 0


def test_labels_lie_on_the_things_and_in_the_region() -> None:
    camera = grasp_views.camera()
    depth = grasp_views.table(BOXES)
    depth[200:210] = 0.0
    depth[210:215] = np.nan
    found = Segmenter(None).segment(depth, camera)
    assert (found.labels.dtype, found.labels.shape) == (np.uint16, depth.shape)
    assert len(found.scores) == 2
    is_higher = (depth > 0.0) & (depth < grasp_views.DISTANCE_M - 0.01)
    is_lower = depth > grasp_views.DISTANCE_M - 0.002
    assert (found.labels[is_higher] > 0).mean() > 0.98
    assert (found.labels[is_lower] > 0).mean() < 0.01
    assert not found.labels[200:215].any()
    left = np.zeros(depth.shape, bool)
    left[:, :320] = True
    only = Segmenter(None).segment(depth, camera, left)
    assert len(only.scores) == 1
    assert not only.labels[:, 320:].any()
    assert only.mask(1).sum() > 1000


def test_an_empty_scene_has_no_things() -> None:
    found = Segmenter(None).segment(grasp_views.table([]), grasp_views.camera())
    assert not found.labels.any()
    assert len(found.scores) == 0


def perfect_maps(truth: np.ndarray) -> Maps:
    """What a network that knows the truth [240, 320] would say."""
    heat, offsets = torch.zeros(1, 120, 160), torch.zeros(1, 2, 120, 160)
    row, column = np.mgrid[:120, :160].astype(float)
    for label in range(1, int(truth.max()) + 1):
        rows, columns = np.nonzero(truth == label)
        at = (rows.mean() + 0.5) / 2 - 0.5, (columns.mean() + 0.5) / 2 - 0.5
        near = np.exp(-((row - at[0]) ** 2 + (column - at[1]) ** 2) / 8)
        heat[0] = torch.maximum(heat[0], torch.from_numpy(near).float())
        inside = (truth == label)[::2, ::2]
        for axis, place in enumerate((row, column)):
            way = torch.from_numpy((at[axis] - place) / OFFSET_SCALE).float()
            offsets[0, axis][torch.from_numpy(inside)] = way[torch.from_numpy(inside)]
    return Maps(torch.from_numpy(np.where(truth > 0, 4.0, -4.0)).float()[None], heat, offsets)


def test_things_that_touch_are_grouped_by_their_centres() -> None:
    truth = np.zeros((HEIGHT, WIDTH), np.uint16)
    truth[60:120, 40:80] = 1
    truth[60:120, 80:140] = 2
    truth[150:152, 200:204] = 3  # too small
    labels, scores = group(perfect_maps(truth), EVERYWHERE)
    assert len(scores) == 2
    one, two = labels[90, 60], labels[90, 110]
    assert {one, two} == {1, 2}
    for value, wanted in ((one, 1), (two, 2)):
        both = ((labels == value) & (truth == wanted)).sum()
        assert both / ((labels == value) | (truth == wanted)).sum() > 0.95
    nothing, none = group(perfect_maps(truth), EVERYWHERE, GroupingSettings(least_heat=2.0))
    assert not nothing.any()
    assert len(none) == 0


def test_the_network_keeps_its_sizes_and_its_weights_on_disk(tmp_path) -> None:
    network = small_network()
    seen = torch.from_numpy(features(np.zeros((HEIGHT, WIDTH), np.float32), EVERYWHERE))[None]
    with torch.inference_mode():
        maps = network(seen)
    assert maps.foreground.shape == (1, HEIGHT, WIDTH)
    assert maps.heat.shape == (1, HEIGHT // 2, WIDTH // 2)
    assert maps.offsets.shape == (1, 2, HEIGHT // 2, WIDTH // 2)
    weights.save(tmp_path, network, {"seed": 0})
    again, manifest = weights.load(tmp_path)
    assert manifest.trained == {"seed": 0}
    with torch.inference_mode():
        assert torch.equal(again(seen).heat, maps.heat)
    (tmp_path / "weights.safetensors").write_bytes(b"spoilt")
    with pytest.raises(ModelInvalid, match="weights.safetensors"):
        weights.load(tmp_path)


@pytest.mark.parametrize("network", [None, small_network()], ids=["clusters", "network"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda depth, camera: (depth[::2], camera), Reason.WRONG_INTRINSICS),
        (lambda depth, camera: (depth, grasp_views.camera(50.0)), Reason.WRONG_INTRINSICS),
        (lambda depth, camera: (depth * 0.0, camera), Reason.ALL_HOLES),
        (lambda depth, camera: (depth * np.float32(np.nan), camera), Reason.ALL_HOLES),
        (lambda depth, camera: (depth * 1000.0, camera), Reason.ALL_HOLES),
        (lambda depth, camera: (
            np.random.default_rng(0).uniform(0.2, 2.9, depth.shape).astype(np.float32), camera,
        ), Reason.NO_SUPPORT),
    ],
)  # fmt: skip
def test_bad_images_are_refused_by_name(network, change, reason: Reason) -> None:
    depth, camera = change(grasp_views.table(BOXES), grasp_views.camera())
    with pytest.raises(GraspRefused) as refused:
        Segmenter(network).segment(depth, camera)
    assert refused.value.reason == reason


def test_a_region_of_another_size_is_refused() -> None:
    with pytest.raises(GraspRefused, match="region is") as refused:
        Segmenter(None).segment(
            grasp_views.table(BOXES), grasp_views.camera(), np.ones((10, 10), bool)
        )
    assert refused.value.reason == Reason.BAD_MASK
