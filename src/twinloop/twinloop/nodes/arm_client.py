# SPDX-License-Identifier: Apache-2.0
"""Moves an arm and its gripper through their actions: a twin's or a robot's.

What is begun is a `Goal` to look at, or to be told of when it is over::

    arm = ArmClient(node)
    motion = arm.execute(trajectory)
    motion.on_end(lambda: ...)               # or look at motion.is_over
    motion.cancel()                          # it brakes; over when it stands

Planners may wait, in a thread of their own::

    planner = make_planner(current=lambda: arm.position, execute=arm.carry_out)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory, GripperCommand
from control_msgs.msg import JointTolerance
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from twinloop.contract import stamp_of
from twinloop.motion.trajectory import Trajectory
from twinloop.nodes import qos
from twinloop.nodes.action_client import AnyThreadActionClient
from twinloop.nodes.gripper_action import GRIPPER_ACTION
from twinloop.nodes.trajectory_action import ARM_ACTION
from twinloop.robots.panda import FINGER_JOINTS, PANDA

Array = NDArray[np.float64]


class Goal:
    """One goal of an action, from its sending on.

    Attributes:
        is_over: whether there is an answer.
        succeeded: whether it came to its end.
        was_cancelled: whether it was given up on request.
        why: what the server says; what is wrong where there is none.
        result: of the action, once it is over and was not refused.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.succeeded = False
        self.was_cancelled = False
        self.why = ""
        self.result: Any = None
        self._handle: Any = None
        self._is_unwanted = False
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call back when it is over; at once if it is."""
        with self._lock:
            if not self.is_over:
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Give it up; it is over when the arm stands. No harm where it is over."""
        self._is_unwanted = True
        if self._handle is not None and not self.is_over:
            self._handle.cancel_goal_async()

    def sent(self, future: Any) -> Goal:
        """Follow what was sent."""
        future.add_done_callback(self._on_answer)
        return self

    def end(self, why: str) -> Goal:
        """Be over without ever having begun."""
        self._finish(why=why)
        return self

    def _on_answer(self, future: Any) -> None:
        if future.exception() is not None:
            self._finish(why=f"{type(future.exception()).__name__}: {future.exception()}")
            return
        self._handle = future.result()
        if not self._handle.accepted:
            self._finish(why="rejected by its action server")
            return
        self._handle.get_result_async().add_done_callback(self._on_result)
        if self._is_unwanted:
            self._handle.cancel_goal_async()

    def _on_result(self, future: Any) -> None:
        if future.exception() is not None:
            self._finish(why=f"{type(future.exception()).__name__}: {future.exception()}")
            return
        answer = future.result()
        self.result = answer.result
        self.succeeded = answer.status == GoalStatus.STATUS_SUCCEEDED
        self.was_cancelled = answer.status == GoalStatus.STATUS_CANCELED
        self._finish(why=getattr(answer.result, "error_string", ""))

    def _finish(self, why: str) -> None:
        with self._lock:
            if self.is_over:
                return
            self.is_over, self.why = True, why
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class ArmClient:
    """Sends trajectories and widths, and hears where the joints are.

    Args:
        node: whose executor is spun.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._names = (*PANDA.joint_names, *FINGER_JOINTS)
        self._heard_s = -np.inf
        self.position = np.full(7, np.nan)
        self.velocity = np.full(7, np.nan)
        self.torque = np.full(7, np.nan)  # what joint_states call effort
        self.stamp_s = 0.0
        self.width_m = float("nan")
        self._trajectories = AnyThreadActionClient(node, FollowJointTrajectory, ARM_ACTION)
        self._gripper = AnyThreadActionClient(node, GripperCommand, GRIPPER_ACTION)
        self._joints = node.create_subscription(
            JointState, "arm/joint_states", self._on_joints, qos.SENSOR
        )

    def close(self) -> None:
        self._trajectories.destroy()
        self._gripper.destroy()
        self._node.destroy_subscription(self._joints)

    @property
    def missing(self) -> str:
        """Name what is not there yet; empty where all is."""
        if not self._trajectories.server_is_ready():
            return f"an arm (action {ARM_ACTION})"
        if not self._gripper.server_is_ready():
            return f"a gripper (action {GRIPPER_ACTION})"
        return "" if np.isfinite(self.position).all() else "the arm's joints (arm/joint_states)"

    @property
    def silent_s(self) -> float:
        """For how long the arm's joints were not heard of, steady s."""
        return time.monotonic() - self._heard_s

    def execute(
        self, trajectory: Trajectory, goal_tolerance: float = 0.0, goal_time_s: float = 0.0
    ) -> Goal:
        """Send a trajectory.

        Args:
            trajectory: from where the arm is.
            goal_tolerance: at its end, rad; 0 for the server's own.
            goal_time_s: how long after its end it may take to get there; 0 for the server's own.
        """
        if not self._trajectories.server_is_ready():
            return Goal().end(f"there is no action {ARM_ACTION}")
        goal = FollowJointTrajectory.Goal(trajectory=trajectory_message(trajectory))
        if goal_tolerance:
            goal.goal_tolerance = [
                JointTolerance(name=name, position=goal_tolerance)
                for name in trajectory.joint_names
            ]
        goal.goal_time_tolerance = _duration(goal_time_s)
        return Goal().sent(self._trajectories.send_goal_async(goal))

    def carry_out(self, trajectory: Trajectory, patience_s: float = 60.0) -> bool:
        """Execute and wait, in another thread than the node's; returns whether it succeeded.

        Args:
            patience_s: steady time beyond the motion's own, after which it is cancelled.
        """
        goal, done = self.execute(trajectory), threading.Event()
        goal.on_end(done.set)
        if not done.wait(trajectory.duration + patience_s):
            goal.cancel()
        return goal.succeeded

    def grip(self, width_m: float, max_effort_n: float = 0.0) -> Goal:
        """Open or close to a width between the fingers; its result tells `stalled`."""
        if not self._gripper.server_is_ready():
            return Goal().end(f"there is no action {GRIPPER_ACTION}")
        goal = GripperCommand.Goal()
        goal.command.position, goal.command.max_effort = width_m / 2, max_effort_n
        return Goal().sent(self._gripper.send_goal_async(goal))

    def _on_joints(self, message: JointState) -> None:
        where = {name: index for index, name in enumerate(message.name)}
        if any(name not in where for name in self._names):
            return
        order = [where[name] for name in self._names]
        position = np.array(message.position)[order]
        self.position, self.width_m = position[:7], float(position[7:].sum())
        if len(message.velocity) == len(message.name):
            self.velocity = np.array(message.velocity)[order][:7]
        if len(message.effort) == len(message.name):
            self.torque = np.array(message.effort)[order][:7]
        self.stamp_s = stamp_of(message) * 1e-9
        self._heard_s = time.monotonic()


def trajectory_message(trajectory: Trajectory) -> JointTrajectory:
    """A trajectory as a message that begins when it arrives."""
    rows: Sequence[Any] = list(
        zip(
            trajectory.time.tolist(),
            trajectory.position.tolist(),
            trajectory.velocity.tolist(),
            trajectory.acceleration.tolist(),
            strict=True,
        )
    )
    return JointTrajectory(
        joint_names=list(trajectory.joint_names),
        points=[
            JointTrajectoryPoint(
                time_from_start=_duration(time_s), positions=x, velocities=v, accelerations=a
            )
            for time_s, x, v, a in rows
        ],
    )


def _duration(seconds: float) -> Duration:
    whole, nanoseconds = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(sec=whole, nanosec=nanoseconds)
