# SPDX-License-Identifier: Apache-2.0
"""Plans grasps on a depth image: candidates, the network's judgement, refinement, ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.grasping import candidates, crops, surface
from twinloop.grasping.gripper import (
    ANGLE,
    FRANKA_HAND,
    TIP,
    WIDTH,
    Array,
    Grasp,
    Gripper,
    X,
    Y,
    axes,
)
from twinloop.grasping.heights import HeightMap, Mask, build
from twinloop.grasping.network import QualityNetwork
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.perception.camera_model import CameraModel

Judge = Callable[[HeightMap, Array], Array]
_DRAWS, _ENOUGH = 4, 0.1
# Standard deviations of refinement: x, y [m], angle [rad], tip [m], opening [m].
_SPREAD = np.array([0.004, 0.004, 0.12, 0.005, 0.005])


@dataclass(frozen=True)
class PlannerSettings:
    """Numbers of the search.

    Attributes:
        first: grasps judged at first.
        rounds: of refinement, with as many as `again` each; without any, grasps stay where edges
            oppose each other; the arm's picks in heaps were better so (docs/grasping.md).
        elites: share of a round that the next one varies.
        apart_m: least distance of two grasps that are told.
        told: at most so many grasps.
    """

    first: int = 240
    rounds: int = 0
    again: int = 120
    elites: float = 0.2
    apart_m: float = 0.008
    told: int = 20


class GraspPlanner:
    """Plans grasps from depth images with a quality network.

    Args:
        network: judges grasps; None for the order in which they were drawn.
        calibration: slope and intercept of the logistic map from the network's log-odds to the
            probability that a grasp holds (Platt 1999).
    """

    def __init__(
        self,
        network: QualityNetwork | None,
        calibration: tuple[float, float] = (1.0, 0.0),
        gripper: Gripper = FRANKA_HAND,
        settings: PlannerSettings | None = None,
    ) -> None:
        self.network = network
        self.calibration = calibration
        self.gripper = gripper
        self.settings = settings or PlannerSettings()

    def plan(
        self,
        depth: NDArray[np.floating],
        camera: CameraModel,
        mask: Mask | None = None,
        seed: int = 0,
        avoid: Sequence[Array] = (),
        avoid_m: float = 0.02,
    ) -> list[Grasp]:
        """Return grasps, the best first, in the camera's optical frame.

        Args:
            depth: [H, W], m; what is not finite, or outside 0.15 to 3 m, is a hole.
            camera: whose image it is.
            mask: [H, W], pixels of things that may be grasped; everything without.
            seed: equal seeds give equal grasps.
            avoid: places [3] in the optical frame that are no more tried, m.
            avoid_m: how far from those grasps have to be, m.

        Raises:
            GraspRefused: with the reason; never an empty list.
        """
        rng = np.random.default_rng(seed)
        scene = build(depth, camera, mask, rng)
        grasps, quality = self.search(scene, rng, avoid, avoid_m)
        return self._told(scene, grasps, quality)

    def search(
        self,
        scene: HeightMap,
        rng: np.random.Generator,
        avoid: Sequence[Array] = (),
        avoid_m: float = 0.02,
    ) -> tuple[Array, Array]:
        """Return grasps [N, 5] in the map's frame and their qualities [N], the best first.

        The cross-entropy method (Rubinstein 1999) as in Dex-Net 2.0: each round draws about the
        best of all that were judged.

        Raises:
            GraspRefused: nothing can be grasped.
        """
        settings = self.settings
        grasps = np.zeros((0, 5))
        for _ in range(_DRAWS):
            drawn = candidates.sample(scene, self.gripper, 3 * settings.first, rng)
            if not len(drawn):
                raise GraspRefused(
                    Reason.NO_GRASP, "no two edges oppose each other within the gripper's opening"
                )
            possible = self._possible(scene, drawn, avoid, avoid_m)
            grasps = np.concatenate([grasps, possible])[: settings.first]
            # Where things are crowded few candidates are free; each draw takes its time.
            if len(grasps) >= _ENOUGH * settings.first:
                break
        if not len(grasps):
            raise GraspRefused(
                Reason.NO_GRASP,
                f"each of {_DRAWS * len(drawn)} candidates collides with the surface or is to be "
                "avoided",
            )
        odds = self.judge(scene, grasps)
        for _ in range(settings.rounds if self.network is not None else 0):
            elites = grasps[np.argsort(-odds)[: max(int(settings.elites * settings.first), 1)]]
            chosen = elites[rng.integers(len(elites), size=2 * settings.again)]
            varied = self._possible(scene, jiggled(chosen, self.gripper, rng), avoid, avoid_m)[
                : settings.again
            ]
            if len(varied):
                grasps = np.concatenate([grasps, varied])
                odds = np.concatenate([odds, self.judge(scene, varied)])
        order = np.argsort(-odds, kind="stable")
        return grasps[order], self._calibrated(odds[order])

    def rate(self, scene: HeightMap, grasps: Array) -> Array:
        """Return the quality of any grasps [N]; 0 where one collides or closes on nothing."""
        quality = self._calibrated(self.judge(scene, grasps))
        deep = surface.penetration(scene, grasps, self.gripper)
        found = surface.between(scene, grasps, self.gripper)
        return np.where(found.is_there & (deep < surface.TOLERANCE_M), quality, 0.0)

    def _calibrated(self, odds: Array) -> Array:
        slope, intercept = self.calibration
        return 1.0 / (1.0 + np.exp(-np.clip(slope * odds + intercept, -30.0, 30.0)))

    def judge(self, scene: HeightMap, grasps: Array) -> Array:
        """Return the network's log-odds of grasps [N]; zeros without a network."""
        if self.network is None:
            return np.zeros(len(grasps))
        with torch.inference_mode():
            odds = self.network(
                torch.from_numpy(crops.cut(scene, grasps)),
                torch.from_numpy(crops.numbers(grasps)),
            )
        return odds.double().numpy()

    def _possible(
        self, scene: HeightMap, grasps: Array, avoid: Sequence[Array], avoid_m: float
    ) -> Array:
        """Return the grasps that are free, close on something and are not to be avoided."""
        grasps = grasps[surface.penetration(scene, grasps, self.gripper) < surface.TOLERANCE_M]
        found = surface.between(scene, grasps, self.gripper)
        middle = scene.at(grasps[:, X], grasps[:, Y])
        is_target = scene.is_target[scene.cells(grasps[:, X], grasps[:, Y])]
        is_target |= middle <= grasps[:, TIP]  # between the arms of something hollow
        grasps = grasps[found.is_there & is_target]
        for place in avoid:
            tips = scene.into_camera(grasps[:, [X, Y, TIP]])
            grasps = grasps[np.linalg.norm(tips - place, axis=1) > avoid_m]
        return grasps

    def _told(self, scene: HeightMap, grasps: Array, quality: Array) -> list[Grasp]:
        """Return the best grasps that are apart from each other, as poses."""
        kept: list[int] = []
        for index in range(len(grasps)):
            way = grasps[kept][:, [X, Y]] - grasps[index, [X, Y]]
            turn = np.abs(np.sin(grasps[kept][:, ANGLE] - grasps[index, ANGLE]))
            if not np.any((np.hypot(way[:, 0], way[:, 1]) < self.settings.apart_m) & (turn < 0.4)):
                kept.append(index)
            if len(kept) == self.settings.told:
                break
        return poses(scene, grasps[kept], quality[kept], self.gripper)


