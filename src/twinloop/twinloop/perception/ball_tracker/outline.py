# SPDX-License-Identifier: Apache-2.0
"""Where the hand's outline should be in an eye, from its shapes and the joints' angles."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.ball_tracker.eyes import FOCAL_PX
from twinloop.robots.description import hand_joint_names, hand_urdf, joint_prefix
from twinloop.robots.kinematics import Chain
from twinloop.robots.shapes import visible_shapes

Array = NDArray[np.float64]

_ALONG = 5  # points on each side of a rod
_AROUND = 5  # points on each of its ends
_EDGE = 8  # points on each edge of a box
_INSIDE_PX = 1.5  # points this far within another shape are no outline
_NEAREST_M = 0.05


@dataclass(frozen=True)
class Outline:
    """Points of the hand's outline as one eye sees it.

    Attributes:
        points: in the eye's frame [N, 3], m.
        pixels: where they project to [N, 2].
        normals: of the outline, away from the hand [N, 2].
    """

    points: Array
    pixels: Array
    normals: Array


class HandShape:
    """The hand's visible shapes, posed by its joints.

    Args:
        side: `right` or `left`.
    """

    def __init__(self, side: str) -> None:
        urdf = hand_urdf(side)
        rods, boxes = visible_shapes(urdf)
        # The forearm is out of the windows.
        forearm = f"{joint_prefix(side)}forearm"
        boxes = [box for box in boxes if box.link != forearm]
        links = (*(rod.link for rod in rods), *(box.link for box in boxes))
        self._chain = Chain(urdf, hand_joint_names(side), links)
        self._rods = len(rods)
        self._ends = np.stack([[rod.start, rod.end] for rod in rods])
        self._radius = np.array([rod.radius for rod in rods])
        self._corners = np.stack([box.corners for box in boxes])

    def pose(self, q: Array) -> tuple[Array, Array]:
        """Return the rods' ends [R, 2, 3] and the boxes' corners [B, 8, 3], m, for joints [24]."""
        position, rotation = self._chain.poses(q)
        count = self._rods
        ends = np.einsum("rij,rej->rei", rotation[:count], self._ends)
        corners = np.einsum("bij,bej->bei", rotation[count:], self._corners)
        return ends + position[:count, None], corners + position[count:, None]

    def outline(self, ends: Array, corners: Array) -> Outline:
        """Return the outline of shapes in an eye's frame: ends [R, 2, 3], corners [B, 8, 3]."""
        points, normals, owner = _around_rods(ends, self._radius)
        hulls = [_hull(box) for box in corners]
        for index, (box, hull) in enumerate(zip(corners, hulls, strict=True)):
            more, across = _along_hull(box, hull)
            points = np.concatenate([points, more])
            normals = np.concatenate([normals, across])
            owner = np.concatenate([owner, np.full(len(more), len(ends) + index)])
        ahead = points[:, 2] > _NEAREST_M
        points, normals, owner = points[ahead], normals[ahead], owner[ahead]
        pixels = _project(points)
        hidden = _within_rods(pixels, owner, ends, self._radius)
        for index, (box, hull) in enumerate(zip(corners, hulls, strict=True)):
            others = owner != len(ends) + index
            hidden |= others & _within_hull(pixels, _project(box[hull]))
        return Outline(points[~hidden], pixels[~hidden], normals[~hidden])


def _project(points: Array) -> Array:
    return FOCAL_PX * points[..., :2] / points[..., 2:]


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12))


