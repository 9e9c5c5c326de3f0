# SPDX-License-Identifier: Apache-2.0
"""The tray camera's view of the cell, drawn from MuJoCo's model of it."""

from __future__ import annotations

import colorsys

import mujoco
import numpy as np
from twinloop.perception.camera_model import pinhole
from twinloop_sim.arm_cell import build_cell_model
from twinloop_sim.cameras.gl import open_context, platform
from twinloop_sim.settings import mujoco_settings, scene_settings

AWAY = [0.5, 0.5, -0.57]


class TrayView:
    """A cell whose balls are put anywhere, and what the tray camera sees of it."""

    def __init__(self, size: tuple[int, int] = (320, 240), fov_deg: float = 50.0) -> None:
        found = platform()
        assert found is not None
        self.camera = pinhole("tray", size, fov_deg)
        self.model = build_cell_model(scene_settings(), mujoco_settings())
        self.data = mujoco.MjData(self.model)
        self.model.vis.global_.offwidth, self.model.vis.global_.offheight = size
        self._colors = self.model.mat_rgba.copy()
        self._gl = open_context(found.name, 16, 16)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(self.model, 200)
        self._canvas = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._canvas)

    def close(self) -> None:
        self._gl.make_current()
        self._canvas.free()
        self._gl.free()

    def settle(self, places: list[list[float]], seconds: float = 2.0) -> None:
        """Let balls fall from places; those that are left out lie far off."""
        for ball, place in enumerate([*places, AWAY, AWAY][:2]):
            joint = self.model.joint(f"ball{ball}")
            self.data.qpos[joint.qposadr[0] :][:3] = place
            self.data.qvel[joint.dofadr[0] :][:6] = 0.0
        mujoco.mj_step(self.model, self.data, round(seconds / self.model.opt.timestep))

    def ball(self, index: int) -> np.ndarray:
        return np.array(self.data.body(f"ball{index}").xpos)

    def repaint(self, rng: np.random.Generator) -> None:
        """Give everything other colours, and other light."""
        model = self.model
        for index in range(model.nmat):
            hue, saturation, value = rng.random(), rng.uniform(0.0, 0.4), rng.uniform(0.15, 0.9)
            model.mat_rgba[index, :3] = colorsys.hsv_to_rgb(hue, saturation, value)
        for ball in range(2):
            color = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.9))
            model.geom(f"ball{ball}").rgba[:3] = color
        model.vis.headlight.ambient = rng.uniform(0.2, 0.45)
        model.vis.headlight.diffuse = rng.uniform(0.3, 0.6)

    def image(self) -> np.ndarray:
        model, data, (width, height) = self.model, self.data, self.camera.size
        mujoco.mj_kinematics(model, data)
        self._gl.make_current()
        mujoco.mjv_updateScene(
            model,
            data,
            mujoco.MjvOption(),
            None,
            mujoco.MjvCamera(),
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        eye = data.body("tray_camera_optical")
        turn = eye.xmat.reshape(3, 3)
        near = 0.05
        for view in self._scene.camera:
            view.pos, view.forward, view.up = eye.xpos, turn[:, 2], -turn[:, 1]
            view.frustum_near, view.frustum_far, view.frustum_center = near, 3.0, 0.0
            view.frustum_width = near * width / 2 / self.camera.k[0, 0]
            view.frustum_top = near * height / 2 / self.camera.k[1, 1]
            view.frustum_bottom = -view.frustum_top
        rect = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(rect, self._scene, self._canvas)
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, rect, self._canvas)
        return pixels[::-1].copy()
