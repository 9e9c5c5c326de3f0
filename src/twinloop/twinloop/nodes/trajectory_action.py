# SPDX-License-Identifier: Apache-2.0
"""Serves `follow_joint_trajectory` for whatever follows trajectories: a twin's arm or a robot's.

What a controller refuses is accepted and aborted at once, with the action's error code and a
reason: a rejected goal could not tell why. A newer goal takes over, and the one before ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from control_msgs.action import FollowJointTrajectory
from numpy.typing import NDArray
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from trajectory_msgs.msg import JointTrajectoryPoint

from twinloop.motion.admission import TrajectoryRefused, filled
from twinloop.motion.errors import MotionError
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import Following, Setpoint, Status, Tolerances
from twinloop.nodes.joint_messages import nanoseconds, time_message

Array = NDArray[np.float64]
Result = FollowJointTrajectory.Result

ARM_ACTION = "panda_arm_controller/follow_joint_trajectory"
_FEEDBACK_S = 0.05
_MAX_AGE_NS, _MAX_AHEAD_NS = 500_000_000, 50_000_000
_CODES = {
    Following.SUCCEEDED: Result.SUCCESSFUL,
    Following.CANCELLED: Result.SUCCESSFUL,
    Following.PATH_TOLERANCE: Result.PATH_TOLERANCE_VIOLATED,
    Following.GOAL_TOLERANCE: Result.GOAL_TOLERANCE_VIOLATED,
}


class TrajectoryFollower(Protocol):
    """What `twinloop.motion.trajectory_controller.TrajectoryController` offers."""

    @property
    def joint_names(self) -> tuple[str, ...]: ...

    @property
    def status(self) -> Status: ...

    @property
    def setpoint(self) -> Setpoint: ...

    @property
    def is_moving(self) -> bool: ...

    @property
    def default_tolerances(self) -> Tolerances: ...

    def start(self, trajectory: Trajectory, tolerances: Tolerances | None = None) -> int:
        """Raises MotionError where it cannot be followed."""

    def cancel(self, why: str = "cancelled") -> None: ...


@dataclass
class _Goal:
    handle: ServerGoalHandle
    number: int
    done: Future


class TrajectoryAction:
    """An action server in front of a follower; all in the thread of the node's executor.

    Args:
        node: that it belongs to.
        follower: what follows.
        now_ns: ROS time, ns.
        name: of the action.
        on_start: called whenever a trajectory was taken on.
    """

    def __init__(
        self,
        node: LifecycleNode,
        follower: TrajectoryFollower,
        now_ns: Callable[[], int],
        name: str = ARM_ACTION,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self._node = node
        self._follower = follower
        self._now_ns = now_ns
        self._on_start = on_start
        self._goal: _Goal | None = None
        self._fed_back_s = 0.0
        self._server = ActionServer(
            node,
            FollowJointTrajectory,
            name,
            _not_begun,
            goal_callback=lambda _request: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def close(self) -> None:
        self._server.destroy()

    def update(self, stamp_ns: int, q: Array, qd: Array) -> None:
        """End what is over, and tell clients how it goes on; to be called each tick.

        Args:
            stamp_ns: of what was measured, ns.
            q, qd: measured [J], rad, rad/s.
        """
        goal = self._goal
        if goal is None:
            return
        status = self._follower.status
        if status.number != goal.number:
            self._finish(goal, Status(Following.PREEMPTED, goal.number, "another took over"))
        elif status.is_over:
            # Who cancels is answered when the arm stands.
            moves = (np.abs(qd) > self._follower.default_tolerances.stopped).any()
            if status.state is not Following.CANCELLED or not (self._follower.is_moving or moves):
                self._finish(goal, status)
        elif (now_s := time.monotonic()) - self._fed_back_s >= _FEEDBACK_S:
            self._fed_back_s = now_s
            goal.handle.publish_feedback(self._feedback(stamp_ns, q, qd))

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        done = Future()
        try:
            trajectory, tolerances = self._read(handle.request)
            number = self._follower.start(trajectory, tolerances)
        except MotionError as error:
            self._node.get_logger().warning(f"trajectory refused: {error}")
            is_of_others = isinstance(error, TrajectoryRefused) and error.is_of_other_joints
            code = Result.INVALID_JOINTS if is_of_others else Result.INVALID_GOAL
            if isinstance(error, _Old):
                code = Result.OLD_HEADER_TIMESTAMP
            done.set_result((None, Result(error_code=code, error_string=str(error))))
        else:
            if self._goal is not None:
                newer = Status(Following.PREEMPTED, self._goal.number, "a newer one took over")
                self._finish(self._goal, newer)
            self._goal = _Goal(handle, number, done)
            self._on_start()
        handle.execute(partial(self._execute, done))

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._goal
        if goal is not None and goal.handle.goal_id == handle.goal_id:
            self._follower.cancel("cancelled by its client")
        return CancelResponse.ACCEPT

    async def _execute(self, done: Future, handle: ServerGoalHandle) -> Any:
        state, result = await done
        if state is Following.SUCCEEDED:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _finish(self, goal: _Goal, status: Status) -> None:
        if self._goal is goal:
            self._goal = None
        code = _CODES.get(status.state, Result.INVALID_GOAL)
        text = f"{status.state}: {status.detail}" if status.detail else str(status.state)
        goal.done.set_result((status.state, Result(error_code=code, error_string=text)))

    def _read(self, request: Any) -> tuple[Trajectory, Tolerances]:
        """Return what is asked for.

        Raises:
            TrajectoryRefused: a message that makes no trajectory; says why.
        """
        message = request.trajectory
        if request.multi_dof_trajectory.points:
            raise TrajectoryRefused("joints of several degrees of freedom are none of this arm's")
        stamp_ns = nanoseconds(message.header.stamp)
        if stamp_ns:
            age_ns = self._now_ns() - stamp_ns
            if age_ns > _MAX_AGE_NS:
                raise _Old(f"it was to begin {age_ns * 1e-9:.2f} s ago; a stamp of 0 begins now")
            if age_ns < -_MAX_AHEAD_NS:
                raise TrajectoryRefused(
                    f"it is to begin in {-age_ns * 1e-9:.2f} s; a stamp of 0 begins now"
                )
        names, points = tuple(message.joint_names), message.points
        trajectory = filled(
            names,
            [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in points],
            _column(points, "positions", len(names)),
            _column(points, "velocities", len(names)) if _any(points, "velocities") else None,
            _column(points, "accelerations", len(names)) if _any(points, "accelerations") else None,
        )
        return trajectory, self._tolerances(request)

    def _tolerances(self, request: Any) -> Tolerances:
        names, given = self._follower.joint_names, self._follower.default_tolerances
        path, goal, stopped = given.path.copy(), given.goal.copy(), given.stopped.copy()
        for what, tolerances in (
            ("path", request.path_tolerance),
            ("goal", request.goal_tolerance),
        ):
            for tolerance in tolerances:
                if tolerance.name not in names:
                    raise TrajectoryRefused(
                        f"a {what} tolerance is of joint {tolerance.name!r}, expected one of "
                        f"{list(names)}",
                        is_of_other_joints=True,
                    )
                joint = names.index(tolerance.name)
                position = path if what == "path" else goal
                position[joint] = _tolerance(tolerance.position, position[joint])
                if what == "goal":
                    stopped[joint] = _tolerance(tolerance.velocity, stopped[joint])
                elif tolerance.velocity > 0.0 or tolerance.acceleration > 0.0:
                    raise TrajectoryRefused(
                        f"a path tolerance of {tolerance.name} is of velocity or acceleration: "
                        "only positions are watched on the way"
                    )
        late = request.goal_time_tolerance
        late_s = late.sec + 1e-9 * late.nanosec
        goal_time_s = late_s if late_s > 0.0 else given.goal_time_s
        return replace(given, path=path, goal=goal, stopped=stopped, goal_time_s=goal_time_s)

    def _feedback(self, stamp_ns: int, q: Array, qd: Array) -> Any:
        told = self._follower.setpoint
        feedback = FollowJointTrajectory.Feedback(joint_names=list(self._follower.joint_names))
        feedback.header.stamp = time_message(stamp_ns)
        feedback.desired = JointTrajectoryPoint(
            positions=told.position.tolist(), velocities=told.velocity.tolist()
        )
        feedback.actual = JointTrajectoryPoint(positions=q.tolist(), velocities=qd.tolist())
        feedback.error = JointTrajectoryPoint(
            positions=(told.position - q).tolist(), velocities=(told.velocity - qd).tolist()
        )
        return feedback


def _not_begun(_handle: ServerGoalHandle) -> Any:
    raise AssertionError("goals are begun as they are accepted")


class _Old(TrajectoryRefused):
    """It was to begin too long ago."""


def _any(points: Sequence[Any], name: str) -> bool:
    return any(len(getattr(point, name)) for point in points)


def _column(points: Sequence[Any], name: str, joints: int) -> Array:
    for index, point in enumerate(points):
        found = len(getattr(point, name))
        if found != joints:
            raise TrajectoryRefused(f"its point {index} has {found} {name}, expected {joints}")
    return np.array([getattr(point, name) for point in points], dtype=np.float64)


def _tolerance(asked: float, default: float) -> float:
    """As the message has it: 0 stands for the default, less for none at all.

    Raises:
        TrajectoryRefused: not finite.
    """
    if not np.isfinite(asked):
        raise TrajectoryRefused(f"a tolerance is {asked}, expected a finite number")
    if asked == 0.0:
        return default
    return asked if asked > 0.0 else float("inf")
