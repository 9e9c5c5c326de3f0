# SPDX-License-Identifier: Apache-2.0
"""Calibration sessions as a person holds them, with what is true about the cameras.

Lenses, rigs and poses of boards are drawn at random; `rendered_boards` makes the pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rendered_boards import BoardPrint, Camera, draw_optics
from twinloop.perception.calibration.boards import Board
from twinloop.perception.calibration.bundle import Lens
from twinloop.perception.calibration.collecting import Shot
from twinloop.perception.calibration.stereo import rectified
from twinloop.perception.calibration.views import transform
from twinloop.perception.camera_model import StereoModel
from twinloop.perception.mount import mount_from_urdf
from twinloop.robots.description import hand_urdf
from twinloop.robots.hand24 import HAND24

Array = NDArray[np.float64]
Pictures = tuple[NDArray[np.uint8], NDArray[np.uint8]]
BASELINE_M = 0.12
MOUNT, CAMERA, PALM = "rh_forearm", "camera_left_optical", "rh_palm"
WRIST = ("rh_WRJ2", "rh_WRJ1")
EVERYWHERE = tuple(itertools.product(range(2), range(9)))


@dataclass(frozen=True)
class Format:
    """A camera's pictures.

    Attributes:
        size: width and height, pixels.
        focal: focal length, pixels.
        samples: rays a pixel, in each direction.
        harshness: of blur and noise, see `draw_optics`.
    """

    size: tuple[int, int]
    focal: float
    samples: int
    harshness: float = 1.0


TWIN = Format((280, 180), 242.0, 6)
VGA = Format((640, 480), 550.0, 4)
HARSH = replace(TWIN, harshness=2.0)


def draw_pair(form: Format, rng: np.random.Generator) -> StereoModel:
    """Return a stereo pair as it may have been built: lenses and their seats are never the same."""
    width, height = form.size
    lenses = []
    for _ in range(2):
        fx = form.focal * rng.uniform(0.95, 1.05)
        fy = fx * (1.0 + rng.normal(0.0, 1e-3))
        cx = (width - 1) / 2 + 0.02 * width * rng.normal()
        cy = (height - 1) / 2 + 0.02 * width * rng.normal()
        k = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        tangential = rng.normal(0.0, 1e-3, 2)
        d = np.array([rng.uniform(-0.25, 0.1), rng.uniform(-0.05, 0.08), *tangential, 0.0])
        lenses.append(Lens(k, d))
    beside = np.array([-BASELINE_M, 0.0, 0.0]) + rng.normal(0.0, 1e-3, 3)
    rig = transform(np.radians(rng.normal(0.0, 1.0, 3)), beside)
    return rectified((lenses[0], lenses[1]), rig, form.size)


class Room:
    """Two cameras and a print of a board."""

    def __init__(self, truth: StereoModel, board: Board, form: Format) -> None:
        self.truth = truth
        self.board = board
        self._paper = BoardPrint(board)
        self._harshness = form.harshness
        self._left = Camera(truth.left, form.samples)
        self._right = Camera(truth.right, form.samples)

    def take(self, pose: Array, rng: np.random.Generator) -> Pictures:
        """Return the pictures of both eyes; `pose` [4, 4] of the board in the left eye's frame."""
        optics = draw_optics(rng, self._harshness)
        there = self.truth.right_from_left() @ pose
        return (
            self._left.take(self._paper, pose, optics, rng),
            self._right.take(self._paper, there, optics, rng),
        )


