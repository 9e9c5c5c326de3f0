# SPDX-License-Identifier: Apache-2.0
"""Planner node: observations in, one command every control step out."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rclpy.duration import Duration
from rclpy.time import Time
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from twinloop import contract as contracts
from twinloop import planners, tasks
from twinloop.contract import MalformedMessage, stamp_of
from twinloop.contract.baoding import PALM_FRAME
from twinloop.learning.swap import ModelSlot
from twinloop.models.base import DynamicsModel
from twinloop.nodes import qos
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.messages import message_class
from twinloop.nodes.parameters import ParameterSpec
from twinloop.nodes.point_clouds import to_cloud
from twinloop.nodes.sharing import Sharing
from twinloop.paths import share
from twinloop.planners import shared
from twinloop.planners.base import Planner, ShowsRollouts
from twinloop.planners.control import ControlLoop, Step
from twinloop.planners.schedule import Lateness
from twinloop.planners.shared import SharedMPPI
from twinloop.tasks.base import Task
from twinloop.views.plan_points import PlanPoints
from twinloop_interfaces.msg import ModelAnnouncement, PlanStats, TaskGoal
from twinloop_interfaces.srv import SetGoal, StartPlanning

SHIPPED = "shipped"
BALLS = "balls"
POLICY = "policy"
_SHOWN = 16  # rollouts, the cheapest


class PlannerNode(Node):
    """Wires a ControlLoop to its topics; swaps models between two steps."""

    parameters = (
        ParameterSpec("task", "baoding", "Task, and contract, that is planned for"),
        ParameterSpec(
            "planner",
            planners.DEFAULT,
            "Planner, one of those in twinloop.planners",
            choices=tuple(planners.available()),
        ),
        ParameterSpec("device", "cpu", "Where plans are made", choices=("cpu", "cuda")),
        ParameterSpec("model", SHIPPED, "Folder of the model, or 'shipped'"),
        ParameterSpec("registry", "", "Registry whose current model is used, if it has one"),
        ParameterSpec("seed", 0, "Seed of the planner's noise", 0, 2**31 - 1),
        ParameterSpec(
            "rtf", 1.0, "Pace of the stamps, for measuring lateness; 0: not measured", 0.0, 1000.0
        ),
        ParameterSpec(
            "fresh_balls_s",
            0.0,
            "A step waits for balls seen at most this long before it; 0: takes what there is [s]",
            0.0,
            1.0,
        ),
        ParameterSpec(
            "sampled",
            False,
            "A policy acts with its own noise, as learning it needs; before there is one it moves "
            "at random",
        ),
        ParameterSpec(
            "smoothing", 0.0, "Of a policy: share of the action before in each one", 0.0, 0.99
        ),
        ParameterSpec("shared", False, "Do what a pilot commands as nearly as its cost allows"),
        ParameterSpec(
            "alpha", 0.5, "Of sharing: 0 the pilot alone, 1 autonomy alone", 0.0, 1.0, dynamic=True
        ),
        ParameterSpec("threads", 1, "Threads of the matrix products", 1, 64),
        ParameterSpec("nice", -10, "Niceness asked for; needs the privilege below 0", -20, 19),
    )

    def __init__(self) -> None:
        super().__init__("planner")
        self._loop: ControlLoop | None = None
        self._slot: ModelSlot | None = None
        self._version = ""
        self._episode_id = ""
        self._malformed = 0
        self._last_complaint = ""
        self._sharing: Sharing | None = None

    def configure(self) -> None:
        torch.set_num_threads(self.param("threads"))
        with contextlib.suppress(PermissionError):
            # Without the privilege the planner runs at the usual priority.
            os.nice(self.param("nice") - os.nice(0))
        name = self.param("task")
        contract = contracts.load(name)
        self._slot = ModelSlot(contract)
        path = self._model_path()
        model, self._version = self._slot.load(path)
        task = tasks.make(name)
        planner = self._make_planner(model, task)
        fresh_s = self.param("fresh_balls_s")
        self._loop = ControlLoop(contract, planner, {BALLS: fresh_s} if fresh_s else None)
        self._warm_up()
        pace = self.param("rtf")
        self._lateness = Lateness(pace) if pace > 0 else None
        self._command = self.create_publisher(JointTrajectory, contract.action.topic, qos.COMMAND)
        self._stats = self.create_publisher(PlanStats, "plan_stats", qos.EVENT)
        self._rollouts = self.create_publisher(PointCloud2, "plan_rollouts", qos.SENSOR)
        self._points = PlanPoints(contract)
        for topic, type_name in self._loop.topics.items():
            profile = qos.EVENT if topic == contract.action.applied_topic else qos.SENSOR
            callback = self.guarded(partial(self._on_sample, topic))
            self.create_subscription(message_class(type_name), topic, callback, profile)
        if isinstance(planner, SharedMPPI):
            self._sharing = Sharing(self, contract, planner)
        self.create_subscription(ModelAnnouncement, "model", self._on_model, qos.latched(10))
        self.create_service(StartPlanning, "start_planning", self._on_start)
        self.create_service(Trigger, "stop_planning", self._on_stop)
        self.create_service(SetGoal, "set_goal", self._on_set_goal)
        self._goal = self.create_publisher(TaskGoal, "task_goal", qos.latched())
        self.get_logger().info(f"plans {name} with model {self._version} from {path}")

    def parameter_changed(self, name: str, value: Any) -> None:
        if name == "alpha" and self._sharing is not None:
            self._sharing.alpha = value

    def activate(self) -> None:
        # What is alive now stays out of later collections, which would delay a step.
        gc.collect()
        gc.freeze()

    def deactivate(self) -> None:
        if self._loop is not None and self._loop.is_running:
            self._stop("planner deactivated")

    def close(self) -> None:
        if self._slot is not None:
            self._slot.close()

    def health(self) -> Health:
        if self._loop is None:
            return Health(WARN, "not configured")
        values = {
            "model": self._version,
            "planning": str(self._loop.is_running).lower(),
            "task": self.param("task"),
            "goals": ", ".join(self._loop.planner.task.goals),
            "skipped_steps": str(self._loop.skipped_steps),
            "malformed_samples": str(self._malformed),
        }
        if self._sharing is not None:
            values |= self._sharing.values()
        if self._last_complaint:
            return Health(ERROR, self._last_complaint, values)
        return Health(OK, "planning" if self._loop.is_running else "idle", values)

    def _model_path(self) -> Path:
        if self.param("model") != SHIPPED:
            return Path(self.param("model"))
        if self.param("registry"):
            from twinloop.learning.registry import Registry

            registry = Registry(Path(self.param("registry")), contracts.load(self.param("task")))
            current = registry.current()
            if current is not None:
                return registry.path(current)
        return shipped_model(self.param("task"))

    def _make_planner(self, model: DynamicsModel, task: Task) -> Planner:
        """Make the planner that is asked for.

        Raises:
            ValueError: a planner is to be shared, sampled from or smoothed, that cannot be.
        """
        name, seed, device = (self.param(key) for key in ("planner", "seed", "device"))
        changes = {key: self.param(key) for key in ("sampled", "smoothing") if self.param(key)}
        if changes and name != POLICY:
            raise ValueError(
                f"parameter planner is {name!r}, expected {POLICY!r} for {' and '.join(changes)}"
            )
        if not self.param("shared"):
            return planners.make(name, model, task, seed, device=device, **changes)
        if name != shared.BASE:
            raise ValueError(f"parameter planner is {name!r}, expected {shared.BASE!r} to share")
        return shared.make(model, task, seed, self.param("alpha"), device=device)

    def _warm_up(self) -> None:
        """Plan a few times into the void, so that the first real step is as quick as the rest."""
        assert self._loop is not None
        planner = self._loop.planner
        observation = torch.zeros(self._loop.contract.observation_size)
        if isinstance(planner, SharedMPPI):
            planner.pilot = observation[None, planner.task.command]
        for _ in range(3):
            planner.plan(observation, planner.task.targets(observation, planner.horizon))

    def _on_start(
        self, request: StartPlanning.Request, response: StartPlanning.Response
    ) -> StartPlanning.Response:
        assert self._loop is not None
        if not self.is_active:
            response.message = "the planner is not active"
        elif self._loop.is_running:
            response.message = f"episode {self._episode_id} is still being planned"
        elif request.task != self.param("task"):
            response.message = f"task is {request.task!r}, expected {self.param('task')!r}"
        else:
            try:
                task = tasks.make(request.task, request.goal)
            except ValueError as error:
                response.message = str(error)
                return response
            self._episode_id, self._last_complaint = request.episode_id, ""
            self._loop.start(task, request.seed, request.steps)
            response.success = True
        return response

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._loop is not None
        response.success = self._loop.is_running
        response.message = "stopped" if response.success else "was not planning"
        if response.success:
            self._stop("stopped on request")
        return response

    def _on_set_goal(
        self, request: SetGoal.Request, response: SetGoal.Response
    ) -> SetGoal.Response:
        """Change what the running episode is after."""
        assert self._loop is not None
        if not self.is_active or not self._loop.is_running:
            response.message = "no episode is being planned"
            return response
        try:
            task = tasks.make(self.param("task"), request.goal, list(request.places))
        except ValueError as error:
            response.message = str(error)
            return response
        self._loop.change_task(task)
        response.accepted = True
        return response

    def _say_goal(self, task: Task, due_ns: int) -> None:
        message = TaskGoal(
            episode_id=self._episode_id,
            task=task.name,
            goal=task.goal,
            places=task.goal_values,
        )
        message.header.stamp = Time(nanoseconds=due_ns).to_msg()
        self._goal.publish(message)
        self.get_logger().info(f"episode {self._episode_id}: goal {task.goal}")

    def _stop(self, reason: str) -> None:
        assert self._loop is not None
        self._loop.stop()
        stats = PlanStats(
            episode_id=self._episode_id, model_version=self._version, stop_reason=reason
        )
        stats.header.stamp = self.get_clock().now().to_msg()
        self._stats.publish(stats)

    def _on_model(self, announcement: ModelAnnouncement) -> None:
        assert self._slot is not None
        if announcement.status == ModelAnnouncement.PROMOTED:
            self._slot.offer(Path(announcement.path), announcement.version)

    def _on_sample(self, topic: str, message: Any) -> None:
        arrived_s = time.monotonic()
        loop = self._loop
        assert loop is not None
        try:
            loop.feed(topic, message)
        except MalformedMessage as error:
            self._malformed += 1
            self._last_complaint = str(error)
            return
        if not self.is_active:
            return
        if topic == loop.contract.trigger:
            stamp_ns = stamp_of(message)
            if self._lateness is not None:
                self._lateness.observe(stamp_ns, arrived_s)
            if not loop.is_running:
                return
            self._swap_model()
            if isinstance(loop.planner, ShowsRollouts):
                loop.planner.keeps_rollouts = self._rollouts.get_subscription_count() > 0
            if self._sharing is not None:
                self._sharing.hear()
            started_s = time.monotonic()
            step = loop.trigger(stamp_ns)
        else:
            if self._sharing is not None:
                self._sharing.hear()
            started_s = time.monotonic()
            step = loop.retry()
        if step is not None:
            self._publish(step, started_s)

    def _swap_model(self) -> None:
        assert self._slot is not None
        assert self._loop is not None
        taken = self._slot.take()
        if taken is not None:
            model, version = taken
            try:
                self._loop.use_model(model)
            except ValueError as error:  # a good model, but not one that this planner takes
                self.get_logger().warning(f"model refused, {self._version} stays: {error}")
            else:
                self._version = version
                self.get_logger().info(f"plans with model {version} from now on")
        refusal = self._slot.refusal()
        if refusal is not None:
            self.get_logger().warning(f"model refused, {self._version} stays: {refusal}")

    def _publish(self, step: Step, started_s: float) -> None:
        assert self._loop is not None
        stamp = Time(nanoseconds=step.due_ns).to_msg()
        if step.begun is not None:
            self._say_goal(step.begun, step.due_ns)
        contract = self._loop.contract
        if step.action is not None:
            command = JointTrajectory(joint_names=list(contract.action.elements))
            command.header.stamp = stamp
            command.header.frame_id = self.get_fully_qualified_name()
            point = JointTrajectoryPoint(positions=step.action)
            point.time_from_start = Duration(seconds=contract.period_s).to_msg()
            command.points = [point]
            self._command.publish(command)
        message = PlanStats(
            episode_id=self._episode_id,
            step=step.index,
            model_version=self._version,
            stop_reason=step.stop_reason,
        )
        message.header.stamp = stamp
        if self._lateness is not None:
            message.lateness_ms = 1e3 * self._lateness.of(step.due_ns, started_s)
        if step.observation is not None:
            message.observation = step.observation.vector
            message.channels = list(step.observation.sample_stamps_ns)
            message.channel_stamps = [
                Time(nanoseconds=ns).to_msg() for ns in step.observation.sample_stamps_ns.values()
            ]
        if step.stats is not None and step.action is not None:
            if self._sharing is not None:
                self._sharing.planned(step.stats)
            message.action = step.action
            message.plan_ms = step.stats.plan_ms
            message.best_return = step.stats.best_return
            message.mean_return = step.stats.mean_return
            message.disagreement = step.stats.disagreement
            message.samples = step.stats.samples
            message.horizon = step.stats.horizon
            message.nan_rollouts = step.stats.nan_rollouts
        self._stats.publish(message)
        if step.action is not None:
            try:
                self._show(step, stamp)
            except Exception as error:  # whatever a viewer is shown must not stop the robot
                self.get_logger().error(f"rollouts are not shown: {error!r}", once=True)
        if step.stop_reason:
            self.get_logger().info(f"episode {self._episode_id} ends: {step.stop_reason}")

    def _show(self, step: Step, stamp: Any) -> None:
        """Publish what the plan would lead to, where somebody looks; the command is on its way."""
        assert self._loop is not None
        planner = self._loop.planner
        if not isinstance(planner, ShowsRollouts) or not planner.keeps_rollouts:
            return
        best = planner.best_rollouts(_SHOWN)
        if best is None or step.observation is None:
            return
        vector, task = step.observation.vector, planner.task
        targets = task.targets(torch.from_numpy(vector), planner.horizon).numpy()
        points = self._points.of(vector, best, targets, task.target_of)
        self._rollouts.publish(to_cloud(points, stamp, PALM_FRAME))


def shipped_model(task: str) -> Path:
    """Return the folder of the model that ships with a task.

    Raises:
        FileNotFoundError: none ships.
    """
    version = share("models", task, "current").read_text().strip()
    return share("models", task, version)


def main() -> None:
    run(PlannerNode)
