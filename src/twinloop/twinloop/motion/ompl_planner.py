# SPDX-License-Identifier: Apache-2.0
"""The default planner: OMPL finds paths, pinocchio and coal know what they touch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pinocchio as pin
from numpy.typing import ArrayLike, NDArray

from twinloop.motion import inverse
from twinloop.motion.errors import GoalInCollision, NoPath, StartInCollision, Unreachable
from twinloop.motion.planner import ArmPlanner, Pose, Scene
from twinloop.motion.search import SEARCH_STEP_M, find_path
from twinloop.motion.semantics import TOOL, Limits
from twinloop.motion.timing import Leg, assemble, excess, straight_leg
from twinloop.motion.trajectory import TICK_S, Trajectory
from twinloop.motion.world import REACH, World
from twinloop.robots.panda import PANDA

Array = NDArray[np.float64]

MARGIN_M = 0.010  # kept from everything on the way
FINEST_M = 0.001
LEAST_MARGIN_M = 0.002  # where start or goal is nearer to something than that
_IK_STARTS = 40
_IK_WANTED = 4
_TOOL_LINKS = (TOOL, "panda_hand", "panda_link8", "panda_link7")
_LINE_STEP_M = 0.005
_LINE_STEP_RAD = 0.04
_LINE_JUMP_RAD = 0.25


class OmplPlanner(ArmPlanner):
    """See `ArmPlanner`.

    Args:
        seed: of the random starts of inverse kinematics; OMPL draws its own numbers.
    """

    name = "ompl"

    def __init__(
        self,
        current: Callable[[], ArrayLike] | None = None,
        execute: Callable[[Trajectory], bool] | None = None,
        side: str = "right",
        seed: int = 0,
        cell: str = "hand",
    ) -> None:
        super().__init__(current, execute, side, cell)
        self.world = World(self.semantics, side, cell)
        self._rng = np.random.default_rng(seed)

    def set_scene(self, scene: Scene) -> None:
        self.world.arrange(scene)

    def plan(
        self,
        timeout_s: float = 2.0,
        velocity_scaling: float = 1.0,
        acceleration_scaling: float = 1.0,
    ) -> Trajectory:
        deadline = time.monotonic() + timeout_s
        limits = self.limits.scaled(velocity_scaling, acceleration_scaling)
        start = self._free_start(LEAST_MARGIN_M)
        goals = self._goals(start)
        margin = self._margin([start, *goals])
        step = SEARCH_STEP_M
        while time.monotonic() < deadline:
            path = find_path(self.world, start, goals, limits, margin, step, deadline)
            if path is None:
                break
            trajectory = self._timed(path, limits, margin)
            if self._is_free(trajectory, margin):
                return trajectory
            step /= 2  # between two checks of the search the arm came too near
        raise NoPath(
            f"no path of the arm was found in {timeout_s:g} s that keeps "
            f"{margin * 1e3:.0f} mm from everything"
        )

    def plan_line(
        self, goal: Pose, speed: float = 0.15, margin_m: float = 0.002, acceleration: float = 0.3
    ) -> Trajectory:
        start = self._free_start(margin_m)
        limits = self.limits.scaled(1.0, acceleration)
        first = self.world.pose(start)
        path, length = self._along(first, goal, start)
        if not self.world.is_free(path[-1], margin_m):
            raise GoalInCollision(self._touch("the end of the line", path[-1], margin_m))
        trajectory = _follow(path, length, speed, limits)
        if not self._is_free(trajectory, margin_m):
            at = next(q for q in trajectory.position if not self.world.is_free(q, margin_m))
            raise NoPath(self._touch("the line", at, margin_m))
        return trajectory

    def _free_start(self, margin_m: float) -> Array:
        if self.start is None:
            raise ValueError("arm planner: no start state was set")
        if not self.world.is_free(self.start, margin_m):
            raise StartInCollision(self._touch("the start", self.start, margin_m))
        return self.start

    def _goals(self, start: Array) -> list[Array]:
        """Joint positions of the goal, nearest first."""
        if self.goal is None:
            raise ValueError("arm planner: no goal state was set")
        if not isinstance(self.goal, Pose):
            if not self.world.is_free(self.goal, LEAST_MARGIN_M):
                raise GoalInCollision(self._touch("the goal", self.goal, LEAST_MARGIN_M))
            return [self.goal]
        pose = self._tool_pose(self.goal)
        free: list[Array] = []
        colliding: Array | None = None
        for q in inverse.solutions(self.world, pose, start, self.limits, self._rng, _IK_STARTS):
            if self.world.is_free(q, LEAST_MARGIN_M):
                free.append(q)
                # The first one came from the start itself: if it is free, it is as near as any.
                if len(free) == _IK_WANTED:
                    break
            else:
                colliding = q
        if free:
            return sorted(free, key=lambda q: float(np.linalg.norm((q - start) * REACH)))
        where = f"the pose at {np.round(pose.position, 3).tolist()} m"
        if colliding is not None:
            raise GoalInCollision(self._touch(where, colliding, LEAST_MARGIN_M))
        raise Unreachable(
            f"{where}, gripper along {np.round(pose.rotation[:, 2], 2).tolist()}: no joint "
            f"position within limits leads there ({_IK_STARTS} starts)"
        )

    def _tool_pose(self, pose: Pose) -> Pose:
        """Pose of the tool when the goal's link has this pose."""
        if self.goal_link == TOOL:
            return pose
        if self.goal_link not in _TOOL_LINKS:
            raise ValueError(f"a goal is of one of {_TOOL_LINKS}, got {self.goal_link!r}")
        q = self.semantics.states["ready"]
        tool, link = _se3(self.world.pose(q)), _se3(self.world.pose(q, self.goal_link))
        placed = _se3(pose) * link.actInv(tool)
        return Pose(placed.translation, placed.rotation)

    def _margin(self, ends: list[Array]) -> float:
        """The margin to keep on the way: less where an end itself is nearer to something."""
        for margin in (MARGIN_M, 0.006, 0.004):
            if all(self.world.is_free(q, margin) for q in ends):
                return margin
        return LEAST_MARGIN_M

    def _timed(self, path: list[Array], limits: Limits, margin_m: float) -> Trajectory:
        """Legs along a path; each begins before the one before ends, as far as that is allowed."""
        legs: list[Leg] = []
        names = PANDA.joint_names
        for first, last in itertools.pairwise(path):
            leg = straight_leg(0, last - first, limits)
            if not legs:
                legs.append(leg)
                continue
            before = legs[-1]
            # At most half of each: then no three legs overlap, and corners are independent.
            overlap = min(before.ticks, leg.ticks) // 2
            while overlap > 0:
                pair = [
                    Leg(0, before.delta, before.windows),
                    Leg(before.ticks - overlap, leg.delta, leg.windows),
                ]
                corner = assemble(names, first - before.delta, pair)
                if excess(corner, limits) <= 1.0 and self._is_free(corner, margin_m):
                    break
                overlap = overlap * 2 // 3
            legs.append(Leg(before.end - overlap, leg.delta, leg.windows))
        return assemble(names, path[0], legs)

    def _is_free(self, trajectory: Trajectory, margin_m: float) -> bool:
        """Whether nothing comes into contact, checked so finely that the margin covers the gaps.

        Between two samples no point of the arm moves further than the margin, so at any time one of
        them is within half of it. Margins below `FINEST_M` are checked every `FINEST_M`.
        """
        q = trajectory.position
        moved = np.abs(np.diff(q, axis=0)) @ REACH
        travelled = np.concatenate([[0.0], np.cumsum(moved)])
        count = 1 + int(np.ceil(travelled[-1] / max(margin_m, FINEST_M)))
        at = np.interp(np.linspace(0.0, travelled[-1], count), travelled, trajectory.time)
        return all(self.world.is_free(one, margin_m) for one in trajectory.at(at))

    def _along(self, first: Pose, last: Pose, start: Array) -> tuple[list[Array], float]:
        """Joint positions along a straight line of the tool, and its length, m."""
        turn = pin.log3(first.rotation.T @ last.rotation)
        length = float(np.linalg.norm(last.position - first.position))
        angle = float(np.linalg.norm(turn))
        steps = max(2, int(np.ceil(max(length / _LINE_STEP_M, angle / _LINE_STEP_RAD))))
        path = [start]
        for k in range(1, steps + 1):
            share = k / steps
            place = first.position + share * (last.position - first.position)
            pose = Pose(place, first.rotation @ pin.exp3(share * turn))
            q = inverse.solve(self.world, pose, path[-1], self.limits)
            if q is None or np.abs(q - path[-1]).max() > _LINE_JUMP_RAD:
                raise Unreachable(
                    f"the line to {np.round(last.position, 3).tolist()} m cannot be followed "
                    f"beyond {share * length * 1e3:.0f} of {length * 1e3:.0f} mm"
                )
            path.append(q)
        return path, length

    def _touch(self, what: str, q: Array, margin_m: float) -> str:
        pairs = ", ".join(self.world.touching(q, margin_m)) or "nothing, but only just"
        return f"{what} is nearer than {margin_m * 1e3:.0f} mm to contact: {pairs}"


def _se3(pose: Pose) -> pin.SE3:
    return pin.SE3(pose.rotation, pose.position)


def _follow(path: list[Array], length: float, speed: float, limits: Limits) -> Trajectory:
    """Legs of equal time along a path of many points, all through the same averages."""
    deltas = np.diff(np.array(path), axis=0)
    fastest = float((np.abs(deltas) / limits.velocity).max())
    n_v = max(1, int(np.ceil(max(fastest, length / len(deltas) / speed) / TICK_S)))
    n_a = n_j = 4
    while True:
        legs = [Leg(k * n_v, delta, (n_v, n_a, n_j)) for k, delta in enumerate(deltas)]
        trajectory = assemble(PANDA.joint_names, path[0], legs)
        if excess(trajectory, limits) <= 1.0:
            return trajectory
        n_a += 2
        if n_a > 60:
            n_v, n_a = n_v + 1, 4
