# SPDX-License-Identifier: Apache-2.0
"""Boards to print, true to scale, with their names and a ruler to check the scale by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from twinloop.perception.calibration.boards import Board, Charuco

# Width and height of paper, landscape [m].
PAPERS = {"A4": (0.297, 0.210), "A3": (0.420, 0.297), "letter": (0.2794, 0.2159)}
SUFFIXES = (".pdf", ".png")
_M_PER_INCH = 0.0254
_RULER_M = 0.1
_FOOT_M = 0.012  # under the board, for its name and the ruler
_DPI = 600


def print_board(board: Board, path: Path, paper: str = "A4") -> None:
    """Draw a board as PDF, or as PNG of 600 dots an inch, to be printed at 100%.

    Raises:
        ValueError: it does not fit on the paper, or the file's kind or the paper is unknown.
    """
    if paper not in PAPERS:
        raise ValueError(f"paper is {paper!r}, expected one of {', '.join(PAPERS)}")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: expected a name that ends with {' or '.join(SUFFIXES)}")
    width, height = PAPERS[paper]
    across, down = (count * board.square_m for count in board.squares)
    white = min(0.25 * board.square_m, 0.01)
    if across + 2 * white > width or down + 2 * white + _FOOT_M > height:
        raise ValueError(
            f"board {board.text} is {1e3 * across:.0f} x {1e3 * down:.0f} mm, with its margin too "
            f"large for {paper} ({1e3 * width:.0f} x {1e3 * height:.0f} mm): name smaller squares, "
            "or larger paper"
        )
    figure = Figure(figsize=(width / _M_PER_INCH, height / _M_PER_INCH))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, width)
    axes.set_ylim(height, 0.0)  # y down, as in the board's frame
    axes.axis("off")
    left, top = (width - across) / 2, (height - _FOOT_M - down) / 2
    black = [Rectangle((left + x, top + y), side, side) for x, y, side in _black_squares(board)]
    # Without anti-aliasing, neighbours would show a white hair between them in some viewers.
    axes.add_collection(PatchCollection(black, facecolor="black", edgecolor="none", linewidth=0.0))
    foot = top + down + white
    axes.plot([left, left + _RULER_M], [foot + 0.004] * 2, color="black", lw=0.8)
    for tick in np.linspace(0.0, _RULER_M, 11):
        axes.plot([left + tick] * 2, [foot + 0.004, foot + 0.002], color="black", lw=0.5)
    axes.text(left, foot + 0.009, "100 mm: measure it after printing", fontsize=7)
    axes.text(left + across, foot + 0.009, board.text, fontsize=9, ha="right", family="monospace")
    figure.savefig(path, dpi=_DPI)


def _black_squares(board: Board) -> list[tuple[float, float, float]]:
    """Return the black squares of a board and its markers: place and side, m, from its corner."""
    across, down = board.squares
    side = board.square_m
    if not isinstance(board, Charuco):
        return [
            (x * side, y * side, side)
            for y in range(down)
            for x in range(across)
            if (x + y) % 2 == 0
        ]
    # One pixel a module of the markers is all that the pattern is made of.
    modules = board.markers.markerSize + 2
    cell = board.marker_m / modules
    result = []
    occupied = set()
    for corners, name in zip(board.opencv.getObjPoints(), board.opencv.getIds(), strict=True):
        x, y = np.asarray(corners)[0, :2]
        occupied.add((int(x // side), int(y // side)))
        bits = board.markers.generateImageMarker(int(name), modules, borderBits=1)
        result += [
            (float(x) + column * cell, float(y) + row * cell, cell)
            for row, column in np.argwhere(bits == 0)
        ]
    result += [
        (x * side, y * side, side)
        for y in range(down)
        for x in range(across)
        if (x, y) not in occupied
    ]
    return result
