# SPDX-License-Identifier: Apache-2.0
"""Draws the cell with MuJoCo's renderer, with or without a GPU and without a display."""

from __future__ import annotations

from typing import Any
from weakref import finalize

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray
from twinloop.robots.rotations import matrix_from_quaternion

from twinloop_sim.cameras import meshes, patterns
from twinloop_sim.cameras.appearance import MOST_CLUTTER, Appearance, Surface
from twinloop_sim.cameras.eyes import BACKGROUND, BALL0, FAR_M, HAND, NEAR_M, Eyes, Image
from twinloop_sim.cameras.gl import Platform, open_context
from twinloop_sim.cameras.stage import Array
from twinloop_sim.settings import DEPTH, STEREO, SceneSettings

# The lamp is this far off; shadows fall where its map reaches.
_LAMP_M, _SHADOW_RADIUS_M = 1.5, 0.45
_HAND_M = np.array([0.0, -0.03, 0.19])  # about the middle of the palm
_SHADOW_TEXELS = 512
_BALLS, _SKIN, _FLOOR = ("ball0", "ball1"), "skin", "floor"


class MujocoEyes(Eyes):
    """See `Eyes`.

    Args:
        scene: what to draw.
        platform: how OpenGL draws here.
        shadows: False takes a third of the time.
        samples: of a pixel, for smooth edges; 0 or 4, which takes twice the time.
        arm: whether the cell has an arm.

    Raises:
        ValueError: eyes of different sizes.
    """

    def __init__(
        self,
        scene: SceneSettings,
        platform: Platform,
        shadows: bool = True,
        samples: int = 0,
        arm: bool = False,
    ) -> None:
        super().__init__(scene, arm)
        left, right = (self.cameras[name].size for name in STEREO)
        if left != right:
            raise ValueError(f"the eyes are of {left} and {right} pixels, expected equal ones")
        self.backend = f"mujoco ({platform.label})"
        self._places = {name: patterns.sphere_directions() for name in (*_BALLS, _SKIN)}
        self._places[_FLOOR] = self.floor_half_m * patterns.plane_points()
        self._model = self._build(samples)
        self._mesh_turn = _mesh_turns(self._model)[: len(self.shapes.pieces) + 2]
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)
        self._option, self._view = mujoco.MjvOption(), mujoco.MjvCamera()
        self._gl = open_context(platform.name, 16, 16)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(self._model, self._model.ngeom)
        self._canvas = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        self._canvas.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._canvas)
        # Eyes that are dropped must not leave their objects to be freed in another one's context.
        self._free = finalize(self, _freed, self._gl, self._canvas)
        self._free.atexit = False
        self._scene.flags[:] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_CULL_FACE] = 1
        self.dress(self.appearance)

    def _build(self, samples: int) -> mujoco.MjModel:
        """Compile what is to be drawn: the hand's pieces, the balls, the floor and clutter."""
        spec = mujoco.MjSpec()
        spec.visual.quality.numquads = 1
        spec.visual.quality.offsamples = samples
        spec.visual.quality.shadowsize = _SHADOW_TEXELS
        sizes = [camera.size for camera in self.cameras.values()]
        both = sum(self.cameras[name].size[0] for name in STEREO)
        spec.visual.global_.offwidth = max(both, *(width for width, _ in sizes))
        spec.visual.global_.offheight = max(height for _, height in sizes)
        spec.stat.extent = 1.0
        spec.visual.map.shadowclip = _SHADOW_RADIUS_M
        spec.visual.map.znear, spec.visual.map.zfar = NEAR_M, FAR_M
        for name, places in self._places.items():
            rows, columns, _ = places.shape
            spec.add_texture(
                name=name,
                type=mujoco.mjtTexture.mjTEXTURE_2D,
                builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
                width=columns,
                height=rows,
            )
            textures = [""] * int(mujoco.mjtTextureRole.mjNTEXROLE)
            textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = name
            spec.add_material(name=name, textures=textures)
        world = spec.worldbody
        for index, piece in enumerate(self.shapes.pieces):
            material = _SKIN if piece.material == _SKIN else ""
            mesh = piece.mesh()
            if mesh is None:
                world.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=piece.size, material=material)
            else:
                _add_mesh(spec, f"piece{index}", mesh, material)
        for name in _BALLS:
            _add_mesh(spec, name, meshes.ball(self.scene.balls.radius_m), name)
        world.add_geom(
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[self.floor_half_m, self.floor_half_m, 1.0],
            pos=[0.0, 0.0, self.shapes.floor_m],
            material=_FLOOR,
            castshadow=False,
        )
        for _ in range(MOST_CLUTTER):
            world.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.01, 0.01, 0.01])
        world.add_light(type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=True)
        return spec.compile()

    def pose(self, q: ArrayLike, ball_position: ArrayLike, ball_quaternion: ArrayLike) -> None:
        joints, place, turn = self.checked(q, ball_position, ball_quaternion)
        position, rotation = self.shapes.poses(joints)
        count = len(position)
        xpos, xmat = self._data.geom_xpos, self._data.geom_xmat
        turned = matrix_from_quaternion(turn / np.linalg.norm(turn, axis=-1, keepdims=True))
        xpos[: count + 2] = np.concatenate([position, place])
        # The compiler has turned the meshes to their principal axes.
        rotation = np.concatenate([rotation, turned]) @ self._mesh_turn
        xmat[: count + 2] = rotation.reshape(-1, 9)
        self._refresh()

    def dress(self, appearance: Appearance) -> None:
        self._gl.make_current()
        self.appearance = appearance
        model, count = self._model, len(self.shapes.pieces)
        for name, surface in zip(_BALLS, appearance.balls, strict=True):
            self._paint(name, surface)
        self._paint(_SKIN, appearance.surface(_SKIN, self.shapes.colors))
        self._paint(_FLOOR, appearance.floor)
        for index, piece in enumerate(self.shapes.pieces):
            if piece.material != _SKIN:
                surface = appearance.surface(piece.material, self.shapes.colors)
                model.geom_rgba[index] = (*surface.color, 1.0)
        for index in range(MOST_CLUTTER):
            geom = count + 3 + index
            if index >= len(appearance.clutter):
                model.geom_rgba[geom, 3] = 0.0
                continue
            block = appearance.clutter[index]
            angle = np.radians(block.turn_deg)
            c, s = np.cos(angle), np.sin(angle)
            model.geom_size[geom] = block.half
            model.geom_rgba[geom] = (*block.color, 1.0)
            self._data.geom_xpos[geom] = (*block.place, self.shapes.floor_m + block.half[2])
            self._data.geom_xmat[geom] = (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)
        light, lamp = appearance.light, appearance.light.direction()
        color = np.array(light.color)
        model.vis.headlight.ambient = light.ambient * color
        model.vis.headlight.diffuse = model.vis.headlight.specular = np.zeros(3)
        model.light_diffuse[0] = light.strength * color
        model.light_ambient[0] = 0.0
        model.light_specular[0] = 0.6 * color
        self._data.light_xpos[0] = _HAND_M + _LAMP_M * lamp
        self._data.light_xdir[0] = -lamp
        self._refresh()

    def _paint(self, name: str, surface: Surface) -> None:
        """Give a material its texture and gloss."""
        model, material = self._model, self._model.material(name)
        material.specular[:], material.shininess[:] = surface.gloss, 0.3 + 0.6 * surface.gloss
        texture = model.texture(name).id
        begin = model.tex_adr[texture]
        texels = surface.paint(self._places[name]).ravel()
        model.tex_data[begin : begin + texels.size] = texels
        mujoco.mjr_uploadTexture(model, self._canvas, texture)

    def image(self, camera: str) -> Image:
        width, height = self._draw(camera)
        return self._colors_of(width, height)

    def pair(self) -> tuple[Image, Image]:
        width, height = self._draw(*STEREO)
        both = self._colors_of(width, height)
        middle = self.cameras[STEREO[0]].size[0]
        return both[:, :middle], both[:, middle:]

    def depth(self, camera: str = DEPTH) -> NDArray[np.float32]:
        width, height = self._draw(camera, by_label=True)
        near = np.empty((height, width), np.float32)
        mujoco.mjr_readPixels(None, near, mujoco.MjrRect(0, 0, width, height), self._canvas)
        # Reversed depth: 1 at the near plane, 0 at the far one, in between as 1/z.
        away = NEAR_M * FAR_M / (NEAR_M + near[::-1].astype(np.float64) * (FAR_M - NEAR_M))
        return np.where(near[::-1] > 0.0, away, np.nan).astype(np.float32)

    def labels(self, camera: str) -> Image:
        width, height = self._draw(camera, by_label=True)
        codes = self._colors_of(width, height).astype(np.int64) @ (1, 1 << 8, 1 << 16)
        meaning = np.zeros(self._scene.ngeom + 1, dtype=np.uint8)
        count = len(self.shapes.pieces)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objid < count:
                meaning[geom.segid + 1] = HAND if self.shapes.is_hand[geom.objid] else BACKGROUND
            elif geom.objid < count + 2:
                meaning[geom.segid + 1] = BALL0 + geom.objid - count
        return np.asarray(meaning[codes])

    def close(self) -> None:
        self._free()

    def _refresh(self) -> None:
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._option,
            None,
            self._view,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )

    def _draw(self, *cameras: str, by_label: bool = False) -> tuple[int, int]:
        """Draw what one camera or two of one size see, side by side; returns width and height."""
        self._gl.make_current()
        scene = self._scene
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = by_label
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = by_label
        both = mujoco.mjtStereo.mjSTEREO_SIDEBYSIDE if len(cameras) == 2 else 0
        scene.stereo = int(both)
        # Without stereo MuJoCo takes the mean of both views.
        for view, camera in zip(scene.camera, (cameras[0], cameras[-1]), strict=True):
            pose, model = self.camera_pose(camera), self.cameras[camera]
            width, height = model.size
            view.pos, view.forward, view.up = pose[:3, 3], pose[:3, 2], -pose[:3, 1]
            view.frustum_near, view.frustum_far = NEAR_M, FAR_M
            view.frustum_center = 0.0
            view.frustum_width = NEAR_M * width / 2 / model.k[0, 0]  # half of it, in fact
            view.frustum_top = NEAR_M * height / 2 / model.k[1, 1]
            view.frustum_bottom = -view.frustum_top
        width, height = self.cameras[cameras[0]].size
        rect = mujoco.MjrRect(0, 0, width * len(cameras), height)
        mujoco.mjr_render(rect, scene, self._canvas)
        return rect.width, rect.height

    def _colors_of(self, width: int, height: int) -> Image:
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, mujoco.MjrRect(0, 0, width, height), self._canvas)
        return np.ascontiguousarray(pixels[::-1])  # rows come from below


def _freed(context: Any, canvas: mujoco.MjrContext) -> None:
    context.make_current()
    canvas.free()
    context.free()


def _add_mesh(spec: mujoco.MjSpec, name: str, mesh: meshes.Mesh, material: str) -> None:
    spec.add_mesh(
        name=name,
        uservert=mesh.points.ravel(),
        usernormal=mesh.normals.ravel(),
        usertexcoord=mesh.texels.ravel(),
        userface=mesh.faces.ravel(),
    )
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, material=material)


def _mesh_turns(model: mujoco.MjModel) -> Array:
    """Return how the meshes of a model's shapes were turned [N, 3, 3]; the identity for others."""
    turns = np.tile(np.eye(3), (model.ngeom, 1, 1))
    for geom in range(model.ngeom):
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            turns[geom] = matrix_from_quaternion(model.mesh_quat[model.geom_dataid[geom]])
    return turns
