# SPDX-License-Identifier: Apache-2.0
"""Finds balls in the tray by their outlines, whatever their colour.

A ball at rest in the tray lies on its floor, so its outline is known up to where along the channel
it is. Outlines are laid over the image at every such place; where enough of one lies on edges that
run along it, a sphere of known radius is fitted to these edges.

::

    finder = TrayFinder(camera)              # calibrated; where it stands is in the URDF
    sight = finder.find(image)               # RGB [H, W, 3]
    sight.balls[0].position                  # the one nearest to the end board, world, m
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.camera_model import CameraModel
from twinloop.perception.tray_shape import TrayShape
from twinloop.perception.tray_shape import tray_shape as read_shape

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_ALONG_M, _ACROSS_M = 0.002, (-0.004, 0.0, 0.004)  # places that outlines are tried at
_POINTS = 72  # of an outline
_BLUR_PX = 1.0
_LEAST_EDGE = 5.0  # levels per pixel
_ALIGNED = 0.8  # cosine between an edge's direction and the outline's
_LEAST_SUPPORT = 0.7  # of a ball's outline
_LEAST_TRAY = 0.5  # of the tray's own edges
_REACH_PX, _STEP_PX = 4.0, 0.5  # that edges are looked for about an outline
_APART = 1.7  # radii between two balls' centres at least
_RADIUS_TOLERANCE = 0.10
_OFF_M = 0.0015  # of an edge from a fitted sphere
_ROUNDS = 12


class TrayOutcome(StrEnum):
    """What a look into the tray came to."""

    BALLS = "balls"
    EMPTY = "empty"
    BLOCKED = "blocked"  # the tray itself is not to be seen


@dataclass(frozen=True)
class TrayBall:
    """A ball in the tray.

    Attributes:
        position: centre [3], m, world.
        radius_m: as large as it looks at that distance.
        confidence: share of its outline that is seen, 0 to 1.
    """

    position: Array
    radius_m: float
    confidence: float


@dataclass(frozen=True)
class TraySight:
    """What is seen of the tray.

    Attributes:
        outcome: whether there are balls.
        balls: nearest to the end board first.
        visible: share of the tray's own edges that is seen, 0 to 1.
    """

    outcome: TrayOutcome
    balls: tuple[TrayBall, ...]
    visible: float


class TrayFinder:
    """Looks for balls in images of one camera.

    Args:
        camera: its calibration.
        radius_m: of the balls.
        side: of the hand, for its URDF.
        shape: where tray and camera are; default: as the URDF has them.
    """

    def __init__(
        self,
        camera: CameraModel,
        radius_m: float = 0.028,
        side: str = "right",
        shape: TrayShape | None = None,
    ) -> None:
        self.camera = camera
        self.radius_m = radius_m
        self.shape = shape or read_shape(side)
        self._eye_from_world = np.linalg.inv(self.shape.camera)
        places = self.shape.places(radius_m, _ALONG_M, _ACROSS_M)
        self._centres = self._seen(places)  # [K, 3]
        self._outlines, self._normals = self._outline(self._centres)  # [K, P, 2]
        self._edges, self._edge_normals = self._tray_edges()

    def find(self, image: Image) -> TraySight:
        """Return what is in the tray.

        Raises:
            ValueError: an image of another size or type than the camera's.
        """
        width, height = self.camera.size
        if image.dtype != np.uint8 or image.shape != (height, width, 3):
            raise ValueError(
                f"{self.camera.name} image is {image.dtype} {list(image.shape)}, expected uint8 "
                f"{[height, width, 3]}, as its calibration has it"
            )
        gradient = _gradient(image)
        visible = float(_support(gradient, self._edges, self._edge_normals).mean())
        if visible < _LEAST_TRAY:
            return TraySight(TrayOutcome.BLOCKED, (), visible)
        score = _support(gradient, self._outlines, self._normals).mean(axis=-1)
        balls: list[TrayBall] = []
        while score.max() >= _LEAST_SUPPORT:
            best = int(np.argmax(score))
            ball = self._fit(gradient, best, float(score[best]))
            near = np.linalg.norm(self._centres - self._centres[best], axis=-1)
            if ball is None:
                score[near < 0.25 * self.radius_m] = 0.0
                continue
            balls.append(ball)
            centre = self._seen(ball.position)
            near = np.linalg.norm(self._centres - centre, axis=-1)
            score[near < _APART * self.radius_m] = 0.0
            score[best] = 0.0
        balls.sort(key=lambda ball: self.shape.along(ball.position))
        outcome = TrayOutcome.BALLS if balls else TrayOutcome.EMPTY
        return TraySight(outcome, tuple(balls), visible)

    def _fit(self, gradient: Array, index: int, confidence: float) -> TrayBall | None:
        """Fit a sphere to the edges near an outline; None where none of the right size fits.

        A ray along the unit vector d touches a sphere of radius R about c where
        |c|² - (c·d)² = R².
        """
        points = _edge_points(gradient, self._outlines[index], self._normals[index])
        if len(points) < _POINTS // 3:
            return None
        rays = self.camera.rays(points)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        centre, on = self._centres[index], np.ones(len(rays), dtype=np.bool_)
        for round_ in range(_ROUNDS):
            along = rays @ centre
            off = np.sqrt(np.maximum(centre @ centre - along**2, 1e-12))
            error = off - self.radius_m
            tolerance = max(_OFF_M, 0.006 * 0.7**round_)
            on = np.abs(error) < tolerance
            if on.sum() < _POINTS // 3:
                return None
            slope = (centre - along[:, None] * rays) / off[:, None]
            centre = centre - np.linalg.lstsq(slope[on], error[on], rcond=None)[0]
        # How far it is says the floor, more sharply than its size does; the size has to agree.
        eye = self.shape.camera
        on_floor = self.shape.on_floor(eye[:3, 3], eye[:3, :3] @ centre, self.radius_m)
        distance = float(np.linalg.norm(on_floor - eye[:3, 3]))
        radius_m = self.radius_m * distance / float(np.linalg.norm(centre))
        if abs(radius_m / self.radius_m - 1.0) > _RADIUS_TOLERANCE:
            return None
        if not self.shape.holds(on_floor, self.radius_m):
            return None
        return TrayBall(on_floor, radius_m, confidence)

    def _seen(self, points: Array) -> Array:
        """World points [..., 3] in the camera's optical frame."""
        return np.asarray(points @ self._eye_from_world[:3, :3].T + self._eye_from_world[:3, 3])

    def _outline(self, centres: Array) -> tuple[Array, Array]:
        """Return pixels [K, P, 2] of spheres' outlines, and the outlines' normals there."""
        distance = np.linalg.norm(centres, axis=-1, keepdims=True)
        axis = centres / distance
        first = np.cross(axis, [0.0, 1.0, 0.0])
        first /= np.linalg.norm(first, axis=-1, keepdims=True)
        second = np.cross(axis, first)
        angle = np.linspace(0.0, 2.0 * np.pi, _POINTS, endpoint=False)[:, None]
        around = np.cos(angle) * first[:, None] + np.sin(angle) * second[:, None]
        sine = (self.radius_m / distance)[:, None]
        middle = centres[:, None] * (1.0 - sine**2)
        radius = self.radius_m * np.sqrt(1.0 - sine**2)
        pixels = self.camera.project(middle + radius * around)
        outer = self.camera.project(middle + (radius + 0.001) * around)
        normal = outer - pixels
        return pixels, normal / np.linalg.norm(normal, axis=-1, keepdims=True)

    def _tray_edges(self) -> tuple[Array, Array]:
        """Return pixels [E, 2] along the tray's upper edges, and normals there."""
        pixels, normals = [], []
        for start, end in self.camera.project(self._seen(self.shape.edges)):
            way = end - start
            length = float(np.linalg.norm(way))
            count = max(2, int(length / 2.0))
            shares = (np.arange(count) + 0.5) / count
            pixels.append(start + shares[:, None] * way)
            normals.append(np.tile([-way[1] / length, way[0] / length], (count, 1)))
        return np.concatenate(pixels), np.concatenate(normals)


