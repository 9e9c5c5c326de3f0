# SPDX-License-Identifier: Apache-2.0
"""An overhead depth camera of the twin: where it is, its intrinsics, and its ideal images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pybullet as bullet
from numpy.typing import NDArray
from twinloop.perception.camera_model import CameraModel

from twinloop_sim.grasping.scene import Scene

Array = NDArray[np.float64]
_NEAR_M, _FAR_M = 0.1, 2.0
# Size and focal length in pixels: a structured-light camera's VGA, and a stereo camera's 720p.
MODELS = {"vga": ((640, 480), 525.0), "hd": ((1280, 720), 640.0)}


@dataclass(frozen=True)
class DepthCamera:
    """A camera that looks down.

    Attributes:
        camera: its intrinsics.
        rotation, position: from its optical frame into the world [3, 3], [3].
    """

    camera: CameraModel
    rotation: Array
    position: Array

    def into_world(self, points: Array) -> Array:
        """Return points [..., 3] of the optical frame in the world."""
        return points @ self.rotation.T + self.position

    def into_camera(self, points: Array) -> Array:
        """Return points [..., 3] of the world in the optical frame."""
        return (points - self.position) @ self.rotation


def look_down(
    model: str = "vga",
    height_m: float = 0.7,
    tilt_rad: tuple[float, float] = (0.0, 0.0),
    turn_rad: float = 0.0,
    aim_m: tuple[float, float] = (0.0, 0.0),
    focal_px: float | None = None,
    principal_px: tuple[float, float] = (0.0, 0.0),
) -> DepthCamera:
    """Return a camera whose optical axis meets the table at `aim_m`, `height_m` away.

    Raises:
        ValueError: there is no such model.
    """
    if model not in MODELS:
        raise ValueError(f"camera model is {model!r}, expected one of {', '.join(MODELS)}")
    size, focal = MODELS[model]
    focal = focal_px or focal
    cx, cy = (size[0] - 1) / 2 + principal_px[0], (size[1] - 1) / 2 + principal_px[1]
    k = np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
    p = np.column_stack([k, np.zeros(3)])
    down = np.diag([1.0, -1.0, -1.0])
    about = [bullet.getMatrixFromQuaternion(bullet.getQuaternionFromEuler(angles)) for angles in (
        [tilt_rad[0], tilt_rad[1], 0.0], [0.0, 0.0, turn_rad])]  # fmt: skip
    tilt, turn = (np.array(one).reshape(3, 3) for one in about)
    rotation = turn @ tilt @ down
    position = np.array([*aim_m, 0.0]) - height_m * rotation[:, 2]
    return DepthCamera(CameraModel("depth", size, k, np.zeros(5), np.eye(3), p), rotation, position)


def draw_camera(rng: np.random.Generator, model: str = "vga") -> DepthCamera:
    """Return a camera as it may hang: 0.55 to 0.85 m away, tilted up to 15°, intrinsics 5% off."""
    focal = MODELS[model][1] * rng.uniform(0.95, 1.05)
    return look_down(
        model,
        float(rng.uniform(0.55, 0.85)),
        tuple(rng.uniform(-0.19, 0.19, 2)),
        float(rng.uniform(-np.pi, np.pi)),
        tuple(rng.uniform(-0.03, 0.03, 2)),
        float(focal),
        tuple(rng.uniform(-10, 10, 2)),
    )


def render(scene: Scene, camera: DepthCamera) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the ideal depth image [H, W], m, and the body that each pixel shows [H, W]."""
    width, height = camera.camera.size
    fx, fy = camera.camera.k[0, 0], camera.camera.k[1, 1]
    cx, cy = camera.camera.k[0, 2] + 0.5, camera.camera.k[1, 2] + 0.5
    near, far = _NEAR_M, _FAR_M
    projection = np.array(
        [
            [2 * fx / width, 0.0, 1 - 2 * cx / width, 0.0],
            [0.0, 2 * fy / height, 2 * cy / height - 1, 0.0],
            [0.0, 0.0, -(far + near) / (far - near), -2 * far * near / (far - near)],
            [0.0, 0.0, -1.0, 0.0],
        ]
    )
    view = np.eye(4)
    view[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ camera.rotation.T
    view[:3, 3] = -view[:3, :3] @ camera.position
    _, _, _, buffer, bodies = scene.client.getCameraImage(
        width,
        height,
        view.T.ravel().tolist(),
        projection.T.ravel().tolist(),
        shadow=0,
        renderer=bullet.ER_TINY_RENDERER,
    )
    buffer = np.reshape(buffer, (height, width)).astype(np.float64)
    depth = far * near / (far - (far - near) * buffer)
    return depth.astype(np.float32), np.reshape(bodies, (height, width)).astype(np.int32)
