# SPDX-License-Identifier: Apache-2.0
"""Boards and their corners in pictures."""

from __future__ import annotations

import re
from functools import cache

import cv2
import numpy as np
import pytest
from board_sessions import TWIN, draw_pair
from rendered_boards import BoardPrint, Camera, draw_optics
from twinloop.perception.calibration.boards import Charuco, Chessboard, parse_board
from twinloop.perception.calibration.detection import describe_unseen, detect
from twinloop.perception.calibration.views import transform

CHARUCO = "charuco:6x4:40:28"
CHESSBOARD = "chessboard:9x6:22"


@cache
def camera() -> Camera:
    return Camera(draw_pair(TWIN, np.random.default_rng(0)).left, TWIN.samples)


def picture(text: str, turn_deg=(20.0, -15.0, 8.0), place=(0.06, 0.0, 0.4), seed=0):
    """A picture by the left eye, and the pixels of all corners of the board."""
    rng = np.random.default_rng(seed)
    board, eye = parse_board(text), camera()
    pose = transform(np.radians(turn_deg), place)
    pose = pose @ transform(np.zeros(3), -board.points.mean(axis=0))
    pixels = eye.model.project(board.points @ pose[:3, :3].T + pose[:3, 3])
    return eye.take(BoardPrint(board), pose, draw_optics(rng), rng), pixels


@pytest.mark.parametrize(
    "text",
    [
        "chessboard:9x6:25",
        "charuco:8x5:34:24.5",
        "charuco:8x5:34:24:DICT_5X5_100",
        "charuco:8x6:34:24:DICT_4X4_50:legacy",
    ],
)
def test_a_board_is_named_by_what_it_was_named(text: str) -> None:
    assert parse_board(text).text == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chessboard:9x6", "inner corners across"),
        ("chessboard:9x6:25:18", "inner corners across"),
        ("charuco:8x5:34", "inner corners across"),
        ("circles:8x5:34", "inner corners across"),
        ("chessboard:7x7:25", "four ways"),
        ("chessboard:2x7:25", "expected 3 to 50"),
        ("chessboard:9x6:0", "side of a square is 0 mm"),
        ("charuco:8x5:34:34", "no white"),
        ("charuco:8x5:34:25:DICT_OF_MINE", "DICT_4X4_50"),
        ("charuco:12x10:34:25", "needs 60 markers, DICT_4X4_50 has 50"),
    ],
)
def test_a_text_that_names_no_board_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_board(text)


def test_an_opencv_without_charuco_boards_says_what_to_install(monkeypatch) -> None:
    monkeypatch.delattr(cv2.aruco, "CharucoDetector")
    with pytest.raises(RuntimeError, match="need OpenCV 4.7 or newer"):
        parse_board(CHARUCO)
    assert isinstance(parse_board(CHESSBOARD), Chessboard)


@pytest.mark.parametrize("text", [CHARUCO, "charuco:5x6:30:20:DICT_4X4_50:legacy"])
def test_corners_are_where_opencv_has_them(text: str) -> None:
    board = parse_board(text)
    assert isinstance(board, Charuco)
    np.testing.assert_allclose(board.points, board.opencv.getChessboardCorners(), atol=1e-7)


@pytest.mark.parametrize("text", [CHARUCO, CHESSBOARD])
def test_all_corners_are_found_to_a_few_hundredths_of_a_pixel(text: str) -> None:
    image, pixels = picture(text)
    found = detect(parse_board(text), image)
    assert found is not None
    assert found.size == TWIN.size
    assert len(found.ids) == len(pixels)
    error = found.pixels - pixels
    if text is CHESSBOARD and np.abs(error).max() > 5.0:  # it looks alike upside down
        error = found.pixels[::-1] - pixels
    assert np.sqrt((error**2).mean()) < 0.03


def test_of_a_charuco_board_a_part_is_enough() -> None:
    image, pixels = picture(CHARUCO, place=(-0.14, -0.05, 0.35))
    found = detect(parse_board(CHARUCO), image)
    assert found is not None
    assert 8 <= len(found.ids) < len(pixels)
    assert np.abs(found.pixels - pixels[found.ids]).max() < 0.1


@pytest.mark.parametrize("text", [CHARUCO, CHESSBOARD])
def test_a_picture_without_a_board_has_no_corners(text: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (180, 280)).astype(np.uint8)
    assert detect(parse_board(text), noise) is None
    assert detect(parse_board(text), np.full((180, 280, 3), 90, np.uint8)) is None


@pytest.mark.parametrize(
    ("shown", "named", "says"),
    [
        (CHESSBOARD, "chessboard:7x6:22", "shows a chessboard of 9 x 6 inner corners, 7 x 6"),
        (CHARUCO, "charuco:5x4:40:28", "shows marker 1[01], .* has 0 to 9"),
        (CHARUCO, "charuco:6x4:40:28:DICT_6X6_50", "no marker of DICT_6X6_50"),
        (CHARUCO, "charuco:6x4:40:28:DICT_4X4_50:legacy", f"name it {CHARUCO}$"),
        (CHARUCO, "charuco:8x4:40:28", "too few or misplaced"),
    ],
)
def test_another_board_is_not_found_and_said_to_be_another(shown, named, says) -> None:
    image, _ = picture(shown, turn_deg=(5.0, 5.0, 3.0))
    board = parse_board(named)
    assert detect(board, image) is None
    assert re.search(says, describe_unseen(board, image))


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 8 bits"):
        detect(parse_board(CHARUCO), np.zeros((180, 280), np.float32))
