# SPDX-License-Identifier: Apache-2.0
"""Training data of the quality network: heaps, what cameras see of them, grasps and their worth.

A part of the data follows from its split and number alone, whatever process makes it, so that
generation can be spread, interrupted and carried on with.
"""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from twinloop.fleet import FleetError
from twinloop.grasping import candidates, crops, heights, surface
from twinloop.grasping.gripper import FRANKA_HAND, Array
from twinloop.grasping.planner import jiggled
from twinloop.grasping.refusals import GraspRefused

from twinloop_sim.grasping import depth_camera, labels, objects, views
from twinloop_sim.grasping.scene import Scene

SCENES_IN_PART = 20
_VIEWS, _GRASPS, _CANDIDATES = 2, 120, 700
_NOISES = {"structured_light": 0.25, "structured_light_filled": 0.25, "d435": 0.4, "ideal": 0.1}
_HD_SHARE = 0.1
_KEPT_COLLIDING = 0.1  # of what the planner itself would not try
_CLOSE_M = 0.006

Part = dict[str, NDArray[np.generic]]
MakePart = Callable[[str, int], Part]


def generate(
    out: Path,
    scenes: int,
    split: str,
    workers: int = 1,
    ray: str | None = None,
    say: Callable[[int], None] = lambda _: None,
    make: MakePart | None = None,
    scenes_in_part: int = SCENES_IN_PART,
) -> int:
    """Write parts of data to a folder; parts that are there already are kept.

    Args:
        scenes: how many, rounded up to whole parts.
        split: of the objects, see `objects.names`.
        workers: processes on this machine.
        ray: address of a Ray cluster to use instead.
        say: is told how many scenes are done.
        make: makes a part of a split by its number; grasps without.
        scenes_in_part: how many it makes.

    Returns:
        How many parts lie in the folder.

    Raises:
        ValueError: an unknown split.
        FleetError: Ray is not installed.
    """
    objects.names(split)
    out.mkdir(parents=True, exist_ok=True)
    numbers = range(-(-scenes // scenes_in_part))
    paths = {number: out / f"{split}-{number:05d}.npz" for number in numbers}
    missing = [number for number in numbers if not paths[number].exists()]
    done = len(numbers) - len(missing)
    for number, part in _spread(make or make_part, split, missing, workers, ray):
        path = paths[number]
        unfinished = path.with_suffix(".tmp.npz")
        np.savez_compressed(unfinished, **part)  # type: ignore[arg-type]
        unfinished.rename(path)
        done += 1
        say(done * scenes_in_part)
    return done


def _spread(
    make: MakePart, split: str, numbers: list[int], workers: int, ray: str | None
) -> Iterator[tuple[int, Part]]:
    if ray is not None:
        yield from _on_ray(make, split, numbers, ray)
    elif workers == 1:
        for number in numbers:
            yield number, make(split, number)
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            futures = {pool.submit(make, split, number): number for number in numbers}
            for future in as_completed(futures):
                yield futures[future], future.result()


def _on_ray(
    make: MakePart, split: str, numbers: list[int], address: str
) -> Iterator[tuple[int, Part]]:
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise FleetError(
            "--ray needs the package ray, which is not installed; "
            ".venv/bin/pip install 'ray>=2.40' adds it"
        ) from error
    ray.init(address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=3)(make)
        waiting = {task.remote(split, number): number for number in numbers}
        while waiting:
            (ready,), _ = ray.wait(list(waiting))
            yield waiting.pop(ready), ray.get(ready)
    finally:
        ray.shutdown()


def make_part(split: str, number: int) -> Part:
    """Return one part: crops [N, 32, 48], numbers [N, 2], labels [N], noise [N], scene [N]."""
    scene = Scene()
    found: list[Part] = []
    for index in range(SCENES_IN_PART):
        key = number * SCENES_IN_PART + index
        rng = np.random.default_rng([objects.SPLITS.index(split), key])
        views.draw_heap(scene, split, rng)
        for _ in range(_VIEWS):
            some = _labelled(scene, rng)
            if some is not None:
                some["scene"] = np.full(len(some["labels"]), key, np.int32)
                found.append(some)
    scene.close()
    scene.files.close()
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _labelled(scene: Scene, rng: np.random.Generator) -> Part | None:
    model = "hd" if rng.random() < _HD_SHARE else "vga"
    camera = depth_camera.draw_camera(rng, model)
    noise = int(rng.choice(len(_NOISES), p=list(_NOISES.values())))
    view = views.look(scene, camera, list(_NOISES)[noise], rng)
    try:
        seen = heights.build(view.depth, camera.camera, view.mask, rng)
    except GraspRefused:
        return None
    grasps = candidates.sample(seen, FRANKA_HAND, _CANDIDATES, rng)
    if not len(grasps):
        return None
    grasps = _tried(seen, grasps, rng)
    world = views.into_world(grasps, seen, camera)
    quality = labels.robust_quality(scene, world, FRANKA_HAND, rng)
    return {
        "crops": crops.cut(seen, grasps),
        "numbers": crops.numbers(grasps),
        "labels": quality.astype(np.float32),
        "noise": np.full(len(grasps), noise, np.int8),
    }


def _tried(seen: heights.HeightMap, grasps: Array, rng: np.random.Generator) -> Array:
    """Return grasps as a planner would try them: half as sampled, half as refinement moves them,
    and few that collide with what is seen."""
    moved = rng.random(len(grasps)) < 0.5
    grasps[moved] = jiggled(grasps[moved], FRANKA_HAND, rng)
    collides = surface.penetration(seen, grasps, FRANKA_HAND) > _CLOSE_M
    weight = (
        np.where(collides, _KEPT_COLLIDING, 1.0)
        * surface.between(seen, grasps, FRANKA_HAND).is_there
    )
    kept = np.flatnonzero(weight > rng.random(len(grasps)))
    if not len(kept):
        kept = np.arange(len(grasps))
    return grasps[rng.permutation(kept)[:_GRASPS]]
