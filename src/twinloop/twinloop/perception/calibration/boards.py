# SPDX-License-Identifier: Apache-2.0
"""Calibration boards: chessboards, and ChArUco boards, whose markers name every corner.

A board is named by a short text that is also printed on it:

    chessboard:9x6:25              inner corners across and down, side of a square in mm
    charuco:8x5:34:25              squares across and down, sides of a square and of a marker in mm
    charuco:8x5:34:25:DICT_5X5_50  with markers of another dictionary
    charuco:8x6:34:25:DICT_4X4_50:legacy   drawn by OpenCV before 4.6, whose even rows differ

Board frame: z = 0, x across, y down, z into the board for who looks at its print. The origin of a
chessboard is its first inner corner, that of a ChArUco board the outer corner of its first square.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DEFAULT_DICTIONARY = "DICT_4X4_50"
_MOST_SQUARES = 50
_FORM = re.compile(
    r"(?P<kind>chessboard|charuco):(?P<columns>\d{1,3})x(?P<rows>\d{1,3}):(?P<square>\d*\.?\d+)"
    r"(:(?P<marker>\d*\.?\d+)(:(?P<dictionary>\w+)(?P<legacy>:legacy)?)?)?"
)
_FORMS = (
    "chessboard:<inner corners across>x<down>:<square mm>, or "
    "charuco:<squares across>x<down>:<square mm>:<marker mm>[:<dictionary>]"
)


@dataclass(frozen=True)
class Chessboard:
    """A plain chessboard.

    Attributes:
        columns, rows: inner corners, across and down.
        square_m: side of a square, m.

    Raises:
        ValueError: there are too few or too many corners, or as many across as down, or a side is
            not positive.
    """

    columns: int
    rows: int
    square_m: float

    def __post_init__(self) -> None:
        _check_counts(self.text, self.columns, self.rows, 3)
        _check_side(self.text, "square", self.square_m)
        if self.columns == self.rows:
            raise ValueError(
                f"board {self.text}: as many corners across as down can be read in four ways; "
                "use a board with different counts, or a ChArUco board"
            )

    @property
    def text(self) -> str:
        """The board's name, see the head of this file."""
        return f"chessboard:{self.columns}x{self.rows}:{_millimetres(self.square_m)}"

    @cached_property
    def points(self) -> Array:
        """Corners in the board frame [columns * rows, 3], m, row by row."""
        return _grid(self.columns, self.rows, self.square_m)

    @property
    def squares(self) -> tuple[int, int]:
        """Squares across and down."""
        return self.columns + 1, self.rows + 1


@dataclass(frozen=True)
class Charuco:
    """A chessboard with a marker in each white square, of which a part can be seen too.

    Attributes:
        columns, rows: squares, across and down.
        square_m, marker_m: sides of a square and of a marker, m.
        dictionary: of the markers, named as OpenCV does.
        legacy: whether OpenCV before 4.6 drew it.

    Raises:
        ValueError: there are too few or too many squares for the dictionary, a side is not
            positive or does not fit, or an unknown dictionary.
        RuntimeError: this OpenCV is too old for ChArUco boards.
    """

    columns: int
    rows: int
    square_m: float
    marker_m: float
    dictionary: str = DEFAULT_DICTIONARY
    legacy: bool = False

    def __post_init__(self) -> None:
        _check_counts(self.text, self.columns, self.rows, 3)
        _check_side(self.text, "square", self.square_m)
        _check_side(self.text, "marker", self.marker_m)
        if self.marker_m >= 0.95 * self.square_m:
            raise ValueError(
                f"board {self.text}: markers of {1e3 * self.marker_m:g} mm leave no white around "
                f"them in squares of {1e3 * self.square_m:g} mm, expected at most 95%"
            )
        if not hasattr(cv2, "aruco") or not hasattr(cv2.aruco, "CharucoDetector"):
            raise RuntimeError(
                f"ChArUco boards need OpenCV 4.7 or newer, this is {cv2.__version__}: install it "
                "with 'pip install \"opencv-python-headless>=4.7\"', or use a chessboard"
            )
        if not self.dictionary.startswith("DICT_") or not hasattr(cv2.aruco, self.dictionary):
            known = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
            raise ValueError(
                f"board {self.text}: dictionary {self.dictionary!r}, expected one of {known}"
            )
        held = len(self.markers.bytesList)
        if self.marker_count > held:
            raise ValueError(
                f"board {self.text}: needs {self.marker_count} markers, {self.dictionary} has "
                f"{held}; name a larger dictionary, such as DICT_4X4_250"
            )

    @property
    def text(self) -> str:
        """The board's name, see the head of this file."""
        name = (
            f"charuco:{self.columns}x{self.rows}:{_millimetres(self.square_m)}:"
            f"{_millimetres(self.marker_m)}"
        )
        if self.legacy:
            return f"{name}:{self.dictionary}:legacy"
        return name if self.dictionary == DEFAULT_DICTIONARY else f"{name}:{self.dictionary}"

    @cached_property
    def points(self) -> Array:
        """Inner corners in the board frame [(columns - 1) * (rows - 1), 3], m, row by row."""
        origin = np.array([self.square_m, self.square_m, 0.0])
        return origin + _grid(self.columns - 1, self.rows - 1, self.square_m)

    @property
    def squares(self) -> tuple[int, int]:
        """Squares across and down."""
        return self.columns, self.rows

    @property
    def marker_count(self) -> int:
        return self.columns * self.rows // 2

    @cached_property
    def opencv(self) -> Any:
        """The board as OpenCV's `CharucoBoard`."""
        size = (self.columns, self.rows)
        board = cv2.aruco.CharucoBoard(size, self.square_m, self.marker_m, self.markers)
        board.setLegacyPattern(self.legacy)
        return board

    @property
    def markers(self) -> Any:
        """The dictionary as OpenCV has it."""
        return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))


Board = Chessboard | Charuco


def parse_board(text: str) -> Board:
    """Return the board that a text names, see the head of this file.

    Raises:
        ValueError: it names none.
        RuntimeError: this OpenCV is too old for it.
    """
    form = _FORM.fullmatch(text.strip())
    if form is None or (form["kind"] == "charuco") != (form["marker"] is not None):
        raise ValueError(f"board {text!r}, expected {_FORMS}")
    columns, rows, square_m = int(form["columns"]), int(form["rows"]), float(form["square"]) / 1e3
    if form["kind"] == "chessboard":
        return Chessboard(columns, rows, square_m)
    marker_m = float(form["marker"]) / 1e3
    dictionary = form["dictionary"] or DEFAULT_DICTIONARY
    return Charuco(columns, rows, square_m, marker_m, dictionary, form["legacy"] is not None)


def _grid(columns: int, rows: int, side_m: float) -> Array:
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x.ravel(), y.ravel(), np.zeros(columns * rows)], axis=-1) * side_m


def _check_counts(text: str, columns: int, rows: int, least: int) -> None:
    if not (least <= columns <= _MOST_SQUARES and least <= rows <= _MOST_SQUARES):
        raise ValueError(f"board {text}: expected {least} to {_MOST_SQUARES} across and down")


def _check_side(text: str, what: str, side_m: float) -> None:
    if not (np.isfinite(side_m) and 1e-4 <= side_m <= 2.0):
        raise ValueError(
            f"board {text}: the side of a {what} is {1e3 * side_m:g} mm, expected 0.1 to 2000 mm"
        )


def _millimetres(length_m: float) -> str:
    return f"{1e3 * length_m:.6g}"
