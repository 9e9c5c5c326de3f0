# SPDX-License-Identifier: Apache-2.0
"""Bins that the arm clears, and what truly became of each attempt.

The loop sees noisy depth images, joints and torques alone. The state of the twin says afterwards
what lies in the other bin.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from twinloop.grasping import baselines, heights
from twinloop.grasping.finding import bin_mask
from twinloop.grasping.gripper import FRANKA_HAND
from twinloop.grasping.pick_devices import Finder, View, WorldGrasp, into_world
from twinloop.grasping.pick_moves import PickMoves
from twinloop.grasping.pick_settings import PickSettings
from twinloop.grasping.picking import Attempt, PickLoop
from twinloop.grasping.planner import GraspPlanner, poses
from twinloop.resets.machine import Outcome

from twinloop_sim.grasping import depth_camera, objects, views
from twinloop_sim.grasping.bin_cell import BinCell
from twinloop_sim.grasping.pick_devices import cell_devices
from twinloop_sim.grasping.scene import heap_count

Array = NDArray[np.float64]

FIRST_SEED = 900_000
NOT_THERE = "not in the other bin"
_SETTLE_S = 0.5


class Kind(enum.StrEnum):
    """What lies in the bin."""

    single = "single"
    heap = "heap"
    adversarial = "adversarial"


@dataclass
class Try:
    """One attempt.

    Attributes:
        view: what the grasp was planned on.
        attempt: as the robot saw it.
        moved: objects that truly came to lie in the other bin by it.
    """

    view: View
    attempt: Attempt
    moved: int = 0

    @property
    def end(self) -> str:
        """What became of it: `picked`, or the cause of the failure."""
        if self.moved:
            return "picked"
        return NOT_THERE if self.attempt.fault is None else str(self.attempt.fault)


@dataclass
class Cleared:
    """One bin.

    Attributes:
        outcome: of the loop.
        objects: how many lay in it.
        moved: how many of them lie in the other bin at the end.
        outside: how many lie in neither.
        tries: in their order.
    """

    outcome: Outcome
    objects: int
    moved: int
    outside: int
    tries: list[Try]


@dataclass
class _Judge:
    """Watches what comes to lie in the other bin, and tells by which attempt."""

    cell: BinCell
    tries: list[Try] = field(default_factory=list)
    known: set[int] = field(default_factory=set)

    def note(self, view: View, attempt: Attempt) -> None:
        """Take an attempt that is over; what arrived since it began, did so by it."""
        self.tries.append(Try(view, attempt))
        self.look()

    def look(self) -> None:
        """Count what arrived for the last attempt."""
        there = {body for body in self.cell.items if self.cell.is_in_target(body)}
        if self.tries:
            self.tries[-1].moved += len(there - self.known)
        self.known |= there


class TopDown:
    """A `Finder` by the heuristic: the highest point, across the principal axis."""

    def __init__(self, settings: PickSettings) -> None:
        self._settings = settings

    def __call__(self, view: View, avoid: list[Array]) -> list[WorldGrasp]:
        seen = heights.build(view.depth, view.camera, bin_mask(view, self._settings))
        places = [view.into_camera(place) for place in avoid]
        grasp = baselines.top_down(seen, FRANKA_HAND, places, self._settings.grasp.avoid_m)
        told = poses(seen, grasp[None], np.array([np.nan]), FRANKA_HAND)
        return [into_world(one, view) for one in told]


class Antipodal:
    """A `Finder` by the sampler alone: what it draws first comes first."""

    def __init__(self, settings: PickSettings) -> None:
        self._settings = settings
        self._planner = GraspPlanner(None)
        self._calls = 0

    def __call__(self, view: View, avoid: list[Array]) -> list[WorldGrasp]:
        self._calls += 1
        rng = np.random.default_rng(self._calls)
        seen = heights.build(view.depth, view.camera, bin_mask(view, self._settings))
        places = [view.into_camera(place) for place in avoid]
        grasps, _ = self._planner.search(seen, rng, places, self._settings.grasp.avoid_m)
        some = grasps[: self._settings.grasp.candidates]
        told = poses(seen, some, np.full(len(some), np.nan), FRANKA_HAND)
        return [into_world(one, view) for one in told]


def clear_bin(
    cell: BinCell, moves: PickMoves, finder: Finder, kind: Kind, noise: str, index: int
) -> Cleared:
    """Fill a bin with test objects and have the arm clear it; equal arguments give equal bins.

    Single and adversarial objects lie in the bin alone.

    Args:
        noise: a key of `depth_noise.NOISES`.
        index: of the bin, the seed of what lies in it and of the camera.
    """
    split = "adversarial" if kind is Kind.adversarial else "test"
    rng = np.random.default_rng([objects.SPLITS.index(split), FIRST_SEED + index])
    count = heap_count(rng) if kind is Kind.heap else 1
    cell.items.clear()
    views.fill(cell, split, count, True, rng)
    camera = depth_camera.draw_camera(rng)
    judge = _Judge(cell)
    there = len(cell.items)
    loop = PickLoop(cell_devices(cell, camera, noise, rng), moves, finder, judge.note)

    def tell(phase: str, _percent: float) -> None:
        if phase in ("plan", "lower"):  # what was let go before has fallen by now
            judge.look()

    outcome = loop.run(tell)
    cell.run(_SETTLE_S)
    judge.look()
    moved = len(judge.known)
    outside = sum(not cell.is_inside(body) for body in cell.items) - moved
    return Cleared(outcome, there, moved, outside, judge.tries)
