# SPDX-License-Identifier: Apache-2.0
"""Whether views differ enough to tell a lens from a pose, and what to do where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration.boards import Board
from twinloop.perception.calibration.detection import Detection
from twinloop.perception.calibration.views import View, board_poses

Array = NDArray[np.float64]
COVERAGE_CELLS = (8, 6)
_COLUMNS, _ROWS = ("left", "middle", "right"), ("upper", "middle", "lower")


@dataclass(frozen=True)
class Wanted:
    """What a set of views must have.

    Attributes:
        views: that each eye sees the board in.
        pairs: that both eyes see it in.
        tilt_deg, tilted: least tilt of a tilted view, and how many are needed about each axis.
        distance_ratio: farthest by nearest distance of the board.
        corners: in each ninth of a picture.
    """

    views: int = 10
    pairs: int = 8
    tilt_deg: float = 20.0
    tilted: int = 3
    distance_ratio: float = 1.25
    corners: int = 4


ENOUGH = Wanted()


@dataclass(frozen=True)
class Spread:
    """How the views of one eye differ.

    Attributes:
        about_vertical_deg, about_horizontal_deg: tilt of the board about each axis of the picture,
            by view [V].
        distance_m: of the board's middle, by view [V].
        ninths: corners seen in each ninth of the picture [3, 3], rows first.
        coverage: share of the cells of a finer grid in which a corner was seen.
    """

    about_vertical_deg: Array
    about_horizontal_deg: Array
    distance_m: Array
    ninths: NDArray[np.intp]
    coverage: float


def guessed_lens(size: tuple[int, int]) -> Array:
    """Return the camera matrix [3, 3] of a lens nobody knows: a field of view of 58 degrees."""
    width, height = size
    focal = 0.9 * width
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def spread(
    board: Board, seen: Sequence[Detection], k: Array | None = None, d: Array | None = None
) -> Spread:
    """Measure how views of one eye differ; `k`, `d` of its lens, where they are known."""
    vertical, horizontal, distance = [], [], []
    for one in seen:
        lens = (guessed_lens(one.size), np.zeros(5)) if k is None or d is None else (k, d)
        pose = next(iter(board_poses(board, one, *lens)), None)
        if pose is None:
            continue
        normal = pose[:3, 2]
        vertical.append(np.degrees(np.arctan2(abs(normal[0]), abs(normal[2]))))
        horizontal.append(np.degrees(np.arctan2(abs(normal[1]), abs(normal[2]))))
        middle = pose[:3, :3] @ board.points.mean(axis=0) + pose[:3, 3]
        distance.append(np.linalg.norm(middle))
    return Spread(
        np.array(vertical),
        np.array(horizontal),
        np.array(distance),
        corner_counts(seen, (3, 3)),
        float((corner_counts(seen, COVERAGE_CELLS) > 0).mean()),
    )


def corner_counts(seen: Sequence[Detection], cells: tuple[int, int]) -> NDArray[np.intp]:
    """Return how many corners were seen in each cell of the picture [down, across].

    Args:
        cells: across and down.
    """
    counts = np.zeros((cells[1], cells[0]), dtype=np.intp)
    for one in seen:
        place = (one.pixels + 0.5) / one.size * cells
        x, y = np.clip(place.astype(int), 0, np.array(cells) - 1).T
        np.add.at(counts, (y, x), 1)
    return counts


def missing(
    board: Board,
    views: Sequence[View],
    eyes: Sequence[str],
    lenses: Sequence[tuple[Array, Array]] = (),
    wanted: Wanted = ENOUGH,
) -> list[str]:
    """Return what is missing, each with what to do; empty where the views will do.

    Args:
        eyes: names of the cameras, in the order that views have them.
        lenses: camera matrix and distortion of each, where they are known.
    """
    result: list[str] = []
    spreads: list[Spread] = []
    for eye, name in enumerate(eyes):
        seen = [view.seen[eye] for view in views]
        found = [one for one in seen if one is not None]
        known = lenses[eye] if lenses else (None, None)
        spreads.append(spread(board, found, *known))
        if len(found) < wanted.views:
            more = _count(wanted.views - len(found), "more view")
            result.append(
                f"the {name} eye sees the board in {len(found)} of {len(views)} views, "
                f"{wanted.views} are needed: take {more} with all of the board in sight"
            )
    if len(eyes) > 1:
        pairs = sum(None not in view.seen for view in views)
        if pairs < wanted.pairs:
            more = _count(wanted.pairs - pairs, "more view")
            result.append(
                f"both eyes see the board in {_count(pairs, 'view')}, {wanted.pairs} are needed: "
                f"take {more} with the board in the middle between them"
            )
    result += _missing_tilt(spreads, wanted)
    result += _missing_distance(spreads, wanted)
    for name, one in zip(eyes, spreads, strict=True):
        result += _missing_coverage(name, one, wanted)
    return result


def _missing_tilt(spreads: Sequence[Spread], wanted: Wanted) -> list[str]:
    result = []
    for axis, other in (("vertical", "sideways"), ("horizontal", "forwards and backwards")):
        angles = [getattr(one, f"about_{axis}_deg") for one in spreads]
        tilted = min((int((found >= wanted.tilt_deg).sum()) for found in angles), default=0)
        if tilted < wanted.tilted:
            more = _count(wanted.tilted - tilted, "more view")
            result.append(
                f"tilt the board {other}, by at least {wanted.tilt_deg:.0f} degrees about its "
                f"{axis} axis, in {more} (it is in {tilted}, {wanted.tilted} are needed)"
            )
    return result


def _missing_distance(spreads: Sequence[Spread], wanted: Wanted) -> list[str]:
    known = [one.distance_m for one in spreads if len(one.distance_m)]
    if not known:
        return []
    ratio = min(float(found.max() / found.min()) for found in known)
    if ratio >= wanted.distance_ratio:
        return []
    nearest = min(float(found.min()) for found in known)
    return [
        f"the board is always about {nearest:.2f} m away: bring it to "
        f"{nearest / wanted.distance_ratio:.2f} m or {nearest * wanted.distance_ratio:.2f} m too"
    ]


def _missing_coverage(name: str, one: Spread, wanted: Wanted) -> list[str]:
    empty = [
        _place(row, column)
        for row in range(3)
        for column in range(3)
        if one.ninths[row, column] < wanted.corners
    ]
    if not empty:
        return []
    return [f"move the board to where the {name} eye has seen little of it: {', '.join(empty)}"]


def _place(row: int, column: int) -> str:
    if row == column == 1:
        return "the middle"
    if row == 1:
        return f"the {_COLUMNS[column]}"
    if column == 1:
        return f"the {'top' if row == 0 else 'bottom'}"
    return f"the {_ROWS[row]} {_COLUMNS[column]}"


def _count(number: int, what: str) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return f"{words[number] if number < len(words) else number} {what}{'' if number == 1 else 's'}"
