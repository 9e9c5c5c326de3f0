# SPDX-License-Identifier: Apache-2.0
"""Heap segmentation on held-out heaps, beside two methods of libraries on the same images.

Euclidean clustering is scikit-learn's DBSCAN (Ester et al. 1996) on the points above the plane, and
region growing scikit-image's watershed (seeded region growing, Adams & Bischof 1994) over the slope
of the heights, from seeds where it is flat. Both get the same canvas, plane, bin region and least
size as ours, and the best of a few settings on heaps of validation objects; a cluster's score is
its number of cells. What is compared are cells that were seen, inside the bin where there is one.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from twinloop.grasping.heights import LEAST_HEIGHT_M
from twinloop.grasping.refusals import GraspRefused
from twinloop.grasping.segmentation import Segmenter
from twinloop.grasping.segmentation.accuracy import Accuracy
from twinloop.grasping.segmentation.clusters import LEAST_CELLS, largest_first
from twinloop.grasping.segmentation.drawing import coloured
from twinloop.grasping.segmentation.image import Canvas, Mask, canvas
from twinloop_sim.grasping import objects, segments, views
from twinloop_sim.grasping.scene import Scene

CAMERAS = {  # model and noise
    "structured_light": ("vga", "structured_light"),
    "structured_light_filled": ("vga", "structured_light_filled"),
    "d435": ("vga", "d435"),
    "d435_hd": ("hd", "d435"),
}
PROMISED_MS = 250.0
_FIRST_SEED = 900_000
_RADII_M = (0.004, 0.006, 0.009)
_SLOPES_M = (0.0015, 0.003, 0.005)
_PICTURES = 4

Found = tuple[NDArray[np.uint16], NDArray[np.float64]]
Method = Callable[[Canvas, Mask], Found]


@dataclass(frozen=True)
class Case:
    """A canvas of a heap with its truth [240, 320], and where things are looked for."""

    seen: Canvas
    truth: NDArray[np.generic]
    allowed: Mask
    heap: segments.SeenHeap


def cases(split: str, camera: str, count: int, refused: list[str]) -> Iterator[Case]:
    """Yield heaps of a split as a camera sees them; equal numbers are equal heaps.

    Why an image cannot be segmented at all is added to `refused`.
    """
    scene = Scene()
    model, noise = CAMERAS[camera]
    for index in range(count):
        rng = np.random.default_rng([objects.SPLITS.index(split), _FIRST_SEED + index])
        views.draw_heap(scene, split, rng)
        heap = segments.see(scene, model, noise, rng)
        try:
            found = canvas(heap.view.depth, heap.view.camera.camera)
        except GraspRefused as error:
            refused.append(f"heap {index}: {error}")
            continue
        region = heap.view.mask
        if region is None:
            region = np.ones(heap.labels.shape, bool)
        yield Case(found, found.reduced(heap.labels), found.reduced(region).astype(bool), heap)
    scene.close()
    scene.files.close()


def euclidean(found: Canvas, allowed: Mask, radius_m: float) -> Found:
    """Cluster points above the plane by their distances, m."""
    rises = allowed & found.is_seen & (found.heights > LEAST_HEIGHT_M)
    if not rises.any():
        return np.zeros(rises.shape, np.uint16), np.zeros(0)
    parts = np.zeros(rises.shape, np.int64)
    dbscan = importlib.import_module("sklearn.cluster").DBSCAN
    parts[rises] = dbscan(eps=radius_m, min_samples=4).fit_predict(found.points[rises]) + 1
    return largest_first(parts)


def region_growing(found: Canvas, allowed: Mask, slope_m: float) -> Found:
    """Grow regions over the slope of the heights, from seeds that rise and are flat."""
    above = cv2.medianBlur(np.where(found.is_seen, found.heights, 0.0).astype(np.float32), 5)
    rises = allowed & found.is_seen & (above > LEAST_HEIGHT_M)
    slope = np.hypot(
        cv2.Sobel(above, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(above, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    flat = (rises & (slope < slope_m)).astype(np.uint8)
    _, seeds, stats, _ = cv2.connectedComponentsWithStats(flat, connectivity=4)
    seeds[stats[seeds, cv2.CC_STAT_AREA] < LEAST_CELLS // 2] = 0
    watershed = importlib.import_module("skimage.segmentation").watershed
    return largest_first(watershed(slope, seeds, mask=rises))


def tuned(count: int) -> dict[str, float]:
    """Return each library method's best setting on heaps of validation objects."""
    known = [case for camera in CAMERAS for case in cases("val", camera, count, [])]
    best = {}
    for name, method, settings in (
        ("euclidean_clustering", euclidean, _RADII_M),
        ("region_growing", region_growing, _SLOPES_M),
    ):
        found = {one: Accuracy() for one in settings}
        for case in known:
            for one, accuracy in found.items():
                _add(accuracy, case, partial(method, **_setting(method, one)))
        best[name] = max(settings, key=lambda one: found[one].figures()["ap"])
    return best


def _setting(method: Callable[..., Found], value: float) -> dict[str, float]:
    return {"radius_m" if method is euclidean else "slope_m": value}


def _add(accuracy: Accuracy, case: Case, method: Method) -> float:
    """Try a method on a case; returns what it took on the core, ms."""
    began = time.process_time()
    labels, scores = method(case.seen, case.allowed)
    took = 1e3 * (time.process_time() - began)
    accuracy.add(case.truth, labels, scores, case.seen.is_seen & case.allowed)
    return took


def measure(
    segmenter: Segmenter, camera: str, count: int, best: dict[str, float], folder: Path
) -> list[dict[str, Any]]:
    """Return a row of figures for each method on heaps of test objects, seen by one camera."""
    methods: dict[str, Method] = {
        "ours": segmenter.cells,
        "ours, no network": Segmenter(None).cells,
        "euclidean clustering": partial(euclidean, radius_m=best["euclidean_clustering"]),
        "region growing": partial(region_growing, slope_m=best["region_growing"]),
    }
    found = {name: Accuracy() for name in methods}
    took: dict[str, list[float]] = {name: [] for name in methods}
    whole = []
    refused: list[str] = []
    for number, case in enumerate(cases("test", camera, count, refused)):
        for name, method in methods.items():
            took[name].append(_add(found[name], case, method))
        view = case.heap.view
        began = time.perf_counter(), time.process_time()
        told = segmenter.segment(view.depth, view.camera.camera, view.mask)
        whole.append(
            [1e3 * (time.perf_counter() - began[0]), 1e3 * (time.process_time() - began[1])]
        )
        if number < _PICTURES:
            picture = coloured(view.depth, told.labels)
            cv2.imwrite(str(folder / f"segments-{camera}-{number}.png"), picture[..., ::-1])
    rows = [
        {"camera": camera, "method": name, "core_ms": float(np.median(took[name]))}
        | accuracy.figures()
        for name, accuracy in found.items()
    ]
    wall, core = np.percentile(np.array(whole), [50, 99], axis=0).T.tolist()
    rows[0] |= {"image_ms_p50": wall[0], "image_ms_p99": wall[1], "image_core_ms_p50": core[0]}
    rows[0] |= {"heaps": count, "refused": refused}
    return rows
