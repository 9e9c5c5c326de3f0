# SPDX-License-Identifier: Apache-2.0
"""Everything that the twin node publishes."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from twinloop.contract.baoding import PALM_FRAME
from twinloop.nodes import qos
from twinloop.nodes.guard_topics import GuardTopics
from twinloop.nodes.joint_messages import joint_state
from twinloop.robots.hand24 import HAND24

from twinloop_interfaces.msg import SceneState, TrackedBallArray
from twinloop_sim.nodes import messages
from twinloop_sim.nodes.guarded_cell import CellReading, GuardedCell


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
        self._guard_topics = GuardTopics(node, self._names)
        self._has_setpoint_readers = False
        self._last_joints: JointState | None = None
        self._last_balls: TrackedBallArray | None = None
        self._last_scene: SceneState | None = None

    def close(self) -> None:
        for publisher in (
            self._clock,
            self._joint_states,
            self._setpoint,
            self._balls,
            self._scene,
            self._truth,
        ):
            if publisher is not None:
                self._node.destroy_publisher(publisher)
        self._guard_topics.close()

    def publish(self, reading: CellReading) -> None:
        """Publish a tick; joint states come last, because they trigger control steps."""
        stamp_ns = reading.stamp_ns
        if self._clock is not None:
            self._clock.publish(messages.clock_message(stamp_ns))
        self._publish_changes()
        if reading.exposures_left is not None and self._scene.get_subscription_count():
            state = self._guarded.cell.state[0]
            self._last_scene = messages.scene_state(stamp_ns, state, reading.exposures_left)
            self._scene.publish(self._last_scene)
        if reading.balls is not None and self._balls is not None:
            self._last_balls = messages.tracked_balls(PALM_FRAME, reading.balls)
            self._balls.publish(self._last_balls)
        if reading.is_control_step:
            truth = self._guarded.cell.truth()
            position, velocity = truth.ball_position[0], truth.ball_velocity[0]
            self._truth.publish(messages.true_balls(PALM_FRAME, stamp_ns, position, velocity))
        if self._has_setpoint_readers:
            self._setpoint.publish(joint_state(self._names, stamp_ns, reading.setpoint))
        self._last_joints = joint_state(self._names, stamp_ns, reading.position, reading.velocity)
        self._joint_states.publish(self._last_joints)

    def accept(self, stamp_ns: int, source: str, goal: messages.Array) -> None:
        """Publish what will be applied of an accepted command."""
        # Changes that came before it must not be taken for the newer ones.
        self._publish_changes()
        self._guard_topics.accept(stamp_ns, source, goal)

    def repeat(self) -> None:
        """Say again what was said last: for a planner that was not there yet, or missed it, and for
        cameras whose images were lost on their way to the tracker."""
        self._guard_topics.repeat()
        if self._last_balls is not None and self._balls is not None:
            self._balls.publish(self._last_balls)
        if self._last_scene is not None and self._scene.get_subscription_count():
            self._scene.publish(self._last_scene)
        if self._last_joints is not None:
            self._joint_states.publish(self._last_joints)

    def report(self, steady_s: float) -> None:
        """Publish the guard's changes at once, refusals soon, and its counters twice a second."""
        self._publish_changes()
        if self._guard_topics.report(self._guarded.guard, self._guarded.now_ns, steady_s):
            self._has_setpoint_readers = self._setpoint.get_subscription_count() > 0

    def _publish_changes(self) -> None:
        self._guard_topics.publish(self._guarded.guard.take_changes())
