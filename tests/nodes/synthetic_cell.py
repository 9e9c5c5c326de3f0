# SPDX-License-Identifier: Apache-2.0
"""A cell without a robot, as a process: random samples at the cell's rates, and a live planner.

The planner part gets its samples over DDS, assembles them through the contract and publishes what
it had in `plan_stats`; its commands come back changed, as a guard would, on `applied_command`.
Run as `python synthetic_cell.py EPISODES STEPS [SUBSCRIBERS]`; it waits for that many subscribers
of `joint_states`, itself included, and prints a line when an episode starts and ends.
"""

from __future__ import annotations

import sys
from collections import deque

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from rclpy.clock import Clock, ClockType
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from twinloop.contract import Assembler, ObservationUnavailable, stamp_of
from twinloop.nodes import qos

from twinloop import contract
from twinloop_interfaces.msg import (
    EpisodeStatus,
    GuardStatus,
    ModelAnnouncement,
    PlanStats,
    TaskGoal,
    TrackedBall,
    TrackedBallArray,
)

TICK_NS = 10_000_000
TICKS_PER_STEP = 10
FRAME_TICKS = (0, 3, 7)
DELIVERY_TICKS = 2
EPISODE_ID = "synthetic-{}"


def to_time(nanoseconds: int) -> Time:
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


