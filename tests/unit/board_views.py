# SPDX-License-Identifier: Apache-2.0
"""Views of a board by projection alone, for tests that need many and no pictures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from board_sessions import TWIN, Format, draw_pair, held_boards
from twinloop.perception.calibration.boards import Board
from twinloop.perception.calibration.detection import LEAST_CORNERS, Detection
from twinloop.perception.calibration.views import View
from twinloop.perception.camera_model import CameraModel, StereoModel


def seen(
    board: Board, camera: CameraModel, pose: np.ndarray, rng: np.random.Generator, noise_px: float
) -> Detection | None:
    """What a camera sees of a board with a pose [4, 4] in its frame."""
    pixels = camera.project(board.points @ pose[:3, :3].T + pose[:3, 3])
    width, height = camera.size
    inside = ((pixels > 4) & (pixels < [width - 5, height - 5])).all(axis=1)
    if inside.sum() < LEAST_CORNERS:
        return None
    noisy = pixels[inside] + rng.normal(0.0, noise_px, (int(inside.sum()), 2))
    return Detection(np.flatnonzero(inside), noisy, camera.size)


def pair_views(
    board: Board,
    pair: StereoModel,
    poses: Iterable[np.ndarray],
    rng: np.random.Generator,
    noise_px: float = 0.02,
) -> list[View]:
    """Views by both eyes of a board with poses [4, 4] in the left eye's frame."""
    right = pair.right_from_left()
    return [
        View(
            f"{index:02d}",
            (
                seen(board, pair.left, pose, rng, noise_px),
                seen(board, pair.right, right @ pose, rng, noise_px),
            ),
        )
        for index, pose in enumerate(poses)
    ]


def held_views(
    board: Board,
    count: int = 30,
    seed: int = 0,
    form: Format = TWIN,
    noise_px: float = 0.02,
    **held: object,
) -> tuple[StereoModel, list[View]]:
    """A pair of cameras, and views of a board that somebody holds up."""
    rng = np.random.default_rng(seed)
    pair = draw_pair(form, rng)
    hands = held_boards(board, pair, rng, **held)
    poses = [next(hands) for _ in range(count)]
    return pair, pair_views(board, pair, poses, rng, noise_px)