def _around_rods(ends: Array, radius: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return outline points [N, 3] of rods, their image normals [N, 2] and whose they are [N].

    Along a rod these are where rays touch a cylinder, about its ends where they touch a sphere.
    """
    start, end = ends[:, 0], ends[:, 1]
    axis = _unit(end - start)
    length = np.linalg.norm(end - start, axis=-1)
    share = (np.arange(_ALONG) + 0.5) / _ALONG
    along = start[:, None] + share[:, None] * (end - start)[:, None]  # [R, P, 3]
    away = along - (along * axis[:, None]).sum(-1, keepdims=True) * axis[:, None]
    distance = np.linalg.norm(away, axis=-1, keepdims=True)
    sine = radius[:, None, None] / np.maximum(distance, 1e-6)
    cosine = np.sqrt(np.maximum(1.0 - sine**2, 0.0))
    back, side = -away / np.maximum(distance, 1e-6), _unit(np.cross(axis[:, None], along))
    touch = radius[:, None, None, None] * (
        sine[..., None, :] * back[..., None, :]
        + cosine[..., None, :] * np.stack([side, -side], axis=-2)
    )
    sides = (along[..., None, :] + touch).reshape(len(ends), -1, 3)
    middle = np.repeat(along, 2, axis=1)
    # Ends: the half of the touching circle that points away from the rod.
    caps, cap_middle = [], []
    angle = np.pi * ((np.arange(_AROUND) + 0.5) / _AROUND - 0.5)
    for centre, outward, half in ((start, -axis, -1.0), (end, axis, 1.0)):
        ray = _unit(centre)
        first = outward - (outward * ray).sum(-1, keepdims=True) * ray
        round_ = np.linalg.norm(first, axis=-1) < 1e-6
        first = np.where(
            round_[:, None], half * _unit(np.cross(ray, [0.0, 1.0, 0.0])), _unit(first)
        )
        second = np.cross(ray, first)
        turn = np.cos(angle)[:, None] * first[:, None] + np.sin(angle)[:, None] * second[:, None]
        sine = (radius / np.linalg.norm(centre, axis=-1))[:, None, None]
        ball = radius[:, None, None]
        caps.append(
            centre[:, None] - ball * sine * ray[:, None] + ball * np.sqrt(1 - sine**2) * turn
        )
        cap_middle.append(np.repeat(centre[:, None], _AROUND, axis=1))
    points = np.concatenate([sides, *caps], axis=1)
    inside = np.concatenate([middle, *cap_middle], axis=1)
    owner = np.repeat(np.arange(len(ends)), points.shape[1])
    has_side = np.ones(points.shape[:2], dtype=bool)
    has_side[length < 1e-6, : sides.shape[1]] = False
    flat = has_side.ravel()
    points, inside = points.reshape(-1, 3)[flat], inside.reshape(-1, 3)[flat]
    return points, _unit(_project(points) - _project(inside)), owner[flat]


def _hull(corners: Array) -> NDArray[np.int64]:
    """Return which corners of a box are its outline, in order round it."""
    pixels = _project(np.where(corners[:, 2:] > _NEAREST_M, corners, [0.0, 0.0, 1.0]))
    hull = cv2.convexHull(pixels.astype(np.float32), returnPoints=False)
    return np.asarray(hull[:, 0], dtype=np.int64)


def _along_hull(corners: Array, hull: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return points [N, 3] on a box's outline and their outward image normals [N, 2]."""
    first, second = corners[hull], corners[np.roll(hull, -1)]
    share = ((np.arange(_EDGE) + 0.5) / _EDGE)[:, None]
    points = first[:, None] + share * (second - first)[:, None]
    edge = _project(second) - _project(first)
    normal = _unit(np.stack([edge[:, 1], -edge[:, 0]], axis=-1))
    middle = _project(first).mean(axis=0)
    outward = np.sign(((_project(first) - middle) * normal).sum(-1, keepdims=True))
    return points.reshape(-1, 3), np.repeat(normal * outward, _EDGE, axis=0)


def _within_rods(
    pixels: Array, owner: NDArray[np.int64], ends: Array, radius: Array
) -> NDArray[np.bool_]:
    """Tell which pixels [N, 2] are well within the image of a rod that is not their own."""
    depth = np.maximum(ends[..., 2], _NEAREST_M)
    image = FOCAL_PX * ends[..., :2] / depth[..., None]
    start, along = image[:, 0], image[:, 1] - image[:, 0]
    offset = pixels[:, None] - start
    place = (offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
    place = np.clip(place, 0.0, 1.0)
    across = np.linalg.norm(offset - place[..., None] * along, axis=-1)
    at = depth[:, 0] + place * (depth[:, 1] - depth[:, 0])
    within = across < FOCAL_PX * radius / at - _INSIDE_PX
    within[np.arange(len(pixels)), np.minimum(owner, len(ends) - 1)] &= owner >= len(ends)
    return np.asarray(within.any(axis=1))


def _within_hull(pixels: Array, hull: Array) -> NDArray[np.bool_]:
    """Tell which pixels [N, 2] are well within a convex polygon [H, 2]."""
    edge = np.roll(hull, -1, axis=0) - hull
    normal = _unit(np.stack([edge[:, 1], -edge[:, 0]], axis=-1))
    middle = hull.mean(axis=0)
    normal *= np.sign(((hull - middle) * normal).sum(-1, keepdims=True))
    outside = ((pixels[:, None] - hull) * normal).sum(-1)
    return np.asarray((outside < -_INSIDE_PX).all(axis=1))
