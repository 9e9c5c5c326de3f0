# SPDX-License-Identifier: Apache-2.0
"""Draws the cell with PyBullet's software renderer: needs no OpenGL at all."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinloop_sim.cameras import patterns
from twinloop_sim.cameras.appearance import Appearance
from twinloop_sim.cameras.bullet_stage import BulletStage, projection
from twinloop_sim.cameras.eyes import BACKGROUND, BALL0, FAR_M, HAND, NEAR_M, Eyes, Image
from twinloop_sim.cameras.stage import Array
from twinloop_sim.settings import DEPTH, STEREO, SceneSettings

_Seen = tuple[NDArray[np.float32], NDArray[np.float32], Array]
_HIGHLIGHT = 0.4  # where the gloss is 1


class BulletEyes(Eyes):
    """See `Eyes`.

    Args:
        scene: what to draw.
        shadows: False draws faster.
        arm: whether the cell has an arm.
    """

    def __init__(self, scene: SceneSettings, shadows: bool = True, arm: bool = False) -> None:
        super().__init__(scene, arm)
        self.backend = "pybullet"
        self._stage = BulletStage(scene, self.shapes)
        self._shadows = shadows
        self._floors: dict[str, _Seen] = {}
        self._posed = (
            np.zeros(self.shapes.joints),
            np.zeros((2, 3)),
            np.tile([1.0, 0.0, 0.0, 0.0], (2, 1)),
        )
        self.dress(self.appearance)

    def pose(self, q: ArrayLike, ball_position: ArrayLike, ball_quaternion: ArrayLike) -> None:
        self._posed = self.checked(q, ball_position, ball_quaternion)
        self._stage.pose(*self._posed)

    def dress(self, appearance: Appearance) -> None:
        self.appearance = appearance
        self._stage.dress(appearance)
        light = appearance.light
        lit = light.ambient + light.strength * light.direction()[2]
        floor = appearance.floor.paint(self.floor_half_m * patterns.plane_points())
        self._floor = np.minimum(lit * np.array(light.color) * floor, 255.0).astype(np.uint8)
        self._stage.pose(*self._posed)

    def image(self, camera: str) -> Image:
        return self._draw(camera)[0]

    def pair(self) -> tuple[Image, Image]:
        left, right = (self._draw(camera)[0] for camera in STEREO)
        return left, right

    def depth(self, camera: str = DEPTH) -> NDArray[np.float32]:
        _, buffer, bodies = self._draw(camera)
        away = NEAR_M * FAR_M / (FAR_M - buffer.astype(np.float64) * (FAR_M - NEAR_M))
        return np.where(bodies >= 0, away, self._floor_seen(camera)[2]).astype(np.float32)

    def labels(self, camera: str) -> Image:
        bodies = self._draw(camera)[2]
        known = self._stage.bodies
        meaning = np.zeros(max(bodies.max(), *known) + 2, dtype=np.uint8)
        robot = np.where(self.shapes.is_hand, HAND, BACKGROUND)
        meaning[known] = [*robot, BALL0, BALL0 + 1]
        return np.asarray(meaning[bodies])  # -1, where nothing is, reads the last one: 0

    def close(self) -> None:
        self._stage.close()

    def shift(self, rig_error: ArrayLike) -> None:
        super().shift(rig_error)
        self._floors.clear()

    def _draw(self, camera: str) -> tuple[Image, NDArray[np.float32], NDArray[np.int64]]:
        """Return colours [H, W, 3], the depth buffer [H, W] and bodies [H, W], -1 for the floor."""
        pose, looks = self.camera_pose(camera), self.appearance
        model = self.cameras[camera]
        image, near, bodies = self._stage.shoot(
            pose,
            projection(model.size, (model.k[0, 0], model.k[1, 1]), NEAR_M, FAR_M),
            model.size,
            looks.light,
            _HIGHLIGHT * sum(ball.gloss for ball in looks.balls) / 2.0,
            self._shadows,
        )
        columns, rows, _ = self._floor_seen(camera)
        floor = cv2.remap(self._floor, columns, rows, cv2.INTER_LINEAR)
        return np.where((bodies < 0)[..., None], floor, image), near, bodies

    def _floor_seen(self, camera: str) -> _Seen:
        """Return the floor's texels (column, row) that pixels see, and how far off, m: [H, W] each.

        The floor fills most of the image. Drawn as a body it takes three times as long as all
        else, so its texture is looked up here; shadows do not fall on it.
        """
        if camera not in self._floors:
            pose, model = self.camera_pose(camera), self.cameras[camera]
            rows, columns = np.indices(model.size[::-1])
            rays = model.rays(np.stack([columns, rows], axis=-1)) @ pose[:3, :3].T
            fall_m = self.shapes.floor_m - pose[2, 3]
            with np.errstate(divide="ignore"):
                away = np.where(rays[..., 2] < 0.0, fall_m / rays[..., 2], np.nan)
            place = pose[:2, 3] + away[..., None] * rays[..., :2]
            texel = (place / (2.0 * self.floor_half_m) + 0.5) * len(self._floor) - 0.5
            away[np.abs(place).max(axis=-1) > self.floor_half_m] = np.nan
            column, row = np.moveaxis(np.where(np.isfinite(texel), texel, -10.0), -1, 0)
            self._floors[camera] = column.astype(np.float32), row.astype(np.float32), away
        return self._floors[camera]
