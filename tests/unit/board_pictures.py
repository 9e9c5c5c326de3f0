# SPDX-License-Identifier: Apache-2.0
"""Rendered calibration sessions on disk, for tests of commands."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from board_sessions import TWIN, Room, draw_pair, held_boards
from twinloop.perception.calibration.boards import parse_board
from twinloop.perception.calibration.collecting import Shot
from twinloop.perception.camera_model import StereoModel

BOARD = "charuco:8x5:34:25"


@dataclass(frozen=True)
class Recorded:
    """Pictures of both eyes, and the cameras that took them."""

    truth: StereoModel
    shots: list[Shot]


def record(text: str = BOARD, seed: int = 2) -> Recorded:
    """Take 28 pictures of a board that somebody holds up: some tilted, and all over the picture."""
    rng = np.random.default_rng(seed)
    truth, board = draw_pair(TWIN, rng), parse_board(text)
    room = Room(truth, board, TWIN)
    tilted = held_boards(board, truth, rng, tilt_deg=(28.0, 40.0), reach=0.4)
    poses = [
        *itertools.islice(tilted, 10),
        *itertools.islice(held_boards(board, truth, rng, (0.33, 0.55), (0.0, 25.0)), 18),
    ]
    shots = [Shot(f"{index:02d}", room.take(pose, rng)) for index, pose in enumerate(poses)]
    return Recorded(truth, shots)


def save(shots: list[Shot], folder: Path) -> Path:
    """Write pictures as `left/` and `right/` of a folder."""
    for eye in ("left", "right"):
        (folder / eye).mkdir(parents=True)
    for shot in shots:
        for eye, image in zip(("left", "right"), shot.images, strict=True):
            cv2.imwrite(str(folder / eye / f"{shot.name}.png"), image)
    return folder
