# SPDX-License-Identifier: Apache-2.0
"""Training data of heap segmentation: what cameras see of heaps, and the thing each pixel shows.

As for grasps, a part follows from its split and number alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from twinloop.grasping.refusals import GraspRefused
from twinloop.grasping.segmentation.image import HEIGHT, WIDTH, Canvas, canvas, stored

from twinloop_sim.grasping import depth_camera, objects, views
from twinloop_sim.grasping.scene import Scene

SCENES_IN_PART = 10
FIRST_SEED = 2_000_000  # of scenes that no grasps were learned or measured on
NOISES = {"structured_light": 0.35, "structured_light_filled": 0.15, "d435": 0.5}
_VIEWS = 4
_HD_SHARE = 0.15

Part = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class SeenHeap:
    """A view of a heap, and the truth about it.

    Attributes:
        view: what the camera gives.
        labels: the thing that each pixel truly shows [H, W], 1 to N; 0 for everything else.
    """

    view: views.View
    labels: NDArray[np.uint8]


def see(scene: Scene, model: str, noise: str, rng: np.random.Generator) -> SeenHeap:
    """Look at a scene by a camera that is drawn anew."""
    camera = depth_camera.draw_camera(rng, model)
    view = views.look(scene, camera, noise, rng)
    return SeenHeap(view, numbered(view.bodies, scene))


def numbered(bodies: NDArray[np.int32], scene: Scene) -> NDArray[np.uint8]:
    """Return 1 to N for pixels of the scene's things in their order, 0 for others [H, W]."""
    found = np.zeros(bodies.shape, np.uint8)
    for number, body in enumerate(sorted(scene.items), 1):
        found[bodies == body] = number
    return found


def make_part(split: str, number: int) -> Part:
    """Return one part: heights [N, 240, 320] in 0.1 mm, labels [N, 240, 320], noise, scene [N]."""
    scene = Scene()
    shown: list[Canvas] = []
    labels: list[NDArray[np.generic]] = []
    noises: list[int] = []
    scenes: list[int] = []
    for index in range(SCENES_IN_PART):
        key = number * SCENES_IN_PART + index
        rng = np.random.default_rng([objects.SPLITS.index(split), FIRST_SEED + key])
        views.draw_heap(scene, split, rng)
        for _ in range(_VIEWS):
            noise = int(rng.choice(len(NOISES), p=list(NOISES.values())))
            model = "hd" if rng.random() < _HD_SHARE else "vga"
            heap = see(scene, model, list(NOISES)[noise], rng)
            try:
                found = canvas(heap.view.depth, heap.view.camera.camera, rng)
            except GraspRefused:
                continue
            shown.append(found)
            labels.append(found.reduced(heap.labels))
            noises.append(noise)
            scenes.append(key)
    scene.close()
    scene.files.close()
    size = (len(shown), HEIGHT, WIDTH)
    return {
        "heights": np.array([stored(one) for one in shown], np.int16).reshape(size),
        "labels": np.array(labels, np.uint8).reshape(size),
        "noise": np.array(noises, np.int8),
        "scene": np.array(scenes, np.int32),
    }
