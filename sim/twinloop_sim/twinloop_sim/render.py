# SPDX-License-Identifier: Apache-2.0
"""Draws the state of either engine in software, with PyBullet: no display, no GPU, no EGL."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from twinloop.robots.hand24 import HAND24

from twinloop_sim.cameras.appearance import Appearance, Light
from twinloop_sim.cameras.bullet_stage import BulletStage, projection
from twinloop_sim.cameras.stage import Array, Shapes, camera_poses
from twinloop_sim.settings import Camera, SceneSettings
from twinloop_sim.twin import State

_NEAR_M, _FAR_M = 0.02, 5.0
_FINENESS = 2  # pictures are larger than what trackers see
_LIGHT = Light(azimuth_deg=59.0, elevation_deg=73.7, strength=0.45, ambient=0.45)
_HIGHLIGHT = 0.6
_BACKDROP = np.array([[226.0, 232.0, 238.0], [178.0, 190.0, 202.0]])  # RGB, top and bottom


class Renderer:
    """Holds a copy of the scene that is posed and drawn on request."""

    def __init__(self, scene: SceneSettings) -> None:
        self.scene = scene
        self._stage = BulletStage(scene, Shapes(scene.side), _FINENESS)
        self._stage.dress(Appearance())

    def draw(self, state: State, camera: str = "overview") -> NDArray[np.uint8]:
        """Draw one state.

        Args:
            state: a single scene, without leading dimensions.
            camera: a name from config/twin/scene.yaml.

        Returns:
            RGB image [H, W, 3].

        Raises:
            ValueError: no such camera, or a state of many scenes.
        """
        if camera not in self.scene.cameras:
            known = sorted(self.scene.cameras)
            raise ValueError(f"no camera {camera!r} in the scene, it has {known}")
        if state.q.shape != HAND24.lower.shape:
            raise ValueError(f"one scene can be drawn at a time, got joints {state.q.shape}")
        self._stage.pose(state.q, state.ball_position, state.ball_quaternion)
        settings = self.scene.cameras[camera]
        fine = settings.oversample
        width, height = (fine * pixels for pixels in settings.size)
        focal = width / 2 / np.tan(np.radians(settings.horizontal_fov_deg) / 2)
        image, _, bodies = self._stage.shoot(
            self._pose(camera, settings),
            projection((width, height), (focal, focal), _NEAR_M, _FAR_M),
            (width, height),
            _LIGHT,
            _HIGHLIGHT,
        )
        shade = np.linspace(0.0, 1.0, height)[:, None]
        backdrop = (1.0 - shade) * _BACKDROP[0] + shade * _BACKDROP[1]
        image = np.where((bodies < 0)[..., None], backdrop[:, None], image)
        blocks = image.reshape(height // fine, fine, width // fine, fine, 3)
        return blocks.mean(axis=(1, 3)).round().astype(np.uint8)

    def _pose(self, name: str, camera: Camera) -> Array:
        """Where a camera is [4, 4]: x right, y down, z forward."""
        if camera.link is not None:
            return camera_poses(self.scene)[name]
        eye, target = np.array(camera.eye), np.array(camera.target)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = eye
        return pose


@lru_cache(maxsize=2)
def _cached(scene_json: str) -> Renderer:
    return Renderer(SceneSettings.model_validate_json(scene_json))


def renderer(scene: SceneSettings) -> Renderer:
    """Return the renderer of a scene, built once per process."""
    return _cached(scene.model_dump_json())