class SyntheticRobot(Node):
    """Publishes what a twin node publishes, with random contents."""

    def __init__(self) -> None:
        super().__init__("synthetic_robot")
        self.contract = contract.load("baoding")
        self.names = list(self.contract.action.elements)
        self.rng = np.random.default_rng(1)
        self.tick = 0
        self.goal = np.zeros(len(self.names))
        self.goal_tick = -TICKS_PER_STEP
        self.frames: deque[tuple[int, TrackedBallArray]] = deque()
        start = self.get_clock().now().nanoseconds
        self.start_ns = start - start % TICK_NS
        self.joints = self.create_publisher(JointState, "joint_states", qos.SENSOR)
        self.balls = self.create_publisher(TrackedBallArray, "balls", qos.SENSOR)
        self.truth = self.create_publisher(TrackedBallArray, "truth", qos.SENSOR)
        self.applied = self.create_publisher(JointTrajectory, "applied_command", 10)
        self.guard = self.create_publisher(GuardStatus, "guard_status", qos.latched())
        self.stop = self.create_publisher(Bool, "emergency_stop", qos.HEARTBEAT)
        self.create_subscription(JointTrajectory, "command", self.take_command, qos.COMMAND)
        self.create_timer(
            TICK_NS / 1e9, self.advance, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    @property
    def now_ns(self) -> int:
        return self.start_ns + self.tick * TICK_NS

    def advance(self) -> None:
        self.tick += 1
        phase = self.tick % TICKS_PER_STEP
        if phase in FRAME_TICKS:
            self.frames.append((self.tick + DELIVERY_TICKS, self.seen()))
        while self.frames and self.frames[0][0] <= self.tick:
            self.balls.publish(self.frames.popleft()[1])
        if phase in FRAME_TICKS:
            self.truth.publish(self.seen())
        if self.tick - self.goal_tick >= TICKS_PER_STEP + 5:
            # One tick back, so that no step is planned from a goal dated as its own command.
            self.publish_goal(to_time(self.now_ns - TICK_NS))
        if phase == 0:
            self.guard.publish(GuardStatus(stamp=to_time(self.now_ns), state=GuardStatus.ACTIVE))
        if phase in (0, 5):
            self.stop.publish(Bool(data=False))
        message = JointState(name=self.names)
        message.header.stamp = to_time(self.now_ns)
        message.position = self.rng.normal(size=len(self.names)).tolist()
        message.velocity = self.rng.normal(size=len(self.names)).tolist()
        self.joints.publish(message)

    def seen(self) -> TrackedBallArray:
        array = TrackedBallArray()
        array.header.stamp = to_time(self.now_ns)
        array.header.frame_id = "rh_palm"
        for number in (0, 1):
            x, y, z, u, v, w = self.rng.normal(size=6)
            array.balls.append(
                TrackedBall(
                    id=number,
                    position=Point(x=x, y=y, z=z),
                    velocity=Vector3(x=u, y=v, z=w),
                    visible_fraction=1.0,
                    stale=bool(self.rng.random() < 0.1),
                )
            )
        return array

    def take_command(self, command: JointTrajectory) -> None:
        self.goal = np.clip(command.points[0].positions, -0.5, 0.5)
        self.publish_goal(command.header.stamp)

    def publish_goal(self, stamp: Time) -> None:
        self.goal_tick = self.tick
        point = JointTrajectoryPoint(positions=self.goal.tolist())
        message = JointTrajectory(joint_names=self.names, points=[point])
        message.header.stamp = stamp
        self.applied.publish(message)


class SyntheticPlanner(Node):
    """Takes a control step every 0.1 s of the samples' stamps, and tells of it."""

    def __init__(self, episodes: int, steps: int) -> None:
        super().__init__("synthetic_planner")
        self.contract = contract.load("baoding")
        self.assembler = Assembler(self.contract)
        self.rng = np.random.default_rng(2)
        self.episodes, self.steps = episodes, steps
        self.episode, self.step = 0, 0
        self.due_ns: int | None = None
        self.running = self.finished = False
        self.pause_until_ns = 0
        self.stats = self.create_publisher(PlanStats, "plan_stats", qos.EVENT)
        self.command = self.create_publisher(JointTrajectory, "command", qos.COMMAND)
        self.status = self.create_publisher(EpisodeStatus, "episode_status", qos.latched())
        self.model = self.create_publisher(ModelAnnouncement, "model", qos.latched(10))
        self.model.publish(ModelAnnouncement(version="v0001", status=ModelAnnouncement.PROMOTED))
        self.goal = self.create_publisher(TaskGoal, "task_goal", qos.latched())
        self.create_subscription(JointState, "joint_states", self.take_joints, qos.SENSOR)
        self.create_subscription(
            TrackedBallArray, "balls", lambda m: self.assembler.feed("balls", m), qos.SENSOR
        )
        self.create_subscription(
            JointTrajectory,
            "applied_command",
            lambda m: self.assembler.feed("applied_command", m),
            10,
        )

    def take_joints(self, message: JointState) -> None:
        self.assembler.feed("joint_states", message)
        stamp_ns = stamp_of(message)
        if self.finished:
            return
        if not self.running:
            if stamp_ns >= self.pause_until_ns:
                self.begin(stamp_ns)
            return
        if self.due_ns is not None and stamp_ns < self.due_ns:
            return
        try:
            observation = self.assembler.assemble(stamp_ns)
        except ObservationUnavailable as error:
            self.stats.publish(PlanStats(episode_id=self.episode_id, stop_reason=str(error)))
            self.end(stamp_ns, str(error))
            return
        action = self.rng.uniform(-0.6, 0.6, self.contract.action_size)
        stats = PlanStats(
            episode_id=self.episode_id,
            step=self.step,
            model_version="v0001",
            channels=list(observation.sample_stamps_ns),
            channel_stamps=[to_time(s) for s in observation.sample_stamps_ns.values()],
            observation=observation.vector.tolist(),
            action=action.tolist(),
        )
        stats.header.stamp = message.header.stamp
        command = JointTrajectory(
            joint_names=list(self.contract.action.elements),
            points=[JointTrajectoryPoint(positions=action.tolist())],
        )
        command.header.stamp = message.header.stamp
        command.header.frame_id = "planner"
        self.command.publish(command)
        self.stats.publish(stats)
        self.due_ns = stamp_ns + TICKS_PER_STEP * TICK_NS
        self.step += 1
        if self.step == self.steps:
            self.end(stamp_ns, "time is up")

    @property
    def episode_id(self) -> str:
        return EPISODE_ID.format(self.episode)

    def begin(self, stamp_ns: int) -> None:
        self.running, self.step, self.due_ns = True, 0, None
        self.tell(EpisodeStatus.RUNNING, stamp_ns, "")
        goal = TaskGoal(episode_id=self.episode_id, task="baoding", goal="ccw")
        goal.header.stamp = to_time(stamp_ns)
        self.goal.publish(goal)
        print(f"started {self.episode_id}", flush=True)

    def end(self, stamp_ns: int, reason: str) -> None:
        self.tell(EpisodeStatus.ENDED, stamp_ns, reason)
        print(f"ended {self.episode_id}: {reason}", flush=True)
        self.running = False
        self.episode += 1
        self.finished = self.episode == self.episodes
        self.pause_until_ns = stamp_ns + 10**9

    def tell(self, phase: int, stamp_ns: int, reason: str) -> None:
        status = EpisodeStatus(
            episode_id=self.episode_id,
            index=self.episode,
            total=self.episodes,
            phase=phase,
            step=self.step,
            task="baoding",
            goal="ccw",
            seed=7,
            model_version="v0001",
            rotation_deg=12.5,
            stop_reason=reason,
        )
        status.header.stamp = to_time(stamp_ns)
        self.status.publish(status)


def main() -> None:
    episodes, steps = int(sys.argv[1]), int(sys.argv[2])
    subscribers = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    rclpy.init()
    robot = SyntheticRobot()
    planner = SyntheticPlanner(episodes, steps)
    planner.finished = True  # until everybody listens
    executor = EventsExecutor()
    executor.add_node(robot)
    executor.add_node(planner)
    listening = False
    while not (listening and planner.finished and robot.now_ns > planner.pause_until_ns):
        executor.spin_once(timeout_sec=0.1)
        if not listening and robot.joints.get_subscription_count() >= subscribers:
            listening = True
            planner.finished = False
            planner.pause_until_ns = robot.now_ns + 10**9
    rclpy.shutdown()


if __name__ == "__main__":
    main()
