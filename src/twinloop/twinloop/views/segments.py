# SPDX-License-Identifier: Apache-2.0
"""Points of a plan as what is drawn: coloured pieces of lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.views import colours
from twinloop.views.plan_points import BALL, FINGERTIP, TARGET


@dataclass(frozen=True)
class Segments:
    """S pieces of lines.

    Attributes:
        ends: [S, 2, 3], m.
        colours: [S, 3], 0 to 255.
    """

    ends: NDArray[np.float32]
    colours: NDArray[np.uint8]


def ball_paths(points: NDArray[np.void]) -> Segments:
    """Return the ways of the balls, coloured by the cost of the rollout."""
    chosen = points[points["kind"] == BALL]
    ends, cost = _along(chosen)
    return Segments(ends, colours.of_cost(cost))


def fingertip_paths(points: NDArray[np.void]) -> Segments:
    """Return the ways of the fingertips in the cheapest rollout."""
    ends, _ = _along(points[points["kind"] == FINGERTIP])
    colour = np.array(colours.FINGERTIP, dtype=np.uint8)
    return Segments(ends, np.tile(colour, (len(ends), 1)))


def targets(points: NDArray[np.void]) -> NDArray[np.float32]:
    """Return where the balls should be next [B, 3], m."""
    chosen = points[(points["kind"] == TARGET) & (points["step"] == 0)]
    return _places(chosen[np.argsort(chosen["body"])])


def ball_spread(points: NDArray[np.void]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where the balls are thought to end in the cheapest rollout [B, 3], m, and how far
    the ensemble's members are apart there [B], m."""
    chosen = points[(points["kind"] == BALL) & (points["rollout"] == 0)]
    if not len(chosen):
        return np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
    last = chosen[chosen["step"] == chosen["step"].max()]
    last = last[np.argsort(last["body"])]
    return _places(last), last["spread"].astype(np.float32)


def _along(points: NDArray[np.void]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return pieces from each step to the next [S, 2, 3], and their rollouts' costs [S]."""
    order = np.lexsort((points["step"], points["body"], points["rollout"]))
    points = points[order]
    places = _places(points)
    follows = (
        (points["rollout"][1:] == points["rollout"][:-1])
        & (points["body"][1:] == points["body"][:-1])
    )  # fmt: skip
    ends = np.stack([places[:-1], places[1:]], axis=1)[follows]
    return ends, points["cost"][:-1][follows].astype(np.float32)


def _places(points: NDArray[np.void]) -> NDArray[np.float32]:
    return np.stack([points[axis] for axis in "xyz"], axis=-1).astype(np.float32)
