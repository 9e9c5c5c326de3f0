# SPDX-License-Identifier: Apache-2.0
"""Finding the corners of a board in a picture, to a few hundredths of a pixel.

OpenCV finds the board. Where a picture is small or a marker cannot be read, more corners are found
from their neighbours; every corner is then refined (`saddle`), and must look like one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration import saddle
from twinloop.perception.calibration.boards import Board, Charuco, Chessboard
from twinloop.perception.calibration.grid import consistent, lies_on_grid, square_at

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
LEAST_CORNERS = 8
_SMALL_PX = 640  # pictures narrower than this are enlarged for the search


@dataclass(frozen=True)
class Detection:
    """Corners of a board in one picture.

    Attributes:
        ids: index of each corner among the board's points [N].
        pixels: where it is [N, 2], the centre of a pixel having whole numbers.
        size: width and height of the picture, pixels.
    """

    ids: NDArray[np.intp]
    pixels: Array
    size: tuple[int, int]


def as_grey(image: NDArray[Any]) -> Image:
    """Return the brightness of a picture [H, W] or [H, W, 3] of 8 bits.

    Raises:
        ValueError: it is not such a picture, or empty.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(
            f"picture is {image.dtype} {list(image.shape)}, expected 8 bits and height x width, "
            "of one or three colours"
        )
    if image.ndim == 2:
        return np.ascontiguousarray(image, np.uint8)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), np.uint8)


def detect(board: Board, image: NDArray[Any]) -> Detection | None:
    """Return the corners of a board, or None where it is not seen.

    A chessboard must be seen whole; of a ChArUco board a part is enough.

    Raises:
        ValueError: the image is no picture, see `as_grey`.
    """
    grey = as_grey(image)
    size = (grey.shape[1], grey.shape[0])
    if isinstance(board, Charuco):
        # Readings that may be wrong are taken only where those that are sure do not suffice.
        for is_lenient in (False, True):
            seeds = _charuco_corners(board, grey, is_lenient)
            found = consistent(board, _grown(board, grey, seeds))
            if len(found) >= LEAST_CORNERS:
                break
    else:
        found = _chessboard_corners(board, grey)
    if len(found) < LEAST_CORNERS:
        return None
    ids = np.array(sorted(found), dtype=np.intp)
    pixels = np.array([found[index] for index in ids])
    if not lies_on_grid(board, ids, pixels):
        return None
    return Detection(ids, pixels, size)


def describe_unseen(board: Board, image: NDArray[Any]) -> str:
    """Say what a picture shows in which `detect` finds no board; empty where nothing is known."""
    grey = as_grey(image)
    if isinstance(board, Chessboard):
        seen, pattern = _chessboard_size(grey), (board.columns, board.rows)
        if seen is None or seen == (max(pattern), min(pattern)):
            return ""
        return (
            f"it shows a chessboard of {seen[0]} x {seen[1]} inner corners, "
            f"{pattern[0]} x {pattern[1]} were expected"
        )
    _, ids, _ = cv2.aruco.ArucoDetector(board.markers).detectMarkers(_enlarged(grey)[0])
    if ids is None or len(ids) == 0:
        return f"no marker of {board.dictionary} can be read in it"
    if ids.max() >= board.marker_count:
        return (
            f"it shows marker {ids.max()}, a board {board.text} has 0 to {board.marker_count - 1}: "
            "are the counts of squares right?"
        )
    other = Charuco(
        board.columns,
        board.rows,
        board.square_m,
        board.marker_m,
        board.dictionary,
        not board.legacy,
    )
    if detect(other, grey) is not None:
        return f"it shows a board of another age of OpenCV: name it {other.text}"
    return f"it shows {len(ids)} of the board's {board.marker_count} markers, too few or misplaced"


def _enlarged(grey: Image) -> tuple[Image, float]:
    """Return a picture large enough to read small markers in, and by how much it grew."""
    factor = min(4, max(1, round(_SMALL_PX / max(grey.shape))))
    if factor == 1:
        return grey, 1.0
    size = (grey.shape[1] * factor, grey.shape[0] * factor)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC), np.uint8), factor


