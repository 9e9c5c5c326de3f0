# SPDX-License-Identifier: Apache-2.0
"""Draws the cell with PyBullet's software renderer: needs no OpenGL at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pybullet as bullet
from numpy.typing import ArrayLike, NDArray
from twinloop.perception.camera_model import CameraModel
from twinloop.robots.rotations import quaternion_from_matrix

from twinloop_sim.bullet_server import connect
from twinloop_sim.cameras import meshes, patterns
from twinloop_sim.cameras.appearance import Appearance, Color, Surface
from twinloop_sim.cameras.eyes import BALL0, FAR_M, FLOOR_HALF_M, HAND, NEAR_M, Eyes, Image
from twinloop_sim.cameras.stage import Array, Hand, Piece
from twinloop_sim.settings import DEPTH, STEREO, SceneSettings

_Seen = tuple[NDArray[np.float32], NDArray[np.float32], Array]
_Shape = dict[str, object]
_SKIN = "skin"
_HIGHLIGHT = 0.4  # strength of highlights where the gloss is 1; one for all surfaces


class BulletEyes(Eyes):
    """See `Eyes`.

    Args:
        scene: what to draw.
        shadows: False draws faster.
    """

    def __init__(self, scene: SceneSettings, shadows: bool = True) -> None:
        super().__init__(scene)
        self.backend = "pybullet"
        self._hand = Hand(scene.side)
        self._shadows = shadows
        self._files = tempfile.TemporaryDirectory()
        self._folder = Path(self._files.name)
        self._shapes = [self._shape(index, p) for index, p in enumerate(self._hand.pieces)]
        self._ball = self._mesh("ball", meshes.ball(scene.balls.radius_m))
        self._client = connect()
        self._dresses = 0
        self._bodies: list[int] = []
        self._floors: dict[str, _Seen] = {}
        self._posed = (np.zeros(24), np.zeros((2, 3)), np.tile([1.0, 0.0, 0.0, 0.0], (2, 1)))
        self.dress(self.appearance)

    def _shape(self, index: int, piece: Piece) -> _Shape:
        mesh = piece.mesh()
        if mesh is None:
            return {"shapeType": bullet.GEOM_BOX, "halfExtents": piece.size}
        return self._mesh(f"piece{index}", mesh)

    def _mesh(self, name: str, mesh: meshes.Mesh) -> _Shape:
        path = self._folder / f"{name}.obj"
        mesh.save_obj(path)
        return {"shapeType": bullet.GEOM_MESH, "fileName": str(path)}

    def pose(self, q: ArrayLike, ball_position: ArrayLike, ball_quaternion: ArrayLike) -> None:
        self._posed = self.checked(q, ball_position, ball_quaternion)
        joints, place, turn = self._posed
        position, rotation = self._hand.poses(joints)
        places = np.concatenate([position, place])
        turns = np.concatenate([quaternion_from_matrix(rotation), turn])[:, [1, 2, 3, 0]]
        for body, at, turned in zip(self._bodies, places.tolist(), turns.tolist(), strict=True):
            self._client.resetBasePositionAndOrientation(body, at, turned)

    def dress(self, appearance: Appearance) -> None:
        self.appearance = appearance
        # Frees the textures too, which nothing else does.
        self._client.resetSimulation()
        self._dresses += 1
        skin = self._texture(_SKIN, appearance.surface(_SKIN, self._hand.colors))
        self._bodies = []
        for piece, shape in zip(self._hand.pieces, self._shapes, strict=True):
            color = appearance.surface(piece.material, self._hand.colors).color
            is_skin = piece.material == _SKIN
            self._bodies.append(
                self._painted(shape, skin) if is_skin else self._solid(shape, color)
            )
        for index, surface in enumerate(appearance.balls):
            self._bodies.append(self._painted(self._ball, self._texture(f"ball{index}", surface)))
        light = appearance.light
        lit = light.ambient + light.strength * light.direction()[2]
        floor = appearance.floor.paint(FLOOR_HALF_M * patterns.plane_points())
        self._floor = np.minimum(lit * np.array(light.color) * floor, 255.0).astype(np.uint8)
        for block in appearance.clutter:
            x, y, z, w = self._client.getQuaternionFromEuler((0.0, 0.0, np.radians(block.turn_deg)))
            self._solid(
                {"shapeType": bullet.GEOM_BOX, "halfExtents": block.half},
                block.color,
                ((*block.place, block.half[2]), (x, y, z, w)),
            )
        self.pose(*self._posed)

    def _solid(
        self,
        shape: _Shape,
        color: Color,
        pose: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0,) * 3, (0.0, 0.0, 0.0, 1.0)),
    ) -> int:
        visual = self._client.createVisualShape(rgbaColor=(*color, 1.0), **shape)
        return int(self._client.createMultiBody(0.0, -1, visual, *pose))

    def _painted(self, shape: _Shape, texture: int) -> int:
        body = self._solid(shape, (1.0, 1.0, 1.0))
        self._client.changeVisualShape(body, -1, textureUniqueId=texture)
        return body

    def _texture(self, name: str, surface: Surface) -> int:
        texels = surface.paint(patterns.sphere_directions())[..., ::-1]
        # PyBullet takes a file of a name that it has read before for the same one.
        path = self._folder / f"{name}-{self._dresses}.png"
        cv2.imwrite(str(path), np.ascontiguousarray(texels))
        texture = int(self._client.loadTexture(str(path)))
        path.unlink()
        return texture

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
        meaning = np.zeros(max(bodies.max(), *self._bodies) + 2, dtype=np.uint8)
        meaning[self._bodies] = [HAND] * len(self._hand.pieces) + [BALL0, BALL0 + 1]
        return np.asarray(meaning[bodies])  # -1, where nothing is, reads the last one: 0

    def close(self) -> None:
        self._client.disconnect()
        self._files.cleanup()

    def shift(self, rig_error: ArrayLike) -> None:
        super().shift(rig_error)
        self._floors.clear()

    def _draw(self, camera: str) -> tuple[Image, NDArray[np.float32], NDArray[np.int64]]:
        """Return colours [H, W, 3], the depth buffer [H, W] and bodies [H, W], -1 for the floor."""
        pose, model, light = self.camera_pose(camera), self.cameras[camera], self.appearance.light
        width, height = model.size
        eye, axes = pose[:3, 3], pose[:3, :3]
        gloss = sum(ball.gloss for ball in self.appearance.balls) / 2.0
        _, _, pixels, near, bodies = self._client.getCameraImage(
            width,
            height,
            self._client.computeViewMatrix(eye, eye + axes[:, 2], -axes[:, 1]),
            _projection(model),
            renderer=bullet.ER_TINY_RENDERER,
            shadow=int(self._shadows),
            lightDirection=light.direction().tolist(),
            lightColor=light.color,
            lightDistance=2.0,
            lightAmbientCoeff=light.ambient,
            lightDiffuseCoeff=light.strength,
            lightSpecularCoeff=_HIGHLIGHT * gloss,
        )
        image = np.reshape(pixels, (height, width, 4))[..., :3].astype(np.uint8)
        bodies = np.reshape(bodies, (height, width))
        columns, rows, _ = self._floor_seen(camera)
        floor = cv2.remap(self._floor, columns, rows, cv2.INTER_LINEAR)
        image = np.where((bodies < 0)[..., None], floor, image)
        return image, np.reshape(near, (height, width)), bodies

    def _floor_seen(self, camera: str) -> _Seen:
        """Return the floor's texels (column, row) that pixels see, and how far off, m: [H, W] each.

        The floor fills most of the image. Drawn as a body it takes three times as long as all
        else, so its texture is looked up here; shadows do not fall on it.
        """
        if camera not in self._floors:
            pose, model = self.camera_pose(camera), self.cameras[camera]
            rows, columns = np.indices(model.size[::-1])
            rays = model.rays(np.stack([columns, rows], axis=-1)) @ pose[:3, :3].T
            with np.errstate(divide="ignore"):
                away = np.where(rays[..., 2] < 0.0, -pose[2, 3] / rays[..., 2], np.nan)
            place = pose[:2, 3] + away[..., None] * rays[..., :2]
            texel = (place / (2.0 * FLOOR_HALF_M) + 0.5) * len(self._floor) - 0.5
            away[np.abs(place).max(axis=-1) > FLOOR_HALF_M] = np.nan
            column, row = np.moveaxis(np.where(np.isfinite(texel), texel, -10.0), -1, 0)
            self._floors[camera] = column.astype(np.float32), row.astype(np.float32), away
        return self._floors[camera]


def _projection(model: CameraModel) -> list[float]:
    """OpenGL's projection matrix of an ideal camera, by columns.

    The renderer puts the middle of the image half a pixel to the right and above of where
    OpenGL has it; that is taken back.
    """
    width, height = model.size
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2.0 * model.k[0, 0] / width, 1.0 / width
    matrix[1, 1], matrix[1, 2] = 2.0 * model.k[1, 1] / height, 1.0 / height
    matrix[2, 2] = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M)
    matrix[2, 3] = -2.0 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    matrix[3, 2] = -1.0
    return [float(value) for value in matrix.T.ravel()]
