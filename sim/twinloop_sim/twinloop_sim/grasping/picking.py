# SPDX-License-Identifier: Apache-2.0
"""The pick loop with a gripper that flies freely: look, plan, grasp, lift, take away, look again.

It sees depth images alone. The state of the twin says afterwards what was lifted.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from twinloop.grasping import baselines, heights
from twinloop.grasping.gripper import FRANKA_HAND
from twinloop.grasping.heights import HeightMap
from twinloop.grasping.planner import GraspPlanner
from twinloop.grasping.refusals import GraspRefused
from twinloop.perception.camera_model import CameraModel

from twinloop_sim.grasping import depth_camera, objects, views
from twinloop_sim.grasping.lifts import End
from twinloop_sim.grasping.scene import Scene, heap_count
from twinloop_sim.grasping.trials import lift_disturbed

Array = NDArray[np.float64]
# Returns a grasp [5] and its quality; NaN where none is told. Raises GraspRefused.
Picker = Callable[[HeightMap, np.random.Generator, list[Array]], tuple[Array, float]]

FIRST_SEED = 900_000
AVOID_M = 0.015
_IN_A_ROW = 4  # failures or refusals after which a bin is given up
_MOVE_S = 4.0  # to the bin, to the other bin and to where it looks from


class Kind(enum.StrEnum):
    """What lies in the bin."""

    single = "single"
    heap = "heap"
    adversarial = "adversarial"


@dataclass(frozen=True)
class Attempt:
    """One try.

    Attributes:
        end: how it ended; a refusal's reason where nothing was planned.
        quality: as told.
        plan_s: of the wall clock, from the image to the grasp.
        seconds: simulated, moves included as 4 s.
        depth, camera: the image, and what saw it.
        pose: of the grasp in the camera's frame: position, closing direction and width.
    """

    end: str
    quality: float
    plan_s: float
    seconds: float
    depth: NDArray[np.float32]
    camera: CameraModel
    pose: tuple[Array, Array, float] | None


@dataclass(frozen=True)
class Cleared:
    """One bin.

    Attributes:
        attempts: in their order.
        objects: how many lay in it.
        left: how many of them were not lifted out, those included that fell beside the bin.
    """

    attempts: list[Attempt]
    objects: int
    left: int


def learned(planner: GraspPlanner) -> Picker:
    """Return the planner as what picks."""

    def pick(seen: HeightMap, rng: np.random.Generator, avoid: list[Array]) -> tuple[Array, float]:
        grasps, quality = planner.search(seen, rng, avoid, AVOID_M)
        return grasps[0], float(quality[0])

    return pick


def top_down(seen: HeightMap, rng: np.random.Generator, avoid: list[Array]) -> tuple[Array, float]:
    """Pick by the heuristic."""
    return baselines.top_down(seen, FRANKA_HAND, avoid, AVOID_M), np.nan


def antipodal(seen: HeightMap, rng: np.random.Generator, avoid: list[Array]) -> tuple[Array, float]:
    """Pick by the sampler alone."""
    return baselines.first_antipodal(seen, FRANKA_HAND, rng, avoid, AVOID_M), np.nan


def clear_bin(scene: Scene, pick: Picker, kind: Kind, noise: str, index: int) -> Cleared:
    """Fill a bin with test objects and clear it; equal arguments give equal bins.

    Single and adversarial objects lie in the bin alone. A place that failed is avoided until
    something was lifted, or nothing else is left.

    Args:
        noise: a key of `depth_noise.NOISES`.
        index: of the bin, the seed of what lies in it and of the camera.
    """
    split = "adversarial" if kind is Kind.adversarial else "test"
    rng = np.random.default_rng([objects.SPLITS.index(split), FIRST_SEED + index])
    count = heap_count(rng) if kind is Kind.heap else 1
    scene.items.clear()
    views.fill(scene, split, count, True, rng)
    camera = depth_camera.draw_camera(rng)
    there = len(scene.items)
    attempts: list[Attempt] = []
    avoid: list[Array] = []
    in_a_row = lost = 0
    while scene.items and in_a_row < _IN_A_ROW:
        attempt = _try(scene, pick, camera, noise, rng, avoid)
        attempts.append(attempt)
        if attempt.end == End.HELD:
            avoid, in_a_row = [], 0
        else:
            in_a_row += 1
            avoid = [] if attempt.pose is None else [*avoid, attempt.pose[0]]
        for body in [b for b in scene.items if not scene.is_inside(b)]:
            scene.remove(body)  # thrown out of the bin: not cleared, and out of reach
            lost += 1
    return Cleared(attempts, there, len(scene.items) + lost)


def _try(
    scene: Scene,
    pick: Picker,
    camera: depth_camera.DepthCamera,
    noise: str,
    rng: np.random.Generator,
    avoid: list[Array],
) -> Attempt:
    view = views.look(scene, camera, noise, rng)
    began_s = time.perf_counter()
    try:
        seen = heights.build(view.depth, camera.camera, view.mask, rng)
        grasp, quality = pick(seen, rng, avoid)
    except GraspRefused as error:
        took_s = time.perf_counter() - began_s
        return Attempt(
            str(error.reason), np.nan, took_s, _MOVE_S / 2, view.depth, camera.camera, None
        )
    took_s = time.perf_counter() - began_s
    world = views.into_world(grasp[None], seen, camera)
    outcome = lift_disturbed(scene, world, 0, FRANKA_HAND, rng)
    for body in outcome.bodies:
        scene.remove(body)
    scene.run(0.5)
    pose = (
        camera.into_camera(world.position[0]),
        camera.rotation.T @ world.rotation[0, :, 1],
        float(world.width[0]),
    )
    return Attempt(
        str(outcome.end),
        quality,
        took_s,
        outcome.seconds + _MOVE_S,
        view.depth,
        camera.camera,
        pose,
    )
