# SPDX-License-Identifier: Apache-2.0
"""What the corners of a board that were found tell of its other corners: they are a plane grid."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration.boards import Board

Array = NDArray[np.float64]
_NEIGHBOURS = 9
_REACH = 2.3  # sides of a square within which corners are neighbours
_SPREAD = 0.6  # least extent of neighbours across their longest line, in sides of a square
_LEAST_ACROSS_PX = 5.0  # the narrow way across a square
_OFF_GRID = 0.2  # sides of a square by which corners may be off a plane grid, lens included
_OFF_NEIGHBOURS = 0.06  # the same, from where a corner's neighbours place it


class Square(NamedTuple):
    """How the board appears at a corner."""

    place: Array
    """Where the corner is [2], pixels."""
    sides: Array
    """A square's sides across and down, as columns [2, 2], pixels."""


def square_at(board: Board, known: dict[int, Array], index: int) -> Square | None:
    """Return how a corner should appear, by the plane through its nearest known ones.

    None where too few are known about it, or squares appear too small or too slanted.

    Args:
        known: pixels [2] by corner.
        index: of the corner.
    """
    ids = np.array(list(known))
    if len(ids) < 4:
        return None
    plane = board.points[ids, :2]
    here = board.points[index, :2]
    distance = np.linalg.norm(plane - here, axis=1)
    nearest = np.argsort(distance, kind="stable")[:_NEIGHBOURS]
    nearest = nearest[distance[nearest] <= _REACH * board.square_m]
    if len(nearest) < 4 or _extent(plane[nearest]) < _SPREAD * board.square_m:
        return None
    pixels = np.array([known[int(ids[place])] for place in nearest])
    homography, _ = cv2.findHomography(plane[nearest], pixels)
    if homography is None:
        return None
    around = here + board.square_m * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    mapped = np.column_stack([around, np.ones(3)]) @ homography.T
    if not (mapped[:, 2] > 0.0).all() and not (mapped[:, 2] < 0.0).all():
        return None
    seen = np.asarray(mapped[:, :2] / mapped[:, 2:], np.float64)
    sides = (seen[1:] - seen[0]).T
    longest = max(float(np.linalg.norm(sides, axis=0).max()), _LEAST_ACROSS_PX)
    if not np.isfinite(longest) or abs(np.linalg.det(sides)) < _LEAST_ACROSS_PX * longest:
        return None
    return Square(seen[0], sides)


def consistent(board: Board, found: dict[int, Array]) -> dict[int, Array]:
    """Drop corners that are not where their neighbours say, the worst one first."""
    while True:
        errors: dict[int, float] = {}
        for index, pixel in found.items():
            others = {other: place for other, place in found.items() if other != index}
            square = square_at(board, others, index)
            if square is not None:
                side = float(np.linalg.norm(square.sides, axis=0).min())
                errors[index] = float(np.linalg.norm(square.place - pixel)) / side
        worst = max(errors, key=errors.__getitem__, default=None)
        if worst is None or errors[worst] <= _OFF_NEIGHBOURS:
            return found
        found = {index: pixel for index, pixel in found.items() if index != worst}


def lies_on_grid(board: Board, ids: NDArray[np.intp], pixels: Array) -> bool:
    """Tell whether corners lie as on a plane board, up to what a lens bends."""
    plane = board.points[ids, :2]
    if _extent(plane) < _SPREAD * board.square_m:
        return False
    homography, _ = cv2.findHomography(plane, pixels, cv2.LMEDS)
    if homography is None:
        return False
    back = cv2.perspectiveTransform(pixels[:, None], np.linalg.inv(homography))[:, 0]
    return bool(np.median(np.linalg.norm(back - plane, axis=1)) <= _OFF_GRID * board.square_m)


def _extent(plane: Array) -> float:
    """Return how far points [N, 2] extend across the longest line through them."""
    return float(np.linalg.svd(plane - plane.mean(axis=0), compute_uv=False)[-1])
