# SPDX-License-Identifier: Apache-2.0
"""Tells which ball is which: by where it was, by how it looks, and at first by where it lies."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from twinloop.perception.ball_tracker.fusion import Sight
from twinloop.perception.ball_tracker.motion import BallMotion

Array = NDArray[np.float64]

# Where the balls lie in the cup at the start of an episode, palm frame.
START_PLACES_M = np.array([[-0.031, -0.035, 0.113], [0.023, -0.033, 0.126]])
_GATE = 25.0  # cost of a ball that is seen nowhere, or of a sight that is very unlike its track
_REACH_M = 0.05  # a ball is not further from where it is expected
_APART = 0.9  # of two radii: sights that are nearer are one ball seen twice
_LEAST_NEW = 0.2  # visible fraction at which a ball can be found again
_COLOR_MEMORY = 0.95
_COLOR_SPREAD = 12.0  # of a ball's mean colour from frame to frame
_COLORS_DIFFER = 40.0


class Appearances:
    """Mean colours of both balls, remembered."""

    def __init__(self) -> None:
        self._mean = np.full((2, 3), np.nan)

    def learn(self, ball: int, color: Array) -> None:
        """Take in a colour [3] of a ball that was seen."""
        if np.isnan(self._mean[ball, 0]):
            self._mean[ball] = color
        else:
            self._mean[ball] += (1.0 - _COLOR_MEMORY) * (color - self._mean[ball])

    @property
    def tell_apart(self) -> bool:
        """Whether both are known and look different."""
        return bool(np.linalg.norm(self._mean[0] - self._mean[1]) > _COLORS_DIFFER)

    def distance(self, ball: int, color: Array) -> float:
        """Return how unlike a ball a colour [3] is, squared and in deviations."""
        return float(((color - self._mean[ball]) ** 2).sum() / _COLOR_SPREAD**2)


def assign(
    sights: list[Sight],
    places: list[tuple[Array, Array]],
    tracks: list[BallMotion | None],
    appearances: Appearances,
    last: Array,
    radius_m: float,
) -> list[int | None]:
    """Return which sight each ball is, None where it is none of them.

    Args:
        sights: what the eyes see.
        places: position [3] and covariance [3, 3] of each sight, palm frame, m.
        tracks: predicted to the time of the sights; None of a ball that is lost.
        appearances: of both balls.
        last: where the balls were seen last, palm frame [2, 3], m; NaN if never.
        radius_m: of the balls.
    """
    options: list[int | None] = [*range(len(sights)), None, None]
    best, best_cost = (None, None), np.inf
    for choice in set(permutations(options, 2)):
        cost = _cost(choice, sights, places, tracks, appearances, last, radius_m)
        if cost < best_cost:
            best, best_cost = choice, cost  # type: ignore[assignment]
    return list(best)


def _cost(
    choice: tuple[int | None, ...],
    sights: list[Sight],
    places: list[tuple[Array, Array]],
    tracks: list[BallMotion | None],
    appearances: Appearances,
    last: Array,
    radius_m: float,
) -> float:
    """Return the cost of a choice of sights for the balls; infinite where it cannot be."""
    first, second = choice
    if first is not None and second is not None:
        apart = float(np.linalg.norm(places[first][0] - places[second][0]))
        if apart < _APART * 2.0 * radius_m and sights[first].is_stereo and sights[second].is_stereo:
            return np.inf
    cost = 0.0
    both_lost = tracks[0] is None and tracks[1] is None
    for ball, other in ((0, 1), (1, 0)):
        # What is where a ball is expected that is seen nowhere else is that ball.
        index, track = choice[other], tracks[ball]
        if index is not None and choice[ball] is None and track is not None:
            away = float(np.linalg.norm(places[index][0] - track.position))
            if tracks[other] is None and away < _APART * 2.0 * radius_m:
                return np.inf
    for ball, index in enumerate(choice):
        track = tracks[ball]
        if index is None:
            cost += _GATE + (4.0 if track is not None else 0.0)
            continue
        sight = sights[index]
        if track is not None:
            away = float(np.linalg.norm(places[index][0] - track.position))
            distance = track.distance(*places[index])
            if away > _REACH_M or (distance > _GATE and not sight.is_stereo):
                return np.inf
            cost += min(distance, _GATE)
        elif not (sight.is_stereo and sight.visible_fraction >= _LEAST_NEW):
            return np.inf
        elif both_lost:
            # Which is which can be told by colours, else by where they lay, or lie at first.
            reference = START_PLACES_M[ball] if np.isnan(last[ball, 0]) else last[ball]
            cost += 0.5 * float(np.linalg.norm(places[index][0] - reference)) / radius_m
        if appearances.tell_apart:
            cost += min(appearances.distance(ball, sight.color), _GATE)
    return cost
