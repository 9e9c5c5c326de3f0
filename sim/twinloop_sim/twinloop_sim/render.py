# SPDX-License-Identifier: Apache-2.0
"""Draws the state of either engine in software, with PyBullet: no display, no GPU, no EGL."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pybullet as bullet
import pybullet_data
from numpy.typing import NDArray
from twinloop.robots.description import hand_joint_names, hand_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import Chain

from twinloop_sim.bullet_server import connect, load_hand
from twinloop_sim.settings import Camera, SceneSettings
from twinloop_sim.twin import State

_NEAR_M, _FAR_M = 0.02, 5.0
_BALL_COLORS = ((0.75, 0.08, 0.10, 1.0), (0.05, 0.38, 0.62, 1.0))
_BACKDROP = np.array([[226.0, 232.0, 238.0], [178.0, 190.0, 202.0]])  # RGB, top and bottom


class Renderer:
    """Holds a copy of the scene that is posed and drawn on request."""

    def __init__(self, scene: SceneSettings) -> None:
        self.scene = scene
        self._client = connect()
        self._client.setAdditionalSearchPath(pybullet_data.getDataPath())
        self._hand, self._joints = load_hand(self._client, scene.side)
        for link in range(-1, self._client.getNumJoints(self._hand)):
            self._client.changeVisualShape(self._hand, link, specularColor=(0.05, 0.05, 0.05))
        self._balls = [self._ball(color) for color in _BALL_COLORS]

    def _ball(self, color: tuple[float, ...]) -> int:
        shape = self._client.createVisualShape(
            bullet.GEOM_MESH,
            fileName="sphere_smooth.obj",  # of radius 1, finer than the built-in sphere
            meshScale=[self.scene.balls.radius_m] * 3,
            rgbaColor=color,
            specularColor=(1.0, 1.0, 1.0),
        )
        return int(self._client.createMultiBody(0.0, -1, shape))

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
        for joint, angle in zip(self._joints, state.q, strict=True):
            self._client.resetJointState(self._hand, joint, angle)
        for ball, place, (w, x, y, z) in zip(
            self._balls, state.ball_position, state.ball_quaternion, strict=True
        ):
            self._client.resetBasePositionAndOrientation(ball, place, (x, y, z, w))
        settings = self.scene.cameras[camera]
        fine = settings.oversample
        width, height = (fine * pixels for pixels in settings.size)
        _, _, pixels, _, bodies = self._client.getCameraImage(
            width,
            height,
            self._view(settings),
            self._projection(settings),
            renderer=bullet.ER_TINY_RENDERER,
            shadow=1,
            lightDirection=(0.15, 0.25, 1.0),
            lightColor=(1.0, 0.98, 0.95),
            lightDistance=2.0,
            lightAmbientCoeff=0.45,
            lightDiffuseCoeff=0.45,
            lightSpecularCoeff=0.6,
        )
        image = np.reshape(pixels, (height, width, 4))[..., :3].astype(np.float32)
        empty = np.reshape(bodies, (height, width)) < 0
        shade = np.linspace(0.0, 1.0, height)[:, None]
        backdrop = (1.0 - shade) * _BACKDROP[0] + shade * _BACKDROP[1]
        image = np.where(empty[..., None], backdrop[:, None], image)
        blocks = image.reshape(height // fine, fine, width // fine, fine, 3)
        return blocks.mean(axis=(1, 3)).round().astype(np.uint8)

    def _view(self, camera: Camera) -> list[float]:
        if camera.link is None:
            eye, target, up = camera.eye, camera.target, (0.0, 0.0, 1.0)
        else:
            urdf, names = hand_urdf(self.scene.side), hand_joint_names(self.scene.side)
            position, rotation = Chain(urdf, names, (camera.link,)).poses(np.zeros(len(names)))
            eye, axes = position[0], rotation[0]
            target, up = eye + axes[:, 2], -axes[:, 1]
        return list(self._client.computeViewMatrix(eye, target, up))

    def _projection(self, camera: Camera) -> list[float]:
        width, height = camera.size
        tangent = np.tan(np.radians(camera.horizontal_fov_deg) / 2) * height / width
        vertical = 2 * np.degrees(np.arctan(tangent))
        return list(
            self._client.computeProjectionMatrixFOV(vertical, width / height, _NEAR_M, _FAR_M)
        )


@lru_cache(maxsize=2)
def _cached(scene_json: str) -> Renderer:
    return Renderer(SceneSettings.model_validate_json(scene_json))


def renderer(scene: SceneSettings) -> Renderer:
    """Return the renderer of a scene, built once per process."""
    return _cached(scene.model_dump_json())
