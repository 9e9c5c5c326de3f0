# SPDX-License-Identifier: Apache-2.0
"""What every planner of the arm offers, shaped after moveit_py's planning component."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinloop.motion.errors import ExecutionFailed, OutOfLimits
from twinloop.motion.semantics import TOOL, Limits, arm_limits, semantics
from twinloop.motion.trajectory import Trajectory
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_TRAVEL_M, PANDA

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """Where the tool shall be, in the world frame.

    Attributes:
        position: [3], m.
        rotation: matrix [3, 3]; z is the way that the gripper points, y the way that it opens.
    """

    position: Array
    rotation: Array

    def __post_init__(self) -> None:
        p = np.asarray(self.position, dtype=np.float64)
        r = np.asarray(self.rotation, dtype=np.float64)
        if p.shape != (3,) or r.shape != (3, 3) or not np.isfinite(p).all():
            raise ValueError(f"pose: shapes {p.shape} and {r.shape}, expected (3,) and (3, 3)")
        if not np.allclose(r @ r.T, np.eye(3), atol=1e-6) or np.linalg.det(r) < 0.0:
            raise ValueError(f"pose: not a rotation matrix: {r.tolist()}")
        object.__setattr__(self, "position", p)
        object.__setattr__(self, "rotation", r)

    def moved(self, offset: ArrayLike) -> Pose:
        """Return the pose shifted along the world's axes [3], m."""
        return Pose(self.position + np.asarray(offset, dtype=np.float64), self.rotation)

    def backed(self, distance_m: float) -> Pose:
        """Return the pose drawn back along the gripper."""
        return Pose(self.position - distance_m * self.rotation[:, 2], self.rotation)


@dataclass(frozen=True)
class Ball:
    """A sphere that stands in the way: position [3], m, world; radius, m."""

    position: Array
    radius_m: float


@dataclass(frozen=True)
class Scene:
    """What is not the same at each plan.

    Attributes:
        hand: the hand's joint positions [24], rad.
        finger_m: how far each finger of the gripper is out.
        held_radius_m: radius of the ball between the fingers, 0 for none.
        balls: others, not to be touched.
    """

    hand: Array = field(default_factory=lambda: HAND24.poses["cup"])
    finger_m: float = FINGER_TRAVEL_M
    held_radius_m: float = 0.0
    balls: tuple[Ball, ...] = ()

    def __post_init__(self) -> None:
        if np.shape(self.hand) != (24,) or not np.isfinite(self.hand).all():
            raise ValueError(f"scene: the hand's posture must be 24 finite angles, got {self.hand}")
        if not 0.0 <= self.finger_m <= FINGER_TRAVEL_M:
            raise ValueError(
                f"scene: fingers at {self.finger_m} m, expected 0 to {FINGER_TRAVEL_M}"
            )


class ArmPlanner(ABC):
    """Plans and carries out motions of the arm.

    Args:
        current: returns the arm's joint positions [7], rad.
        execute: sends a trajectory to the arm's controller and waits; whether it came to its end.
        side: of the hand.
        cell: that the arm stands in, `hand` or `bins`.
    """

    name: str

    def __init__(
        self,
        current: Callable[[], ArrayLike] | None = None,
        execute: Callable[[Trajectory], bool] | None = None,
        side: str = "right",
        cell: str = "hand",
    ) -> None:
        self.side = side
        self.cell = cell
        self.semantics = semantics(side, cell)
        self.limits: Limits = arm_limits()
        self._current = current
        self._execute = execute
        self.start: Array | None = None
        self.goal: Array | Pose | None = None
        self.goal_link = TOOL

    def set_start_state(self, state: ArrayLike | str) -> None:
        """Start from joint positions [7], rad, or a state that the SRDF names.

        Raises:
            OutOfLimits: outside the joint limits.
            ValueError: no such state, or another number of joints.
        """
        self.start = self._joints(state)

    def set_start_state_to_current_state(self) -> None:
        """Start from where the arm is.

        Raises:
            ValueError: nothing was given that tells.
        """
        if self._current is None:
            raise ValueError("arm planner: no source of the arm's present state was given")
        # Measured positions lie a little beyond a limit at times.
        measured = np.asarray(self._current(), dtype=np.float64)
        inside = np.clip(measured, self.limits.lower, self.limits.upper)
        self.start = self._joints(inside if np.abs(measured - inside).max() < 0.01 else measured)

    def set_goal_state(
        self,
        configuration_name: str | None = None,
        joint_positions: ArrayLike | None = None,
        pose: Pose | None = None,
        pose_link: str = TOOL,
    ) -> None:
        """Go to a named state, to joint positions [7], rad, or to a pose of a link.

        Raises:
            OutOfLimits: outside the joint limits.
            ValueError: not exactly one goal, no such state, or another number of joints.
        """
        given = [goal for goal in (configuration_name, joint_positions, pose) if goal is not None]
        if len(given) != 1:
            raise ValueError(f"arm planner: one goal is needed, got {len(given)}")
        goal = given[0]
        self.goal = goal if isinstance(goal, Pose) else self._joints(goal)
        self.goal_link = pose_link

    @abstractmethod
    def set_scene(self, scene: Scene) -> None:
        """Plan around this from now on."""

    @abstractmethod
    def plan(
        self,
        timeout_s: float = 2.0,
        velocity_scaling: float = 1.0,
        acceleration_scaling: float = 1.0,
    ) -> Trajectory:
        """Return a motion from start to goal.

        Args:
            timeout_s: time for the search of a path.
            velocity_scaling, acceleration_scaling: share of the limits that is used.

        Raises:
            Unreachable, GoalInCollision, StartInCollision, NoPath: see there.
            ValueError: start or goal was not set.
        """

    @abstractmethod
    def plan_line(
        self, goal: Pose, speed: float = 0.15, margin_m: float = 0.002, acceleration: float = 0.3
    ) -> Trajectory:
        """Return a motion of the tool along a straight line, from the start state.

        Args:
            goal: where the line ends; the tool turns evenly on the way.
            speed: of the tool, m/s at most.
            margin_m: distance from everything, smaller than that of `plan`, for lines to things.
            acceleration: share of the limits that is used.

        Raises:
            Unreachable: the line leaves the workspace or passes a singular posture.
            GoalInCollision, StartInCollision, NoPath: something stands in the way.
        """

    def execute(self, trajectory: Trajectory) -> None:
        """Carry out a motion and wait for its end.

        Raises:
            ExecutionFailed: the controller gave up, or there is none.
        """
        if self._execute is None:
            raise ExecutionFailed("arm planner: no controller was given")
        if not self._execute(trajectory):
            raise ExecutionFailed(
                f"the arm's controller did not finish a motion of {trajectory.duration:.1f} s"
            )

    def _joints(self, state: ArrayLike | str) -> Array:
        if isinstance(state, str):
            if state not in self.semantics.states:
                raise ValueError(
                    f"the SRDF has no state {state!r} of the arm; it has "
                    f"{sorted(self.semantics.states)}"
                )
            return self.semantics.states[state].copy()
        q = np.array(state, dtype=np.float64)
        if q.shape != (7,):
            raise ValueError(f"arm planner: joint positions have shape {q.shape}, expected (7,)")
        outside = [
            f"{name} {value:.4f} not in {low} to {high}"
            for name, value, low, high in zip(
                PANDA.joint_names, q, self.limits.lower, self.limits.upper, strict=True
            )
            if not low - 1e-6 <= value <= high + 1e-6  # false for NaN too
        ]
        if outside:
            raise OutOfLimits("; ".join(outside))
        return np.clip(q, self.limits.lower, self.limits.upper)
