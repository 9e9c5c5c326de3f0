# SPDX-License-Identifier: Apache-2.0
"""Follows trajectories tick by tick, as ros2_controllers' JointTrajectoryController does.

::

    controller = TrajectoryController(PANDA.joint_names, arm_limits(), measured)
    controller.start(trajectory, now_s)                    # raises TrajectoryRefused
    setpoint = controller.step(now_s, q, qd)               # each tick, whether it moves or not
    controller.status                                      # what became of the trajectory
    controller.cancel()                                    # the next step already brakes

Time is the caller's: simulated or steady. Only differences count.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinloop.motion.admission import TrajectoryRefused, admitted, joined
from twinloop.motion.following import Motion, Path, Stop, stop_on
from twinloop.motion.semantics import Limits
from twinloop.motion.trajectory import Trajectory

__all__ = [
    "ControllerSettings",
    "Following",
    "Setpoint",
    "Status",
    "Tolerances",
    "TrajectoryController",
    "TrajectoryRefused",
]
Array = NDArray[np.float64]


class Following(StrEnum):
    """What became of the newest trajectory."""

    IDLE = "idle"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    PATH_TOLERANCE = "path tolerance violated"
    GOAL_TOLERANCE = "goal tolerance violated"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Status:
    """State of one trajectory.

    Attributes:
        state: what became of it.
        number: counts the trajectories that were taken on, from 1.
        detail: one sentence for a person; says which joint, and by how much.
    """

    state: Following = Following.IDLE
    number: int = 0
    detail: str = ""

    @property
    def is_over(self) -> bool:
        return self.state is not Following.ACTIVE


@dataclass(frozen=True)
class Tolerances:
    """How far measured joints may be from where they are to be.

    Attributes:
        path: on the way [J], rad; inf for any.
        goal: at the end [J], rad; inf for any.
        stopped: speed at the end that counts as rest [J], rad/s.
        goal_time_s: how long after its end a trajectory may take to come within `goal`; 0 waits
            for ever, as ros2_controllers' default does.
    """

    path: Array
    goal: Array
    stopped: Array
    goal_time_s: float


@dataclass(frozen=True)
class ControllerSettings:
    """Of a trajectory controller.

    Attributes:
        path_tolerance: rad.
        goal_tolerance: rad.
        stopped_velocity: rad/s.
        goal_time_s: see `Tolerances`.
        start_tolerance: how far from where the arm is told to be a trajectory may begin, rad.
        max_step_s: the trajectory goes on by at most this much in one step: after a stall it waits
            instead of jumping.
    """

    path_tolerance: float = 0.1
    goal_tolerance: float = 0.01
    stopped_velocity: float = 0.02
    goal_time_s: float = 1.0
    start_tolerance: float = 0.02
    max_step_s: float = 0.02

    def tolerances(self, joints: int) -> Tolerances:
        """Return them for each joint."""
        return Tolerances(
            np.full(joints, self.path_tolerance),
            np.full(joints, self.goal_tolerance),
            np.full(joints, self.stopped_velocity),
            self.goal_time_s,
        )


@dataclass(frozen=True)
class Setpoint:
    """What the servos are told, [J]: rad, rad/s, rad/s^2."""

    position: Array
    velocity: Array
    acceleration: Array


@dataclass
class _Course:
    """What is followed at present: a path, or a stop on it, and where on it."""

    path: Path
    tolerances: Tolerances
    at_s: float = 0.0
    stop: Stop | None = None
    next: tuple[Trajectory, Tolerances] | None = field(default=None)

    def motion(self) -> Motion:
        return (self.stop or self.path).at(self.at_s)

    @property
    def is_at_rest(self) -> bool:
        return self.at_s >= (self.stop or self.path).duration


class TrajectoryController:
    """Turns trajectories into setpoints, inside every limit, and stops smoothly.

    A new trajectory takes over at once (the one before is PREEMPTED). Where the arm moves and the
    new one begins at rest, the arm first comes to rest on its present path. A trajectory whose
    first point lies in the future is joined from where the arm is, moving or not.

    Args:
        joint_names: J of them.
        limits: nothing that is told ever exceeds them.
        position: where the joints stand [J], rad; they are held there.
        settings: default tolerances.

    Raises:
        ValueError: a position of another length, or not finite.
    """

    def __init__(
        self,
        joint_names: tuple[str, ...],
        limits: Limits,
        position: ArrayLike,
        settings: ControllerSettings | None = None,
    ) -> None:
        self.joint_names = joint_names
        self.limits = limits
        self.settings = settings or ControllerSettings()
        self.status = Status()
        self._default = self.settings.tolerances(len(joint_names))
        self._course: _Course | None = None
        self._now_s: float | None = None
        self.hold(position)

    @property
    def setpoint(self) -> Setpoint:
        """What the last step told, or where the joints are held."""
        return self._setpoint

    @property
    def is_moving(self) -> bool:
        """Whether the setpoint moves, be it to brake."""
        return self._course is not None and not self._course.is_at_rest

    @property
    def default_tolerances(self) -> Tolerances:
        return self._default

    def hold(self, position: ArrayLike, why: str = "") -> None:
        """Stand here from now on, without any ramp: for a start, or a scene that was reset.

        Args:
            position: [J], rad.
            why: a trajectory that was followed is STOPPED with this.

        Raises:
            ValueError: another length, or not finite.
        """
        at = np.array(position, dtype=np.float64)
        if at.shape != (len(self.joint_names),) or not np.isfinite(at).all():
            raise ValueError(
                f"trajectory controller: position must be {len(self.joint_names)} finite rad, "
                f"got {at}"
            )
        self._end(Following.STOPPED, why)
        self._course = None
        zero = np.zeros_like(at)
        self._setpoint = Setpoint(at, zero, zero)

    def start(self, trajectory: Trajectory, tolerances: Tolerances | None = None) -> int:
        """Take a trajectory on from the next step on; returns its number.

        Args:
            trajectory: its joints in any order. Its first point is where the arm is told to be, or
                lies in the future; the last one is at rest.
            tolerances: default: those of the settings.

        Raises:
            TrajectoryRefused: it cannot be followed; says why. What was followed goes on.
        """
        trajectory = admitted(trajectory, self.joint_names, self.limits)
        tolerances = tolerances or self._default
        course = self._course
        now = self._setpoint
        if course is not None and self.is_moving and trajectory.time[0] == 0.0:
            if course.stop is None:
                stop = stop_on(course.path, course.at_s, self.limits)
                course = _Course(course.path, course.tolerances, 0.0, stop)
            else:
                course = replace(course)
            assert course.stop is not None
            rest = course.stop.at(course.stop.duration).position
            zero = np.zeros_like(rest)
            course.next = self._joined(trajectory, Setpoint(rest, zero, zero)), tolerances
        else:
            course = _Course(Path(self._joined(trajectory, now)), tolerances)
        self._end(Following.PREEMPTED, "a newer trajectory took over")
        self._course = course
        self.status = Status(Following.ACTIVE, self.status.number + 1)
        return self.status.number

    def _joined(self, trajectory: Trajectory, start: Setpoint) -> Trajectory:
        tolerance = self.settings.start_tolerance
        now = (start.position, start.velocity, start.acceleration)
        return joined(trajectory, now, self.limits, tolerance)

    def cancel(self, why: str = "cancelled") -> None:
        """Give up the trajectory and come to rest; the next step already brakes."""
        self._brake(Following.CANCELLED, why)

    def stop(self, why: str) -> None:
        """As `cancel`, for a reason of the robot's own: an emergency stop, a fault."""
        self._brake(Following.STOPPED, why)

    def step(self, now_s: float, q: ArrayLike, qd: ArrayLike) -> Setpoint:
        """Advance to a time; returns what the servos are to be told for it.

        Args:
            now_s: time of the setpoint, s: the end of the tick that it is for.
            q, qd: what was measured for the setpoint before [J], rad, rad/s. Not a number is
                outside every tolerance.
        """
        before = self._now_s
        self._now_s = now_s
        passed = 0.0 if before is None else min(max(now_s - before, 0.0), self.settings.max_step_s)
        if self._course is not None:
            self._judge(
                self._course, np.asarray(q, dtype=np.float64), np.asarray(qd, dtype=np.float64)
            )
        course = self._course  # judging may have begun a stop, or ended all
        if course is None:
            return self._setpoint
        if course.stop is not None and course.is_at_rest:
            if course.next is None:
                self._course = None
                return self._setpoint
            course = self._course = _Course(Path(course.next[0]), course.next[1])
        course.at_s += passed
        motion = course.motion()
        self._setpoint = Setpoint(motion.position, motion.velocity, motion.acceleration)
        return self._setpoint

    def _judge(self, course: _Course, q: Array, qd: Array) -> None:
        """Compare what was measured with the setpoint before, and end what has to end."""
        if self.status.is_over:
            return
        tolerances = course.tolerances if course.next is None else course.next[1]
        error = q - self._setpoint.position
        outside = self._outside(error, tolerances.path, "rad off its path")
        if outside:
            self._brake(Following.PATH_TOLERANCE, outside)
            return
        if course.stop is not None or not course.is_at_rest:
            return
        outside = self._outside(error, tolerances.goal, "rad off its goal")
        if not outside:
            outside = self._outside(qd, tolerances.stopped, "rad/s at its goal")
        if not outside:
            self._end(Following.SUCCEEDED, "")
            self._course = None
            return
        late_s = course.at_s - course.path.duration
        if tolerances.goal_time_s > 0.0 and late_s > tolerances.goal_time_s:
            self._end(Following.GOAL_TOLERANCE, f"{outside}, {late_s:.2f} s after its end")
            self._course = None

    def _outside(self, value: Array, allowed: Array, what: str) -> str:
        """Name the joint that is furthest outside; empty where all are inside."""
        ratio = np.where(np.isfinite(value), np.abs(value), np.inf) / allowed
        ratio = np.where(np.isnan(ratio), 0.0, ratio)  # infinity of infinity: anything goes
        worst = int(ratio.argmax())
        if ratio[worst] <= 1.0:
            return ""
        return (
            f"{self.joint_names[worst]} is {value[worst]:.4f} {what}, {allowed[worst]:.4f} allowed"
        )

    def _brake(self, state: Following, why: str) -> None:
        self._end(state, why)
        course = self._course
        if course is None:
            return
        if course.stop is not None:
            course.next = None
        elif course.is_at_rest:
            self._course = None
        else:
            stop = stop_on(course.path, course.at_s, self.limits)
            self._course = _Course(course.path, course.tolerances, 0.0, stop)

    def _end(self, state: Following, why: str) -> None:
        if not self.status.is_over:
            self.status = Status(state, self.status.number, why)
