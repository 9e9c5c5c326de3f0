# SPDX-License-Identifier: Apache-2.0
"""Pictures of calibration boards as a small, imperfect camera takes them.

Every pixel is an area: its rays, many a pixel, meet the plane of the board exactly, through the
lens's distortion. Then come blur of lens and motion, vignetting, uneven light, the camera's
response, noise that grows with light, and 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from twinloop.perception.calibration.boards import Board, Charuco
from twinloop.perception.camera_model import CameraModel

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
_MARGIN = 1.0  # white around the squares, in sides of a square
_RAYS_AT = 8  # pixels between rays that are computed exactly; between them they are interpolated


@dataclass(frozen=True)
class Optics:
    """What a camera does to a picture besides projecting it.

    Attributes:
        blur_px: standard deviation of the lens's blur, pixels.
        motion_px: length of the motion during the exposure, pixels.
        motion_rad: its direction.
        vignetting: light lost in the corners, as a share.
        exposure: grey value of white paper.
        black: grey value of black ink.
        gamma: the camera's response is light to the power of 1 / gamma.
        slope: light that is lost or won from the middle of the picture to its rim, as a share, to
            the right and down.
        read_noise: standard deviation in the dark, grey values.
        shot_noise: standard deviation at full scale that light adds, grey values.
    """

    blur_px: float = 0.7
    motion_px: float = 0.2
    motion_rad: float = 0.0
    vignetting: float = 0.3
    exposure: float = 200.0
    black: float = 30.0
    gamma: float = 2.2
    slope: tuple[float, float] = (0.1, -0.1)
    read_noise: float = 1.5
    shot_noise: float = 3.0


def draw_optics(rng: np.random.Generator, harshness: float = 1.0) -> Optics:
    """Return the optics of one picture.

    Args:
        harshness: of blur, motion and noise; 1 is a usual small camera in a lit room.
    """
    return Optics(
        blur_px=harshness * rng.uniform(0.5, 1.0),
        motion_px=harshness * rng.uniform(0.0, 0.6),
        motion_rad=rng.uniform(0.0, np.pi),
        vignetting=rng.uniform(0.1, 0.4),
        exposure=rng.uniform(140.0, 230.0),
        black=rng.uniform(15.0, 45.0),
        gamma=rng.uniform(1.0, 2.2),
        slope=(rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3)),
        read_noise=harshness * rng.uniform(1.0, 2.5),
        shot_noise=harshness * rng.uniform(2.0, 4.0),
    )


class BoardPrint:
    """A printed board, as light that its paper returns: 0 black to 1 white.

    Args:
        board: what is printed, with a white margin.
        pixels_per_square: resolution of the print.
    """

    def __init__(self, board: Board, pixels_per_square: int = 240) -> None:
        across, down = board.squares
        size = (across * pixels_per_square, down * pixels_per_square)
        if isinstance(board, Charuco):
            pattern = board.opencv.generateImage(size, marginSize=0).astype(np.float32) / 255.0
            origin = np.zeros(2)
        else:
            y, x = np.mgrid[: size[1], : size[0]] // pixels_per_square
            pattern = ((x + y) % 2).astype(np.float32)
            origin = np.full(2, -board.square_m)
        pad = round(_MARGIN * pixels_per_square)
        white = cv2.copyMakeBorder(pattern, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=1.0)
        self.texture = np.asarray(white, np.float32)
        self.pixels_per_m = pixels_per_square / board.square_m
        self.corner_m = origin - _MARGIN * board.square_m
        """Place of the paper's corner in the board frame [2], m."""

    @property
    def size_m(self) -> Array:
        """Width and height of the paper, m."""
        return np.array(self.texture.shape[::-1]) / self.pixels_per_m