def _gradient(image: Image) -> Array:
    """Return the gradient [H, W, 2] of the channel where it is steepest, levels per pixel."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _BLUR_PX)
    # Scharr's kernel sums to 32 levels for a slope of one level per pixel.
    x = cv2.Scharr(smooth, cv2.CV_32F, 1, 0) / 32.0
    y = cv2.Scharr(smooth, cv2.CV_32F, 0, 1) / 32.0
    steepest = np.argmax(x**2 + y**2, axis=-1)[..., None]
    both = [np.take_along_axis(part, steepest, axis=-1) for part in (x, y)]
    return np.concatenate(both, axis=-1).astype(np.float64)


def _sample(gradient: Array, points: Array) -> Array:
    """Return gradients [..., 2] at pixels [..., 2]; zero outside the image."""
    x, y = np.moveaxis(points.reshape(-1, 1, 2).astype(np.float32), -1, 0)
    found = cv2.remap(
        gradient.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(found, dtype=np.float64).reshape(points.shape)


def _support(gradient: Array, points: Array, normals: Array) -> NDArray[np.bool_]:
    """Return whether an edge runs along the outline at points [..., 2], give or take a pixel."""
    found = np.zeros(points.shape[:-1], dtype=np.bool_)
    for shift in (-1.0, 0.0, 1.0):
        at = _sample(gradient, points + shift * normals)
        across = np.abs((at * normals).sum(axis=-1))
        found |= (across > _LEAST_EDGE) & (across > _ALIGNED * np.linalg.norm(at, axis=-1))
    return found


def _edge_points(gradient: Array, points: Array, normals: Array) -> Array:
    """Return pixels [N, 2] of the strongest edges across an outline's points [P, 2]."""
    reach = np.arange(-_REACH_PX, _REACH_PX + _STEP_PX / 2, _STEP_PX)
    lines = points[:, None] + reach[:, None] * normals[:, None]
    at = _sample(gradient, lines)
    across = np.abs((at * normals[:, None]).sum(axis=-1))
    across[across < _ALIGNED * np.linalg.norm(at, axis=-1)] = 0.0
    # Nearer edges are likelier to be the ball's.
    weighted = across * np.exp(-0.5 * (reach / (0.6 * _REACH_PX)) ** 2)
    best = np.argmax(weighted, axis=1)
    rows = np.arange(len(points))
    good = (across[rows, best] > _LEAST_EDGE) & (best > 0) & (best < len(reach) - 1)
    rows, best = rows[good], best[good]
    before, here, after = (across[rows, best + step] for step in (-1, 0, 1))
    bend = before - 2.0 * here + after
    finer = np.where(bend < 0.0, 0.5 * (before - after) / np.minimum(bend, -1e-9), 0.0)
    offset = reach[best] + _STEP_PX * np.clip(finer, -0.5, 0.5)
    return np.asarray(points[rows] + offset[:, None] * normals[rows])
