# SPDX-License-Identifier: Apache-2.0
"""Steering node: `command` from autonomy, or from a pilot who holds the dead-man."""

from __future__ import annotations

import contextlib
import os
import time
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import ParameterEvent, ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from twinloop import contract as contracts
from twinloop.contract import MalformedMessage, stamp_of
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.guard_topics import GUARD
from twinloop.nodes.joint_messages import nanoseconds, rest, time_message, trajectory
from twinloop.nodes.parameters import ParameterSpec
from twinloop.teleop.arbiter import Arbiter, Order, SteeringSettings, Who
from twinloop_interfaces.msg import ControlStatus, PilotStatus

Array = NDArray[np.float64]

AUTONOMY_TOPIC = "autonomy/command"
PILOT_COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_WATCH_S = 0.005
_NICENESS = -10
_STALL_S = 0.04  # between two looks: this node was away itself
_ASK_S = 1.0
_LATEST_NS = (2**31 - 86_400) * 10**9  # of what a message's stamp can tell, less a day
_DEPTH = 10  # several autonomous sources: none pushes another one's commands out


class SteeringNode(Node):
    """Wires an Arbiter to its topics: see there."""

    parameters = (
        ParameterSpec("task", "baoding", "Task, and contract, whose joints are steered"),
        ParameterSpec(
            "sharing", False, "A pilot's wishes go to the planner, not to the robot", dynamic=True
        ),
        ParameterSpec("pilot_speed", 0.8, "Of a pilot's targets at most [rad/s]", 0.01, 3.0),
        ParameterSpec(
            "pilot_timeout_s", 0.05, "Silence of a pilot that stops the robot [s]", 0.02, 0.1
        ),
        ParameterSpec(
            "wait_s", 0.0, "A step's autonomous command is waited for so long [s]", 0.0, 60.0
        ),
        ParameterSpec("planner", "planner", "Node whose parameter alpha tells how much is shared"),
    )

    def __init__(self) -> None:
        super().__init__("steering")
        self._arbiter: Arbiter | None = None
        self._undo: list[Any] = []
        self._malformed = 0
        self._complaint = ""
        self._alpha = float("nan")
        self._said: tuple[Any, ...] = ()
        self._looked_s = time.monotonic()
        self._asked_s = float("-inf")
        self._joints_ns = 0

    def configure(self) -> None:
        contract = contracts.load(self.param("task"))
        action = contract.action
        self._names = list(action.elements)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._arbiter = Arbiter(
            SteeringSettings(
                lower=np.array(action.lower),
                upper=np.array(action.upper),
                period_s=contract.period_s,
                pilot_speed=min(self.param("pilot_speed"), action.rate),
                pilot_timeout_s=self.param("pilot_timeout_s"),
                wait_s=self.param("wait_s"),
            )
        )
        self._arbiter.sharing = self.param("sharing")
        self._said = ()
        self._command = self.create_publisher(JointTrajectory, action.topic, qos.COMMAND)
        self._status = self.create_publisher(ControlStatus, "control_status", qos.latched())
        autonomous = copy(qos.COMMAND)
        autonomous.depth = _DEPTH
        subscribe, guarded = self.create_subscription, self.guarded
        made = [
            subscribe(JointTrajectory, AUTONOMY_TOPIC, guarded(self._on_autonomy), autonomous),
            subscribe(JointTrajectory, "pilot_command", guarded(self._on_pilot), PILOT_COMMAND),
            subscribe(PilotStatus, "pilot_status", guarded(self._on_status), qos.latched()),
            subscribe(JointTrajectory, action.applied_topic, guarded(self._on_applied), qos.EVENT),
            subscribe(JointState, contract.trigger, guarded(self._on_joints), qos.SENSOR),
            subscribe(ParameterEvent, "/parameter_events", self._on_parameters, qos.EVENT),
        ]
        resume = self.create_service(Trigger, "resume_autonomy", self._on_resume)
        self._alphas = self.create_client(GetParameters, f"{self.param('planner')}/get_parameters")
        timer = self.create_timer(_WATCH_S, self.guarded(self._watch), clock=self.steady_clock)
        self._undo = [
            lambda: self.destroy_timer(timer),
            *(lambda one=one: self.destroy_subscription(one) for one in made),
            lambda: self.destroy_service(resume),
            lambda: self.destroy_client(self._alphas),
            lambda: self.destroy_publisher(self._command),
            lambda: self.destroy_publisher(self._status),
        ]

    def activate(self) -> None:
        self._looked_s = time.monotonic()
        self._tell()

    def cleanup(self) -> None:
        self._arbiter = None
        for undo in self._undo:
            undo()
        self._undo = []

    def health(self) -> Health:
        arbiter = self._arbiter
        if arbiter is None:
            return Health(WARN, "not configured")
        values = {
            "commands": arbiter.who.name.lower(),
            "sharing": str(arbiter.sharing).lower(),
            "malformed": str(self._malformed),
            "refused": str(arbiter.refused),
        }
        if arbiter.who is Who.NOBODY:
            return Health(WARN, f"held: {arbiter.reason}", values)
        if self._complaint:
            return Health(WARN, self._complaint, values)
        return Health(OK, f"{arbiter.who.name.lower()} commands", values)

    def parameter_changed(self, name: str, value: Any) -> None:
        if name == "sharing" and self._arbiter is not None:
            self._arbiter.sharing = value
            self._tell()

    # What is heard.

    def _on_autonomy(self, message: JointTrajectory) -> None:
        arbiter, read = self._arbiter, self._read(message)
        if arbiter is None or read is None:
            return
        if not message.header.frame_id:
            self._complain("no source named in header.frame_id")
            return
        self._excuse()
        self._send(arbiter.autonomy(*read, message.header.frame_id, time.monotonic()))

    def _on_pilot(self, message: JointTrajectory) -> None:
        arbiter, read = self._arbiter, self._read(message)
        if arbiter is None or read is None or not self.is_active:
            return
        said_ns, target = read
        arbiter.pilot(target, said_ns, self._now_ns, time.monotonic())
        self._tell()

    def _on_status(self, message: PilotStatus) -> None:
        arbiter = self._arbiter
        if arbiter is None:
            return
        if message.state == PilotStatus.LOST:
            self._send(arbiter.lost(message.reason or "the pilot was lost", self._now_ns))
            arbiter.knows_of_loss()
        elif message.state == PilotStatus.RELEASED:
            arbiter.released(nanoseconds(message.stamp), self._now_ns)
        self._tell()

    def _on_applied(self, message: JointTrajectory) -> None:
        read = self._read(message)
        if self._arbiter is not None and read is not None and np.isfinite(read[1]).all():
            self._arbiter.applied(read[1], message.header.frame_id == GUARD)

    def _on_joints(self, message: JointState) -> None:
        if self._arbiter is None:
            return
        try:
            self._joints_ns = _stamp_of(message)
        except MalformedMessage as error:
            self._complain(str(error))
            return
        self._excuse()
        self._send(self._arbiter.sample(self._joints_ns, time.monotonic()))

    def _on_resume(self, _request: Trigger.Request, response: Trigger.Response) -> Any:
        arbiter = self._arbiter
        if arbiter is None:
            response.message = "not configured"
            return response
        response.success, response.message = arbiter.resume(self._now_ns)
        self._tell()
        return response

    def _on_parameters(self, event: ParameterEvent) -> None:
        if event.node.rpartition("/")[2] != self.param("planner"):
            return
        for parameter in (*event.new_parameters, *event.changed_parameters):
            if parameter.name == "alpha":
                self._take_alpha(parameter.value)

    # What is done.

    @property
    def _now_ns(self) -> int:
        """The joints' time, which is that of the commands."""
        return self._joints_ns or int(self.get_clock().now().nanoseconds)

    def _read(self, message: JointTrajectory) -> tuple[int, Array] | None:
        """Stamp, ns, and targets [J], rad, in the contract's order; None where there are none."""
        names = list(message.joint_names)
        try:
            stamp_ns = _stamp_of(message)
            if len(message.points) != 1:
                raise MalformedMessage(f"{len(message.points)} points, expected 1")
            targets = np.array(message.points[0].positions, dtype=np.float64)
            if targets.shape != (len(self._names),):
                raise MalformedMessage(f"{targets.size} positions, expected {len(self._names)}")
            if names != self._names:
                if sorted(names) != sorted(self._names):
                    raise MalformedMessage("joint names are not those of the contract")
                targets = targets[np.argsort([self._index[name] for name in names])]
        except MalformedMessage as error:
            self._complain(str(error))
            return None
        return stamp_ns, targets

    def _complain(self, text: str) -> None:
        self._malformed += 1
        self._complaint = text

    def _excuse(self) -> None:
        """A stall of this process is no silence of the pilot: his messages may be waiting."""
        now_s = time.monotonic()
        away_s, self._looked_s = now_s - self._looked_s, now_s
        if away_s > _STALL_S and self._arbiter is not None:
            self._arbiter.excuse(away_s - _WATCH_S)

    def _watch(self) -> None:
        if self._arbiter is None or not self.is_active:
            return
        self._excuse()
        self._send(self._arbiter.watch(self._now_ns, time.monotonic()))
        self._ask_alpha()

    def _send(self, order: Order | None) -> None:
        self._tell()
        if order is None or not self.is_active:
            return
        source = self.get_fully_qualified_name()
        self._command.publish(
            rest(self._names, order.stamp_ns, source)
            if order.goal is None
            else trajectory(self._names, order.stamp_ns, source, order.goal)
        )

    def _tell(self) -> None:
        """Publish who commands, where that is new; before the first command of his."""
        arbiter = self._arbiter
        assert arbiter is not None
        saying = (arbiter.who, arbiter.since_ns, arbiter.sharing, str(self._alpha))
        if saying == self._said or not self.is_active:
            return
        self._said = saying
        self._status.publish(
            ControlStatus(
                stamp=time_message(arbiter.since_ns or self._now_ns),
                who=int(arbiter.who),
                sharing=arbiter.sharing,
                alpha=self._alpha,
                reason=arbiter.reason,
            )
        )

    def _ask_alpha(self) -> None:
        now_s = time.monotonic()
        if self._alpha == self._alpha or now_s - self._asked_s < _ASK_S:
            return
        self._asked_s = now_s
        if self._alphas.service_is_ready():
            future = self._alphas.call_async(GetParameters.Request(names=["alpha"]))
            future.add_done_callback(self._on_alpha)

    def _on_alpha(self, future: Any) -> None:
        if future.exception() is None:
            for value in future.result().values:
                self._take_alpha(value)

    def _take_alpha(self, value: Any) -> None:
        if value.type == ParameterType.PARAMETER_DOUBLE:
            self._alpha = float(value.double_value)
            if self._arbiter is not None:
                self._tell()


def _stamp_of(message: Any) -> int:
    """Return a stamp, ns, after which there are others; raises MalformedMessage."""
    stamp_ns = stamp_of(message)
    if stamp_ns > _LATEST_NS:
        raise MalformedMessage(f"header.stamp is {stamp_ns} ns, expected one before 2038")
    return stamp_ns


def main() -> None:
    with contextlib.suppress(PermissionError):
        # A pilot waits for nobody. Before the middleware starts: its threads inherit this.
        os.nice(_NICENESS)
    run(SteeringNode)