class Camera:
    """Takes pictures of a print through a lens.

    Args:
        model: the lens.
        samples: rays a pixel, in each direction.
    """

    def __init__(self, model: CameraModel, samples: int = 6) -> None:
        self.model = model
        self._samples = samples
        width, height = model.size
        # Centres of the samples: those of pixel 0 are spread over -0.5 to 0.5.
        x = (np.arange(width * samples) + 0.5) / samples - 0.5
        y = (np.arange(height * samples) + 0.5) / samples - 0.5
        coarse_x = np.linspace(x[0], x[-1], width // _RAYS_AT + 2)
        coarse_y = np.linspace(y[0], y[-1], height // _RAYS_AT + 2)
        grid = np.stack(np.meshgrid(coarse_x, coarse_y), axis=-1)
        plane = _plane(model, grid)
        self._rays = _interpolated(plane, coarse_x, coarse_y, x, y).astype(np.float32)
        centre = (np.array(model.size) - 1) / 2
        v, u = np.mgrid[:height, :width]
        self._place = np.stack([u, v], axis=-1) / centre - 1.0  # -1 to 1
        self._radius2 = ((u - centre[0]) ** 2 + (v - centre[1]) ** 2) / (centre @ centre)

    def take(
        self, paper: BoardPrint, pose: Array, optics: Optics, rng: np.random.Generator
    ) -> Image:
        """Return a grey picture [H, W] of a print.

        Args:
            pose: turns points of the board frame into the camera's optical frame [4, 4], m.
        """
        light = self._light(paper, pose, _backdrop(self.model.size, rng))
        light = _blurred(light, optics)
        light = light * (1.0 - optics.vignetting * self._radius2**2)
        light = light * (1.0 + self._place @ np.array(optics.slope))
        response = np.clip(light, 0.0, None) ** (1.0 / optics.gamma)
        grey = optics.black + (optics.exposure - optics.black) * response
        sigma = np.hypot(
            optics.read_noise, optics.shot_noise * np.sqrt(np.clip(grey, 0, None) / 255)
        )
        grey = grey + rng.normal(size=grey.shape) * sigma
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)

    def _light(self, paper: BoardPrint, pose: Array, backdrop: Array) -> Array:
        """Return the share of light [H, W] that each pixel's area gets."""
        width, height = self.model.size
        # From (x/z, y/z, 1) to places on the print: the inverse of the plane's homography.
        to_plane = np.linalg.inv(pose[:3, [0, 1, 3]])
        to_print = np.array(
            [
                [paper.pixels_per_m, 0.0, -paper.corner_m[0] * paper.pixels_per_m - 0.5],
                [0.0, paper.pixels_per_m, -paper.corner_m[1] * paper.pixels_per_m - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )
        matrix = (to_print @ to_plane).astype(np.float32)
        x, y = self._rays[..., 0], self._rays[..., 1]
        w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
        u = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / w
        v = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / w
        found = cv2.remap(
            paper.texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-1.0
        )
        # The plane behind the camera shows nothing.
        found[~(w > 0.0)] = -1.0
        is_paper = (found >= 0.0).astype(np.float32)
        size = (width, height)
        share = cv2.resize(is_paper, size, interpolation=cv2.INTER_AREA)
        light = cv2.resize(np.maximum(found, 0.0), size, interpolation=cv2.INTER_AREA)
        return light + (1.0 - share) * backdrop


def _backdrop(size: tuple[int, int], rng: np.random.Generator) -> Array:
    """Return a room out of focus [H, W]."""
    coarse = rng.uniform(0.05, 0.9, (5, 7)).astype(np.float32)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).clip(0.0, 1.0)


def _blurred(light: Array, optics: Optics) -> Array:
    blurred = cv2.GaussianBlur(light, (0, 0), optics.blur_px)
    if optics.motion_px <= 0.0:
        return blurred
    # A motion over a length L widens the blur along it by a variance of L^2 / 12.
    direction = np.array([np.cos(optics.motion_rad), np.sin(optics.motion_rad)])
    reach = 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.zeros((3, 3))
    for step in np.linspace(-0.5, 0.5, 9) * optics.motion_px:
        at = step * direction
        kernel += np.clip(1 - abs(x - at[0]), 0, 1) * np.clip(1 - abs(y - at[1]), 0, 1) / 9
    return cv2.filter2D(blurred, -1, kernel)


def _plane(model: CameraModel, pixels: Array) -> Array:
    """Return (x/z, y/z) [..., 2] of raw pixels, iterated until it is exact in the corners too."""
    flat = pixels.reshape(-1, 1, 2)
    until = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 200, 1e-10)
    found = cv2.undistortPointsIter(flat, model.k, model.d, np.eye(3), np.eye(3), until)
    return found.reshape(pixels.shape)


def _interpolated(plane: Array, cx: Array, cy: Array, x: Array, y: Array) -> Array:
    """Interpolate a field [h, w, 2] given at cx, cy to all x, y, cubically."""
    u = (x - cx[0]) / (cx[1] - cx[0])
    v = (y - cy[0]) / (cy[1] - cy[0])
    return _spline(_spline(plane, v, 0), u, 1)


def _spline(values: Array, at: Array, axis: int) -> Array:
    """Catmull-Rom interpolation along an axis, with its ends continued linearly."""
    moved = np.moveaxis(values, axis, 0)
    padded = np.concatenate([[2 * moved[0] - moved[1]], moved, [2 * moved[-1] - moved[-2]]])
    index = np.clip(np.floor(at).astype(int), 0, len(moved) - 2)
    t = at - index
    weights = np.stack(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1.0 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2.0 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ]
    )
    matrix = np.zeros((len(at), len(padded)))
    for offset, weight in enumerate(weights):
        matrix[np.arange(len(at)), index + offset] = weight
    return np.moveaxis(np.tensordot(matrix, padded, axes=1), 0, axis)
