# SPDX-License-Identifier: Apache-2.0
"""What a node with a command guard tells of it: `applied_command` and `guard_status`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from trajectory_msgs.msg import JointTrajectory

from twinloop.nodes import qos
from twinloop.nodes.joint_messages import guard_status, trajectory
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GoalChange
from twinloop_interfaces.msg import GuardStatus

_STATUS_S = 0.5
_REFUSAL_S = 0.05  # refusals may come in floods
GUARD = "guard"  # source of the goals that the guard sets by itself


class GuardTopics:
    """Publishers of a guard; all calls come from one thread.

    Args:
        node: that they belong to.
        names: of the joints.
        prefix: of the topics' names.
    """

    def __init__(self, node: LifecycleNode, names: Sequence[str], prefix: str = "") -> None:
        self._node = node
        self._names = list(names)
        self._applied = node.create_publisher(
            JointTrajectory, f"{prefix}applied_command", qos.EVENT
        )
        self._status = node.create_publisher(GuardStatus, f"{prefix}guard_status", qos.latched())
        self._reported_at_s = 0.0
        self._reported: tuple[int, str, str] | None = None
        self._reported_refusals = 0
        self._last: JointTrajectory | None = None

    def close(self) -> None:
        self._node.destroy_publisher(self._applied)
        self._node.destroy_publisher(self._status)

    def accept(self, stamp_ns: int, source: str, goal: NDArray[np.float64]) -> None:
        """Publish what will be applied of an accepted command; older changes come first."""
        self._last = trajectory(self._names, stamp_ns, source, goal)
        self._applied.publish(self._last)

    def repeat(self) -> None:
        """Publish the goal that was told last once more: for those who were not there yet."""
        if self._last is not None:
            self._applied.publish(self._last)

    def publish(self, changes: Iterable[GoalChange]) -> None:
        """Publish goals that the guard set by itself."""
        for change in changes:
            self.accept(change.stamp_ns, GUARD, change.goal)

    def report(self, guard: CommandGuard, now_ns: int, steady_s: float) -> bool:
        """Publish changes of the guard's state at once, refusals soon, counters twice a second.

        Returns whether it was time to.
        """
        said = (int(guard.state), guard.reason, guard.source)
        refused = guard.counters.refused
        patience_s = _STATUS_S if refused == self._reported_refusals else _REFUSAL_S
        if said == self._reported and steady_s < self._reported_at_s + patience_s:
            return False
        self._reported, self._reported_refusals = said, refused
        self._reported_at_s = steady_s
        self._status.publish(guard_status(guard, now_ns))
        return True
