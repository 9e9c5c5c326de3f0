# SPDX-License-Identifier: Apache-2.0
"""Policy node: a policy and the contract that came with it, at the contract's own pace.

It needs no task: whatever the contract names is observed and commanded. Cells whose episodes are
planned take policies as a planner, `planner:=policy`.
"""

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
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from twinloop.contract import Contract, MalformedMessage, stamp_of
from twinloop.learning.model_file import load_model
from twinloop.learning.swap import ModelSlot
from twinloop.models import Ensemble
from twinloop.nodes import qos
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.messages import message_class
from twinloop.nodes.parameters import ParameterSpec
from twinloop.planners.control import ControlLoop, Step
from twinloop.planners.policy import PolicyConfig, PolicyPlanner
from twinloop.planners.schedule import Lateness
from twinloop.planners.space import action_space
from twinloop.tasks.of_contract import ContractTask
from twinloop_interfaces.msg import ModelAnnouncement, PlanStats


class PolicyNode(Node):
    """Wires a policy to the topics of its contract; swaps it between two steps."""

    parameters = (
        ParameterSpec("model", "", "Folder of the policy: weights, and the contract they are of"),
        ParameterSpec("start", False, "Act as soon as the node is active"),
        ParameterSpec("sampled", False, "Act with the policy's own noise"),
        ParameterSpec("every", 1, "Steps after which a chunk is asked for again", 1, 200),
        ParameterSpec("blend", 0, "Steps over which a chunk fades into the next", 0, 200),
        ParameterSpec("runs_code", False, "Let a TorchScript policy, whose file is a program, run"),
        ParameterSpec("seed", 0, "Seed of the policy's noise", 0, 2**31 - 1),
        ParameterSpec(
            "rtf", 1.0, "Pace of the stamps, for measuring lateness; 0: not measured", 0.0, 1000.0
        ),
        ParameterSpec("threads", 1, "Threads of the matrix products", 1, 64),
        ParameterSpec("nice", -10, "Niceness asked for; needs the privilege below 0", -20, 19),
    )

    def __init__(self) -> None:
        super().__init__("policy")
        self._loop: ControlLoop | None = None
        self._slot: ModelSlot | None = None
        self._version = ""
        self._malformed = 0
        self._reason = ""  # why it does not act, where it did

    def configure(self) -> None:
        torch.set_num_threads(self.param("threads"))
        with contextlib.suppress(PermissionError):
            os.nice(self.param("nice") - os.nice(0))
        if not self.param("model"):
            raise ValueError("model names no folder")
        path = Path(self.param("model"))
        loaded = load_model(path)

        contract = Contract.model_validate(loaded.manifest.contract)
        task = ContractTask(contract)
        config = PolicyConfig(
            **{name: self.param(name) for name in ("sampled", "every", "blend", "runs_code")}
        )

        def planner(model: Ensemble) -> PolicyPlanner:
            return PolicyPlanner(model, task, action_space(task), config, self.param("seed"))

        self._task = task
        self._loop = ControlLoop(contract, planner(loaded.model))
        self._version = loaded.version
        # A candidate is tried by a planner of its own, beside the control loop.
        self._slot = ModelSlot(contract, lambda model: void(planner(model)))
        void(self._loop.planner)
        pace = self.param("rtf")
        self._lateness = Lateness(pace) if pace > 0 else None
        self._command = self.create_publisher(JointTrajectory, contract.action.topic, qos.COMMAND)
        self._stats = self.create_publisher(PlanStats, "plan_stats", qos.EVENT)
        for topic, type_name in self._loop.topics.items():
            profile = qos.EVENT if topic == contract.action.applied_topic else qos.SENSOR
            callback = self.guarded(partial(self._on_sample, topic))
            self.create_subscription(message_class(type_name), topic, callback, profile)
        self.create_subscription(ModelAnnouncement, "model", self._on_model, qos.latched(10))
        self.create_service(Trigger, "start_policy", self._on_start)
        self.create_service(Trigger, "stop_policy", self._on_stop)
        pace_hz = 1.0 / contract.period_s
        self.get_logger().info(f"{contract.name} at {pace_hz:g} Hz by {self._version} from {path}")

    def activate(self) -> None:
        gc.collect()
        gc.freeze()
        if self.param("start"):
            self._begin()

    def deactivate(self) -> None:
        self._end("policy deactivated")

    def close(self) -> None:
        if self._slot is not None:
            self._slot.close()

    def health(self) -> Health:
        if self._loop is None:
            return Health(WARN, "not configured")
        acts = self._loop.is_running
        values = {
            "model": self._version,
            "acting": str(acts).lower(),
            "skipped_steps": str(self._loop.skipped_steps),
            "malformed_samples": str(self._malformed),
        }
        if acts or not self._reason:
            return Health(OK, "acting" if acts else "idle", values)
        return Health(ERROR, self._reason, values)

    def _begin(self) -> None:
        assert self._loop is not None
        self._reason = ""
        self._loop.start(self._task, self.param("seed"), 0)

    def _end(self, reason: str) -> None:
        if self._loop is None or not self._loop.is_running:
            return
        self._loop.stop()
        stats = PlanStats(model_version=self._version, stop_reason=reason)
        stats.header.stamp = self.get_clock().now().to_msg()
        self._stats.publish(stats)

    def _on_start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._loop is not None
        response.success = self.is_active and not self._loop.is_running
        if response.success:
            self._begin()
        else:
            response.message = "acts already" if self.is_active else "the node is not active"
        return response

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._loop is not None
        response.success = self._loop.is_running
        response.message = "stopped" if response.success else "did not act"
        self._end("stopped on request")
        return response

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
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        if topic != loop.contract.trigger or not self.is_active:
            return
        stamp_ns = stamp_of(message)
        if self._lateness is not None:
            self._lateness.observe(stamp_ns, arrived_s)
        if not loop.is_running:
            return
        self._swap()
        started_s = time.monotonic()
        step = loop.trigger(stamp_ns)
        if step is not None:
            self._publish(step, started_s)

    def _swap(self) -> None:
        assert self._slot is not None
        assert self._loop is not None
        taken = self._slot.take()
        if taken is not None:
            model, self._version = taken
            self._loop.use_model(model)
            self.get_logger().info(f"acts by {self._version} from now on")
        refusal = self._slot.refusal()
        if refusal is not None:
            self.get_logger().warning(f"model refused, {self._version} stays: {refusal}")

    def _publish(self, step: Step, started_s: float) -> None:
        assert self._loop is not None
        contract = self._loop.contract
        stamp = Time(nanoseconds=step.due_ns).to_msg()
        if step.action is not None:
            command = JointTrajectory(joint_names=list(contract.action.elements))
            command.header.stamp = stamp
            command.header.frame_id = self.get_fully_qualified_name()
            point = JointTrajectoryPoint(positions=step.action)
            point.time_from_start = Duration(seconds=contract.period_s).to_msg()
            command.points = [point]
            self._command.publish(command)
        message = PlanStats(
            step=step.index, model_version=self._version, stop_reason=step.stop_reason
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
            message.action = step.action
            message.plan_ms = step.stats.plan_ms
            message.nan_rollouts = step.stats.nan_rollouts
        self._stats.publish(message)
        if step.stop_reason:
            self._reason = step.stop_reason
            self.get_logger().error(f"stops: {step.stop_reason}")


def void(planner: Any) -> None:
    """Act a few times into the void, so that the first real step is as quick as the rest."""
    observation = torch.zeros(planner.task.observation_size)
    for _ in range(3):
        planner.plan(observation, planner.task.targets(observation, 1))
    planner.reset(0)


def main() -> None:
    run(PolicyNode)