def jiggled(grasps: Array, gripper: Gripper, rng: np.random.Generator) -> Array:
    """Return grasps [N, 5] that are varied as refinement does, within what the gripper can."""
    varied = grasps + rng.normal(size=grasps.shape) * _SPREAD
    varied[:, TIP] = np.maximum(varied[:, TIP], candidates.LOWEST_TIP_M)
    varied[:, WIDTH] = np.clip(varied[:, WIDTH], 0.01, gripper.opening_m)
    varied[:, ANGLE] = np.mod(varied[:, ANGLE], np.pi)
    return varied


def rows(scene: HeightMap, grasps: Sequence[Grasp]) -> Array:
    """Return poses as grasps of a map [N, 5]; what they are tilted against it is left out."""
    found = []
    for grasp in grasps:
        tips = (grasp.position - scene.translation) @ scene.rotation
        closing = grasp.rotation[:, 1] @ scene.rotation
        angle = np.mod(np.arctan2(closing[1], closing[0]), np.pi)
        found.append([tips[0], tips[1], angle, tips[2], grasp.width_m])
    return np.array(found).reshape(-1, 5)


def poses(scene: HeightMap, grasps: Array, quality: Array, gripper: Gripper) -> list[Grasp]:
    """Return grasps [N, 5] of a map as poses in the camera's optical frame."""
    found = surface.between(scene, grasps, gripper)
    closing, across = axes(grasps)
    told = []
    for index, grasp in enumerate(grasps):
        along = np.array([*closing[index], 0.0])
        approach = np.array([0.0, 0.0, -1.0])
        frame = np.stack([np.cross(along, approach), along, approach], axis=1)
        tips = grasp[[X, Y, TIP]]
        # Pads touch in the middle of what they cover, below the rim that the camera sees.
        cover = np.clip(found.top[index] - grasp[TIP], 0.0, gripper.pad_height_m)
        touch = np.tile(tips, (2, 1))
        touch[:, :2] += found.touch[index] @ np.stack([closing[index], across[index]])
        touch[:, 2] += cover / 2
        told.append(
            Grasp(
                rotation=scene.rotation @ frame,
                position=scene.into_camera(tips),
                width_m=float(grasp[WIDTH]),
                depth_m=float(found.top[index] - grasp[TIP]),
                quality=float(quality[index]),
                contacts=scene.into_camera(touch),
            )
        )
    return told
