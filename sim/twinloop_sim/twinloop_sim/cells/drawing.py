# SPDX-License-Identifier: Apache-2.0
"""Draws a scene in software, with PyBullet: no display, no GPU, no EGL."""

from __future__ import annotations

import mujoco
import numpy as np
import pybullet as bullet
from numpy.typing import ArrayLike, NDArray

from twinloop_sim.bullet_server import connect
from twinloop_sim.cells.scene import Array, Scene

_NEAR_M, _FAR_M = 0.02, 3.0
_SKIN = (0.80, 0.68, 0.58, 1.0)  # of shapes to which the scene gives no colour
_OVERSAMPLE = 2  # smooth edges, four times the work
_PLANE_HALF_M = 0.4


def draw(
    scene: Scene,
    qpos: Array,
    eye: ArrayLike,
    target: ArrayLike,
    size: tuple[int, int] = (480, 360),
    fov_deg: float = 34.0,
) -> NDArray[np.uint8]:
    """Draw one state of a scene.

    Args:
        scene: what to draw.
        qpos: coordinates [nq].
        eye, target: where the camera is and looks, world, m.
        size: width and height, pixels.
        fov_deg: vertical field of view.

    Returns:
        RGB image [H, W, 3].
    """
    client = connect()
    data = mujoco.MjData(scene.model)
    data.qpos[:] = qpos
    mujoco.mj_forward(scene.model, data)
    for geom in range(scene.model.ngeom):
        shape, pose = _shape(scene.model, geom), np.empty(4)
        mujoco.mju_mat2Quat(pose, data.geom_xmat[geom])
        w, x, y, z = pose
        place = data.geom_xpos[geom].copy()
        if scene.model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
            place[2] -= 0.005
        visual = client.createVisualShape(rgbaColor=_color(scene.model, geom), **shape)
        client.createMultiBody(0.0, -1, visual, place.tolist(), (x, y, z, w))
    width, height = (_OVERSAMPLE * pixels for pixels in size)
    view = client.computeViewMatrix(np.asarray(eye), np.asarray(target), (0.0, 0.0, 1.0))
    lens = client.computeProjectionMatrixFOV(fov_deg, width / height, _NEAR_M, _FAR_M)
    pixels = client.getCameraImage(
        width,
        height,
        view,
        lens,
        renderer=bullet.ER_TINY_RENDERER,
        shadow=1,
        lightDirection=(0.3, -0.4, 1.0),
        lightAmbientCoeff=0.5,
        lightDiffuseCoeff=0.5,
        lightSpecularCoeff=0.2,
    )[2]
    client.disconnect()
    image = np.reshape(pixels, (height, width, 4))[..., :3].astype(np.float32)
    blocks = image.reshape(size[1], _OVERSAMPLE, size[0], _OVERSAMPLE, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def _shape(model: mujoco.MjModel, geom: int) -> dict[str, object]:
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_PLANE:
        return {
            "shapeType": bullet.GEOM_BOX,
            "halfExtents": [_PLANE_HALF_M, _PLANE_HALF_M, 0.005],
        }
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return {"shapeType": bullet.GEOM_BOX, "halfExtents": size.tolist()}
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return {"shapeType": bullet.GEOM_SPHERE, "radius": float(size[0])}
    round_kinds = {
        mujoco.mjtGeom.mjGEOM_CAPSULE: bullet.GEOM_CAPSULE,
        mujoco.mjtGeom.mjGEOM_CYLINDER: bullet.GEOM_CYLINDER,
    }
    if kind not in round_kinds:
        raise ValueError(f"geom {geom} of kind {kind} cannot be drawn")
    return {
        "shapeType": round_kinds[kind],
        "radius": float(size[0]),
        "length": 2 * float(size[1]),
    }


def _color(model: mujoco.MjModel, geom: int) -> tuple[float, ...]:
    color = tuple(float(part) for part in model.geom_rgba[geom])
    return _SKIN if np.allclose(color, (0.5, 0.5, 0.5, 1.0)) else color
