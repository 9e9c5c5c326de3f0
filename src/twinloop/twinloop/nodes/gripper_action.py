# SPDX-License-Identifier: Apache-2.0
"""Serves a gripper's action for whatever has parallel fingers: a twin's gripper or a robot's.

As ros2_controllers and MoveIt have it, positions are of one finger's joint, m: half the width.
Stalling is success, since something is held then; the result tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from control_msgs.action import GripperCommand
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future

from twinloop.motion.errors import MotionError
from twinloop.motion.gripper_controller import Grip, GripperStatus, GripperTarget

GRIPPER_ACTION = "panda_gripper_controller/gripper_cmd"
_FEEDBACK_S = 0.05


class GripperFollower(Protocol):
    """What `twinloop.motion.gripper_controller.GripperController` offers."""

    @property
    def status(self) -> GripperStatus: ...

    @property
    def target(self) -> GripperTarget: ...

    def start(self, width_m: float, max_effort_n: float = 0.0) -> int:
        """Raises MotionError where it cannot be done."""

    def cancel(self, why: str = "cancelled") -> None: ...


@dataclass
class _Goal:
    handle: ServerGoalHandle
    number: int
    done: Future


class GripperAction:
    """An action server in front of a gripper; all in the thread of the node's executor.

    Args:
        node: that it belongs to.
        gripper: what opens and closes.
        name: of the action.
        on_start: called whenever a command was taken on.
    """

    def __init__(
        self,
        node: LifecycleNode,
        gripper: GripperFollower,
        name: str = GRIPPER_ACTION,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self._node = node
        self._gripper = gripper
        self._on_start = on_start
        self._goal: _Goal | None = None
        self._fed_back_s = 0.0
        self._server = ActionServer(
            node,
            GripperCommand,
            name,
            _not_begun,
            goal_callback=lambda _request: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def close(self) -> None:
        self._server.destroy()

    def update(self, width_m: float) -> None:
        """End what is over, and tell clients how it goes on; to be called each tick."""
        goal = self._goal
        if goal is None:
            return
        status = self._gripper.status
        if status.number != goal.number:
            self._finish(goal, Grip.PREEMPTED, width_m)
        elif status.is_over:
            self._finish(goal, status.state, width_m)
        elif (now_s := time.monotonic()) - self._fed_back_s >= _FEEDBACK_S:
            self._fed_back_s = now_s
            goal.handle.publish_feedback(
                GripperCommand.Feedback(
                    position=width_m / 2, effort=self._gripper.target.max_effort_n
                )
            )

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        done, command = Future(), handle.request.command
        try:
            number = self._gripper.start(2 * command.position, command.max_effort)
        except MotionError as error:
            self._node.get_logger().warning(f"gripper command refused: {error}")
            width_m = self._gripper.status.width_m
            done.set_result((Grip.IDLE, GripperCommand.Result(position=width_m / 2)))
        else:
            if self._goal is not None:
                self._finish(self._goal, Grip.PREEMPTED, self._gripper.status.width_m)
            self._goal = _Goal(handle, number, done)
            self._on_start()
        handle.execute(partial(self._execute, done))

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._goal
        if goal is not None and goal.handle.goal_id == handle.goal_id:
            self._gripper.cancel("cancelled by its client")
        return CancelResponse.ACCEPT

    async def _execute(self, done: Future, handle: ServerGoalHandle) -> Any:
        state, result = await done
        if state in (Grip.REACHED, Grip.STALLED):
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _finish(self, goal: _Goal, state: Grip, width_m: float) -> None:
        if self._goal is goal:
            self._goal = None
        is_stalled = state is Grip.STALLED
        result = GripperCommand.Result(
            position=width_m / 2,
            effort=self._gripper.target.max_effort_n if is_stalled else 0.0,
            stalled=is_stalled,
            reached_goal=state is Grip.REACHED,
        )
        goal.done.set_result((state, result))


def _not_begun(_handle: ServerGoalHandle) -> Any:
    raise AssertionError("goals are begun as they are accepted")
