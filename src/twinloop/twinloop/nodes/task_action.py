# SPDX-License-Identifier: Apache-2.0
"""An action whose work runs in a thread of its own: one goal at a time, withdrawn at any point."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

from twinloop.nodes.base import Node
from twinloop.resets.faults import Fault
from twinloop.resets.machine import Outcome

_END_S = 5.0
_POLL_S = 0.05


class TaskAction:
    """Serves an action by a task of the arm.

    Args:
        node: that it belongs to; goals are taken while it is active.
        kind: of the action.
        name: of the action.
        work: carries a goal out, in the task's thread; asks `withdrawn` whether to give up.
        result: makes the action's result of an outcome.

    Attributes:
        withdrawn: once set, the task ends.
        last: how the last task ended.
    """

    def __init__(
        self,
        node: Node,
        kind: Any,
        name: str,
        work: Callable[[ServerGoalHandle], Outcome],
        result: Callable[[Outcome], Any],
    ) -> None:
        self.withdrawn = threading.Event()
        self.last: Outcome | None = None
        self._node = node
        self._work = work
        self._result = result
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None  # of the thread, for the executor's
        self._done: Future | None = None
        self._timer = node.create_timer(_POLL_S, self._poll, clock=node.steady_clock)
        self._server = ActionServer(
            node,
            kind,
            name,
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    @property
    def is_busy(self) -> bool:
        return self._done is not None

    def end(self) -> None:
        """Withdraw what is under way and wait for its end."""
        self.withdrawn.set()
        if self._thread is not None:
            self._thread.join(_END_S)
        self._poll()  # the client gets its answer also where the server goes next

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        self._server.destroy()

    def _on_goal(self, _request: Any) -> GoalResponse:
        is_free = self._node.is_active and not self.is_busy
        return GoalResponse.ACCEPT if is_free else GoalResponse.REJECT

    def _on_cancel(self, _handle: ServerGoalHandle) -> CancelResponse:
        self.withdrawn.set()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        self.withdrawn.clear()
        self._outcome, self._done = None, Future()
        self._thread = threading.Thread(target=self._run, args=(handle,), daemon=True)
        self._thread.start()
        outcome: Outcome = await self._done
        self.last = outcome
        if outcome.success:
            handle.succeed()
            self._node.get_logger().info(f"{outcome.message} after {outcome.seconds:.1f} s")
        elif outcome.fault is Fault.CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
            self._node.get_logger().error(f"failed: {outcome.fault}: {outcome.message}")
        return self._result(outcome)

    def _poll(self) -> None:
        if self._outcome is not None and self._done is not None:
            done, self._done = self._done, None
            done.set_result(self._outcome)

    def _run(self, handle: ServerGoalHandle) -> None:
        """Carry a goal out; in a thread of its own."""
        try:
            self._outcome = self._work(handle)
        except Exception as error:  # whatever it is, the client gets an answer
            message = f"{type(error).__name__}: {error}"
            self._outcome = Outcome(Fault.ARM_FAILED, message, 0.0, (), {})
