# SPDX-License-Identifier: Apache-2.0
"""Choosing views out of a stream of pictures: sharp, each different, until there are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.perception.calibration.boards import Board
from twinloop.perception.calibration.detection import Detection, detect
from twinloop.perception.calibration.diversity import guessed_lens
from twinloop.perception.calibration.views import View, board_poses

Array = NDArray[np.float64]
STILL_SHARE = 0.004  # of the picture's width, by which corners may move between two pictures
STILL_RAD = 0.005  # by which a joint may
_NEW = 0.2  # sum of changes in place, distance and tilt, for a view to be another one
_NEW_RAD = 0.05  # of any joint


@dataclass(frozen=True)
class Shot:
    """Pictures of one time.

    Attributes:
        name: as reports call it.
        images: of each camera, 8 bits [H, W] or [H, W, 3].
        joints: positions [J], rad, of the joints that matter; None where they are not known.
    """

    name: str
    images: tuple[NDArray[np.uint8], ...]
    joints: Array | None = None


def look(board: Board, shot: Shot) -> View:
    """Find the board in a shot's pictures."""
    return View(shot.name, tuple(detect(board, image) for image in shot.images), shot.joints)


class Collection:
    """The views chosen so far.

    Args:
        board: to look for.
        missing: tells what views still lack.
        by_joints: views differ by their joint positions, and not by the board's pose.
        is_fixed: the board stands still; equal views are welcome.
    """

    def __init__(
        self,
        board: Board,
        missing: Callable[[Sequence[View]], list[str]],
        by_joints: bool = False,
        is_fixed: bool = False,
    ) -> None:
        self.views: list[View] = []
        self.shots: list[Shot] = []
        self._board = board
        self._missing = missing
        self._by_joints, self._is_fixed = by_joints, is_fixed
        self._before: View | None = None

    def missing(self) -> list[str]:
        """Return what the views lack, and what to do."""
        return self._missing(self.views)

    def offer(self, shot: Shot) -> str:
        """Take a shot if it adds something; returns why not, empty where it was taken."""
        view = look(self._board, shot)
        before, self._before = self._before, view
        if not any(view.seen):
            return "the board is not seen"
        if before is None or not _is_still(before, view):
            return "hold still"
        if not self._is_fixed and not self._is_new(view):
            return "like a view before, change it"
        self.views.append(view)
        self.shots.append(shot)
        return ""

    def _is_new(self, view: View) -> bool:
        if self._by_joints:
            return all(
                np.abs(view.joints - other.joints).max() >= _NEW_RAD
                for other in self.views
                if view.joints is not None and other.joints is not None
            )
        here = _features(self._board, view)
        return all(
            any(
                one is not None and (other is None or float(np.abs(one - other).sum()) >= _NEW)
                for one, other in zip(here, _features(self._board, known), strict=True)
            )
            for known in self.views
        )


def _is_still(before: View, view: View) -> bool:
    turned = 0.0
    if before.joints is not None and view.joints is not None:
        turned = float(np.abs(view.joints - before.joints).max(initial=0.0))
    moved = [
        _moved_share(one, other)
        for one, other in zip(before.seen, view.seen, strict=True)
        if one is not None and other is not None
    ]
    return bool(moved) and max(moved) <= STILL_SHARE and turned <= STILL_RAD


def _moved_share(before: Detection, now: Detection) -> float:
    """Return how far corners moved between two pictures, as a share of their width."""
    _, first, second = np.intersect1d(before.ids, now.ids, return_indices=True)
    if len(first) == 0:
        return float("inf")
    way = np.linalg.norm(now.pixels[second] - before.pixels[first], axis=1)
    return float(np.median(way)) / now.size[0]


def _features(board: Board, view: View) -> list[Array | None]:
    """Return what tells poses apart: place in the picture, distance and tilt, by eye."""
    result: list[Array | None] = []
    for seen in view.seen:
        poses = (
            [] if seen is None else board_poses(board, seen, guessed_lens(seen.size), np.zeros(5))
        )
        if seen is None or not poses:
            result.append(None)
            continue
        place = seen.pixels.mean(axis=0) / seen.size
        distance = np.log(np.linalg.norm(poses[0][:3, 3]))
        result.append(np.array([*place, distance, *poses[0][:2, 2]]))
    return result
