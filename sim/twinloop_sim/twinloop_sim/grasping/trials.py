# SPDX-License-Identifier: Apache-2.0
"""Lifts of planned grasps, good and middling ones, to calibrate the told quality with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from twinloop.grasping import heights
from twinloop.grasping.gripper import FRANKA_HAND, Gripper
from twinloop.grasping.network import QualityNetwork
from twinloop.grasping.planner import GraspPlanner
from twinloop.grasping.refusals import GraspRefused

from twinloop_sim.grasping import depth_camera, objects, views
from twinloop_sim.grasping.labels import WorldGrasps
from twinloop_sim.grasping.lifts import Lift, lift
from twinloop_sim.grasping.scene import Scene

Array = NDArray[np.float64]
FIRST_SEED = 700_000  # of scenes that no data were generated from
NOISES = ("structured_light", "structured_light_filled", "d435")


def lift_planned(
    network: QualityNetwork,
    split: str,
    scenes: int,
    lifts: int,
    say: Callable[[int], None] = lambda _: None,
) -> tuple[Array, NDArray[np.bool_]]:
    """Return log-odds [N] of planned grasps and whether they held [N].

    Of each heap the best grasp is lifted, and `lifts` - 1 others of all ranks, each from the same
    state and with the errors that an arm has.
    """
    planner = GraspPlanner(network)
    scene = Scene()
    odds: list[float] = []
    held: list[bool] = []
    for index in range(scenes):
        rng = np.random.default_rng([objects.SPLITS.index(split), FIRST_SEED + index])
        views.draw_heap(scene, split, rng)
        camera = depth_camera.draw_camera(rng)
        view = views.look(scene, camera, NOISES[index % len(NOISES)], rng)
        try:
            seen = heights.build(view.depth, camera.camera, view.mask, rng)
            grasps, _ = planner.search(seen, rng)
        except GraspRefused:
            continue
        others = rng.permutation(np.arange(1, len(grasps)))[: lifts - 1]
        chosen = np.concatenate([[0], others]).astype(int)
        odds += planner.judge(seen, grasps[chosen]).tolist()
        world = views.into_world(grasps[chosen], seen, camera)
        before = scene.client.saveState()
        for number in range(len(chosen)):
            found = lift_disturbed(scene, world, number, FRANKA_HAND, rng)
            held.append(bool(found.bodies))
            scene.client.restoreState(before)
        scene.client.removeState(before)
        say(index + 1)
    scene.close()
    scene.files.close()
    return np.array(odds), np.array(held)


def lift_disturbed(
    scene: Scene, grasps: WorldGrasps, number: int, gripper: Gripper, rng: np.random.Generator
) -> Lift:
    """Lift one of some grasps with the errors of an arm, those that labels assume."""
    one = grasps.some(np.array([number])).disturbed(rng)
    return lift(scene, one.position[0], one.rotation[0], float(one.width[0]), gripper)
