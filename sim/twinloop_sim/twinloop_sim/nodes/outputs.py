# SPDX-License-Identifier: Apache-2.0
"""Everything that the twin node publishes."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory
from twinloop.contract.baoding import PALM_FRAME
from twinloop.nodes import qos
from twinloop.robots.hand24 import HAND24

from twinloop_interfaces.msg import GuardStatus, SceneState, TrackedBallArray
from twinloop_sim.nodes import messages
from twinloop_sim.nodes.guarded_cell import CellReading, GuardedCell

_STATUS_S = 0.5
_REFUSAL_S = 0.05  # refusals may come in floods
_GUARD = "guard"  # source of the goals that the guard sets by itself


class Outputs:
    """Publishers of a guarded cell.

    Args:
        node: that they belong to.
        guarded: the cell.
        with_clock: whether to publish /clock.
        with_balls: whether to publish what the stand-in for the tracker tells.
    """

    def __init__(
        self, node: LifecycleNode, guarded: GuardedCell, with_clock: bool, with_balls: bool
    ) -> None:
        self._node = node
        self._guarded = guarded
        self._names = list(HAND24.joint_names)
        self._clock = node.create_publisher(Clock, "/clock", qos.CLOCK) if with_clock else None
        self._joint_states = node.create_publisher(JointState, "joint_states", qos.SENSOR)
        self._setpoint = node.create_publisher(JointState, "setpoint", qos.SENSOR)
        self._balls = (
            node.create_publisher(TrackedBallArray, "balls", qos.SENSOR) if with_balls else None
        )
        self._scene = node.create_publisher(SceneState, "scene", qos.SENSOR)
        self._truth = node.create_publisher(TrackedBallArray, "truth", qos.SENSOR)
        self._applied = node.create_publisher(JointTrajectory, "applied_command", qos.EVENT)
        self._status = node.create_publisher(GuardStatus, "guard_status", qos.latched())
        self._has_setpoint_readers = False
        self._reported_at_s = 0.0
        self._reported: tuple[int, str, str] | None = None
        self._reported_refusals = 0
        self._last_joints: JointState | None = None
        self._last_balls: TrackedBallArray | None = None
        self._last_goal: JointTrajectory | None = None

    def close(self) -> None:
        for publisher in (
            self._clock,
            self._joint_states,
            self._setpoint,
            self._balls,
            self._scene,
            self._truth,
            self._applied,
            self._status,
        ):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def publish(self, reading: CellReading) -> None:
        """Publish a tick; joint states come last, because they trigger control steps."""
        stamp_ns = reading.stamp_ns
        if self._clock is not None:
            self._clock.publish(messages.clock_message(stamp_ns))
        self._publish_changes()
        if reading.exposures_left is not None and self._scene.get_subscription_count():
            state = self._guarded.cell.state[0]
            self._scene.publish(messages.scene_state(stamp_ns, state, reading.exposures_left))
        if reading.balls is not None and self._balls is not None:
            self._last_balls = messages.tracked_balls(PALM_FRAME, reading.balls)
            self._balls.publish(self._last_balls)
        if reading.is_control_step:
            truth = self._guarded.cell.truth()
            position, velocity = truth.ball_position[0], truth.ball_velocity[0]
            self._truth.publish(messages.true_balls(PALM_FRAME, stamp_ns, position, velocity))
        if self._has_setpoint_readers:
            self._setpoint.publish(messages.joint_state(self._names, stamp_ns, reading.setpoint))
        self._last_joints = messages.joint_state(
            self._names, stamp_ns, reading.position, reading.velocity
        )
        self._joint_states.publish(self._last_joints)

    def accept(self, stamp_ns: int, source: str, goal: messages.Array) -> None:
        """Publish what will be applied of an accepted command."""
        # Changes that came before it must not be taken for the newer ones.
        self._publish_changes()
        self._last_goal = messages.trajectory(self._names, stamp_ns, source, goal)
        self._applied.publish(self._last_goal)

    def repeat(self) -> None:
        """Say again what was said last: for a planner that was not there yet, or missed it."""
        if self._last_goal is not None:
            self._applied.publish(self._last_goal)
        if self._last_balls is not None and self._balls is not None:
            self._balls.publish(self._last_balls)
        if self._last_joints is not None:
            self._joint_states.publish(self._last_joints)

    def report(self, steady_s: float) -> None:
        """Publish the guard's changes at once, refusals soon, and its counters twice a second."""
        self._publish_changes()
        guard = self._guarded.guard
        said = (int(guard.state), guard.reason, guard.source)
        refused = guard.counters.refused
        patience_s = _STATUS_S if refused == self._reported_refusals else _REFUSAL_S
        if said != self._reported or steady_s >= self._reported_at_s + patience_s:
            self._reported, self._reported_refusals = said, refused
            self._reported_at_s = steady_s
            self._status.publish(messages.guard_status(guard, self._guarded.now_ns))
            self._has_setpoint_readers = self._setpoint.get_subscription_count() > 0

    def _publish_changes(self) -> None:
        for change in self._guarded.guard.take_changes():
            self._last_goal = messages.trajectory(self._names, change.stamp_ns, _GUARD, change.goal)
            self._applied.publish(self._last_goal)
