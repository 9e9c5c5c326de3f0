# SPDX-License-Identifier: Apache-2.0
"""Hand, balls and clutter in PyBullet's software renderer: no display, no GPU, no OpenGL."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pybullet as bullet
from numpy.typing import NDArray
from twinloop.robots.rotations import quaternion_from_matrix

from twinloop_sim.bullet_server import connect
from twinloop_sim.cameras import meshes, patterns
from twinloop_sim.cameras.appearance import Appearance, Color, Light, Surface
from twinloop_sim.cameras.stage import Array, Piece, Shapes
from twinloop_sim.settings import SceneSettings

_Shape = dict[str, object]
_SKIN = "skin"


class BulletStage:
    """Everything but a floor, posed and drawn on request.

    Args:
        scene: whose balls these are.
        shapes: of the robot.
        fineness: of round shapes, in units of what small images need.

    Attributes:
        bodies: of the robot's shapes, and of the two balls.
    """

    def __init__(self, scene: SceneSettings, shapes: Shapes, fineness: int = 1) -> None:
        self.robot = shapes
        self.bodies: list[int] = []
        self._files = tempfile.TemporaryDirectory()
        self._folder = Path(self._files.name)
        self._shapes = [
            self._shape(f"piece{index}", piece, fineness)
            for index, piece in enumerate(self.robot.pieces)
        ]
        self._ball = self._mesh("ball", meshes.ball(scene.balls.radius_m, fineness))
        self._client = connect()
        self._dresses = 0

    def _shape(self, name: str, piece: Piece, fineness: int) -> _Shape:
        mesh = piece.mesh(fineness)
        if mesh is None:
            return {"shapeType": bullet.GEOM_BOX, "halfExtents": piece.size}
        return self._mesh(name, mesh)

    def _mesh(self, name: str, mesh: meshes.Mesh) -> _Shape:
        path = self._folder / f"{name}.obj"
        mesh.save_obj(path)
        return {"shapeType": bullet.GEOM_MESH, "fileName": str(path)}

    def dress(self, appearance: Appearance) -> None:
        """Build everything anew, to look like this; it has to be posed next."""
        # Frees the textures too, which nothing else does.
        self._client.resetSimulation()
        self._dresses += 1
        colors = self.robot.colors
        skin = self._texture(_SKIN, appearance.surface(_SKIN, colors))
        self.bodies = [
            self._painted(shape, skin)
            if piece.material == _SKIN
            else self._solid(shape, appearance.surface(piece.material, colors).color)
            for piece, shape in zip(self.robot.pieces, self._shapes, strict=True)
        ]
        for index, surface in enumerate(appearance.balls):
            self.bodies.append(self._painted(self._ball, self._texture(f"ball{index}", surface)))
        for block in appearance.clutter:
            shape: _Shape = {"shapeType": bullet.GEOM_BOX, "halfExtents": block.half}
            body = self._solid(shape, block.color)
            turn = self._client.getQuaternionFromEuler((0.0, 0.0, np.radians(block.turn_deg)))
            place = (*block.place, self.robot.floor_m + block.half[2])
            self._client.resetBasePositionAndOrientation(body, place, turn)

    def pose(self, q: Array, ball_position: Array, ball_quaternion: Array) -> None:
        """Put everything where it is: joints [J], balls [2, 3], m, and [2, 4], w first."""
        position, rotation = self.robot.poses(q)
        places = np.concatenate([position, ball_position])
        turns = np.concatenate([quaternion_from_matrix(rotation), ball_quaternion])
        turns = turns[:, [1, 2, 3, 0]]
        for body, place, turn in zip(self.bodies, places.tolist(), turns.tolist(), strict=True):
            self._client.resetBasePositionAndOrientation(body, place, turn)

    def shoot(
        self,
        pose: Array,
        projection: Array,
        size: tuple[int, int],
        light: Light,
        highlight: float,
        shadows: bool = True,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
        """Draw what a camera sees.

        Args:
            pose: of its optical frame [4, 4], world.
            projection: OpenGL's matrix [4, 4].
            size: width and height, pixels.
            light: what shines.
            highlight: strength of highlights; the renderer has one for all surfaces.

        Returns:
            Colours [H, W, 3], the depth buffer [H, W], and bodies [H, W], -1 where none is.
        """
        (width, height), eye, axes = size, pose[:3, 3], pose[:3, :3]
        _, _, pixels, near, bodies = self._client.getCameraImage(
            width,
            height,
            self._client.computeViewMatrix(eye, eye + axes[:, 2], -axes[:, 1]),
            projection.T.ravel().tolist(),
            renderer=bullet.ER_TINY_RENDERER,
            shadow=int(shadows),
            lightDirection=light.direction().tolist(),
            lightColor=light.color,
            lightDistance=2.0,
            lightAmbientCoeff=light.ambient,
            lightDiffuseCoeff=light.strength,
            lightSpecularCoeff=highlight,
        )
        image = np.reshape(pixels, (height, width, 4))[..., :3].astype(np.uint8)
        return image, np.reshape(near, (height, width)), np.reshape(bodies, (height, width))

    def close(self) -> None:
        """End the server, if that was not done."""
        with contextlib.suppress(bullet.error):
            self._client.disconnect()
        self._files.cleanup()

    def _solid(self, shape: _Shape, color: Color) -> int:
        visual = self._client.createVisualShape(rgbaColor=(*color, 1.0), **shape)
        return int(self._client.createMultiBody(0.0, -1, visual))

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


def projection(
    size: tuple[int, int], focal_px: tuple[float, float], near_m: float, far_m: float
) -> Array:
    """Return OpenGL's projection matrix [4, 4] of an ideal camera, for `BulletStage.shoot`.

    The renderer puts the middle of the image half a pixel to the right and above of where OpenGL
    has it; that is taken back.
    """
    (width, height), (fx, fy) = size, focal_px
    depth = far_m - near_m
    return np.array(
        [
            [2.0 * fx / width, 0.0, 1.0 / width, 0.0],
            [0.0, 2.0 * fy / height, 1.0 / height, 0.0],
            [0.0, 0.0, -(far_m + near_m) / depth, -2.0 * far_m * near_m / depth],
            [0.0, 0.0, -1.0, 0.0],
        ]
    )