def _chessboard_corners(board: Chessboard, grey: Image) -> dict[int, Array]:
    pattern = (board.columns, board.rows)
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE
    is_found, corners = cv2.findChessboardCornersSB(grey, pattern, flags=flags)
    if not is_found:
        return {}
    rough = dict(enumerate(np.asarray(corners, np.float64).reshape(-1, 2)))
    refined = _refined(board, grey, rough, rough)
    # A board that is seen whole has no corner to spare.
    return refined if len(refined) == len(rough) else {}


def _chessboard_size(grey: Image) -> tuple[int, int] | None:
    """Return the inner corners of whatever chessboard is there, the larger count first."""
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_LARGER
    is_found, _, meta = cv2.findChessboardCornersSBWithMeta(grey, (3, 3), flags)
    return (max(meta.shape), min(meta.shape)) if is_found else None


def _charuco_corners(board: Charuco, grey: Image, is_lenient: bool) -> dict[int, Array]:
    large, factor = _enlarged(grey)
    parameters = cv2.aruco.CharucoParameters()
    parameters.minMarkers = 1
    detector = cv2.aruco.CharucoDetector(board.opencv, parameters, _marker_settings(is_lenient))
    corners, ids, _, _ = detector.detectBoard(large)
    if ids is None or len(ids) == 0:
        return {}
    pixels = (np.asarray(corners, np.float64).reshape(-1, 2) + 0.5) / factor - 0.5
    rough = {int(index): pixel for index, pixel in zip(ids.ravel(), pixels, strict=True)}
    return _refined(board, grey, rough, rough)


def _marker_settings(is_lenient: bool) -> cv2.aruco.DetectorParameters:
    """Return settings that find markers a few pixels wide; lenient ones misread some."""
    parameters = cv2.aruco.DetectorParameters()
    parameters.adaptiveThreshWinSizeMin = 5
    parameters.adaptiveThreshWinSizeMax = 61
    parameters.adaptiveThreshWinSizeStep = 8
    parameters.minMarkerPerimeterRate = 0.02
    parameters.polygonalApproxAccuracyRate = 0.05
    parameters.perspectiveRemoveIgnoredMarginPerCell = 0.25
    parameters.perspectiveRemovePixelPerCell = 8
    if is_lenient:
        parameters.errorCorrectionRate = 1.0
        parameters.maxErroneousBitsInBorderRate = 0.5
    return parameters


def _grown(board: Charuco, grey: Image, known: dict[int, Array]) -> dict[int, Array]:
    """Find corners beside those that are known, as long as there are more."""
    if len(known) < 4:
        return {}
    while True:
        expected = {
            index: square.place
            for index in range(len(board.points))
            if index not in known
            and (square := square_at(board, known, index)) is not None
            and _is_inside(square.place, grey)
        }
        fresh = _refined(board, grey, expected, known | expected)
        if not fresh:
            return known
        known = known | fresh


def _refined(
    board: Board, grey: Image, rough: dict[int, Array], context: dict[int, Array]
) -> dict[int, Array]:
    """Return those of the corners that are corners of a chessboard, to sub-pixel.

    Args:
        rough: about where they are.
        context: corners that tell how large the squares are there.
    """
    squares = {index: square_at(board, context, index) for index in rough}
    sides = {index: square.sides for index, square in squares.items() if square is not None}
    known = list(sides)
    places = np.array([rough[index] for index in known]).reshape(-1, 2)
    shapes = np.array(list(sides.values())).reshape(-1, 2, 2)
    found = saddle.refine(grey, places, shapes, _clear_share(board))
    return {
        index: pixel
        for index, pixel, is_corner in zip(known, found.pixels, found.are_corners, strict=True)
        if is_corner
    }


def _clear_share(board: Board) -> float:
    """Return how far from a corner, in sides of a square, nothing else is printed."""
    if isinstance(board, Charuco):
        return (board.square_m - board.marker_m) / 2 / board.square_m
    return 1.0


def _is_inside(place: Array, grey: Image, margin: int = 4) -> bool:
    height, width = grey.shape
    return bool(
        margin <= place[0] <= width - 1 - margin and margin <= place[1] <= height - 1 - margin
    )