def held_boards(
    board: Board,
    truth: StereoModel,
    rng: np.random.Generator,
    distance_m: tuple[float, float] = (0.35, 0.7),
    tilt_deg: tuple[float, float] = (0.0, 40.0),
    reach: float = 0.76,
    parts: Sequence[tuple[int, int]] = EVERYWHERE,
) -> Iterator[Array]:
    """Yield poses [4, 4] in the left eye's frame of a board that somebody holds up, without end.

    Args:
        distance_m: nearest and farthest.
        tilt_deg: least and greatest.
        reach: share of the picture's width and height over which the board's middle is moved.
        parts: eyes and ninths of their pictures, row by row, that the middle is moved through.
    """
    eyes = (np.eye(4), np.linalg.inv(truth.right_from_left()))
    lenses = (truth.left, truth.right)
    middle = board.points.mean(axis=0)
    order = rng.permutation(len(parts))
    for index in itertools.count():
        eye, part = parts[order[index % len(parts)]]
        cell = np.array([part % 3, part // 3])
        share = 0.5 + reach * ((cell + rng.uniform(0.0, 1.0, 2)) / 3 - 0.5)
        place = lenses[eye].rays(share * lenses[eye].size) * rng.uniform(*distance_m)
        # Sideways or to and fro, as people do.
        direction = 0.5 * np.pi * rng.integers(4) + rng.normal(0.0, 0.25)
        tilt = np.radians(rng.uniform(*tilt_deg))
        axis = np.array([np.cos(direction), np.sin(direction), 0.0])
        roll = np.radians(rng.uniform(-30.0, 30.0))
        pose = transform(tilt * axis, place) @ transform([0.0, 0.0, roll], np.zeros(3))
        yield eyes[eye] @ pose @ transform(np.zeros(3), -middle)


@dataclass(frozen=True)
class Recorded:
    """Pictures of both eyes, and the cameras that took them."""

    truth: StereoModel
    shots: list[Shot]


def record(board: Board, form: Format = TWIN, seed: int = 2) -> Recorded:
    """Take 28 pictures of a board that somebody holds up: some tilted, and all over the picture."""
    rng = np.random.default_rng(seed)
    truth = draw_pair(form, rng)
    room = Room(truth, board, form)
    tilted = held_boards(board, truth, rng, tilt_deg=(28.0, 40.0), reach=0.4)
    everywhere = held_boards(board, truth, rng, (0.33, 0.55), (0.0, 25.0))
    poses = [*itertools.islice(tilted, 10), *itertools.islice(everywhere, 18)]
    shots = [Shot(f"{index:02d}", room.take(pose, rng)) for index, pose in enumerate(poses)]
    return Recorded(truth, shots)


def draw_mount(rng: np.random.Generator) -> Array:
    """Return the left camera in the mount's frame [4, 4]: as drawn, give or take 5 mm and 2 deg."""
    nominal = mount_from_urdf(hand_urdf(), MOUNT, CAMERA).transform
    return nominal @ transform(np.radians(rng.normal(0.0, 2.0, 3)), rng.normal(0.0, 0.005, 3))


def draw_board_on_mount(board: Board, mount: Array, rng: np.random.Generator) -> Array:
    """Return a board on the mount [4, 4] that both eyes see, about where the palm would be."""
    turn = np.radians([rng.uniform(-25.0, 25.0), rng.uniform(-25.0, 25.0), rng.uniform(-15, 15)])
    place = np.array([BASELINE_M / 2, 0.0, 0.38]) + rng.normal(0.0, 0.015, 3)
    pose = transform(turn, place) @ transform(np.zeros(3), -board.points.mean(axis=0))
    return np.asarray(mount @ pose)


def draw_board_on_palm(board: Board, rng: np.random.Generator) -> Array:
    """Return a board that is taped onto the palm [4, 4], in the palm's frame."""
    # Into the board is into the palm, +y; its columns run along the fingers' width.
    flat = np.eye(4)
    flat[:3, :3] = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    place = np.array([0.005, -0.03, 0.06]) + rng.normal(0.0, 0.005, 3)
    turn = np.radians(rng.normal(0.0, 5.0, 3))
    pose = transform(np.zeros(3), place) @ flat @ transform(turn, np.zeros(3))
    return np.asarray(pose @ transform(np.zeros(3), -board.points.mean(axis=0)))


def draw_wrist(rng: np.random.Generator) -> Array:
    """Return positions of the wrist's two joints [2], rad, anywhere in their range."""
    columns = [HAND24.joint_names.index(name) for name in WRIST]
    return rng.uniform(HAND24.lower[columns], HAND24.upper[columns])
