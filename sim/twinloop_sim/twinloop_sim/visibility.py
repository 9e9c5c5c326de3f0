# SPDX-License-Identifier: Apache-2.0
"""How much of each ball the palm cameras see past the fingers.

Rays run from a camera to points spread over a ball's disc. They are cast in the image plane: a
finger is there a line with a width, and covers the points that lie within it and behind it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from twinloop.robots.description import hand_joint_names, hand_urdf, joint_prefix
from twinloop.robots.kinematics import Chain, capsules

from twinloop_sim.settings import STEREO, SceneSettings

Array = NDArray[np.float64]


class Visibility:
    """Casts rays from the stereo cameras of a scene, which sit on links of the hand's mount.

    Attributes:
        eyes: the cameras' places [K, 3], m, world.
    """

    def __init__(self, scene: SceneSettings) -> None:
        prefix = joint_prefix(scene.side)
        urdf = hand_urdf(scene.side)
        self._radius_m = scene.balls.radius_m
        shapes = [shape for shape in capsules(urdf) if shape.link != f"{prefix}wrist"]
        self._chain = Chain(
            urdf, hand_joint_names(scene.side), tuple(shape.link for shape in shapes)
        )
        self._ends = np.stack([[shape.start, shape.end] for shape in shapes])  # [C, 2, 3]
        self._thickness = np.array([shape.radius for shape in shapes] + [self._radius_m])
        pair = [scene.cameras[name] for name in STEREO if name in scene.cameras]
        cameras = tuple(camera.link for camera in pair if camera.link is not None)
        self.eyes, self._rotation = Chain(urdf, (), cameras).poses(np.zeros(0))
        self._disc = _disc_points()

    def fractions(self, q: Array, balls: Array) -> Array:
        """Return the part of each ball's disc that every camera sees, 0 to 1.

        Args:
            q: joint positions [N, 24], rad.
            balls: ball centres [N, 2, 3], m, world.

        Returns:
            [N, 2], the smaller of the cameras' fractions: stereo needs both.
        """
        position, rotation = self._chain.poses(q)
        ends = position[:, :, None] + np.einsum("ncij,cej->ncei", rotation, self._ends)
        # Each ball is also an obstacle to the other one: a line of no length.
        segments = self._into_cameras(ends)  # [K, N, C, 2, 3]
        centres = self._into_cameras(balls)  # [K, N, 2, 3]
        other = np.repeat(centres[..., ::-1, None, :], 2, axis=-2)[..., :, None, :, :]
        shared = np.repeat(segments[..., None, :, :, :], 2, axis=2)
        lines = np.concatenate([shared, other], axis=-3)  # [K, N, 2, C + 1, 2, 3]
        return 1.0 - self._covered(lines, centres).mean(axis=-1).max(axis=0)

    def _into_cameras(self, points: Array) -> Array:
        """World points [N, ..., 3] in each camera's optical frame [K, N, ..., 3]."""
        return np.stack([(points - e) @ r for e, r in zip(self.eyes, self._rotation, strict=True)])

    def _covered(self, lines: Array, centres: Array) -> NDArray[np.bool_]:
        """Which disc points [K, N, 2, P] of the balls are covered by lines [K, N, 2, C, 2, 3]."""
        image = lines[..., :2] / lines[..., 2:]
        start, along = image[..., 0, :], image[..., 1, :] - image[..., 0, :]
        depth, deeper = lines[..., 0, 2], lines[..., 1, 2] - lines[..., 0, 2]
        ball_depth = centres[..., 2]
        points = centres[..., None, :2] / ball_depth[..., None, None]
        points = points + self._disc * (self._radius_m / ball_depth)[..., None, None]
        offset = points[..., :, None, :] - start[..., None, :, :]  # [K, N, 2, P, C, 2]
        length = np.maximum((along**2).sum(-1), 1e-18)[..., None, :]
        along = along[..., None, :, :]
        place = (offset[..., 0] * along[..., 0] + offset[..., 1] * along[..., 1]) / length
        place = np.minimum(np.maximum(place, 0.0), 1.0)
        across = (offset[..., 0] - place * along[..., 0]) ** 2
        across += (offset[..., 1] - place * along[..., 1]) ** 2
        at = depth[..., None, :] + place * deeper[..., None, :]
        hit = (across * at**2 < self._thickness**2) & (at < ball_depth[..., None, None])
        return hit.any(axis=-1)


def _disc_points() -> Array:
    """Points [P, 2] that share the unit disc evenly (Vogel's spiral)."""
    count = 16
    index = np.arange(count)
    angle = index * np.pi * (3.0 - np.sqrt(5.0))
    radius = np.sqrt((index + 0.5) / count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
