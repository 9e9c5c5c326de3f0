# SPDX-License-Identifier: Apache-2.0
"""Supervisor node: brings the others up, watches them, and keeps the emergency stop beating."""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition as TransitionMessage
from lifecycle_msgs.srv import ChangeState
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from twinloop.nodes import qos
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.safety.node_process import NotThatNode, kill_node_process
from twinloop.safety.supervision import (
    Heartbeat,
    Kill,
    Phase,
    Supervision,
    Transition,
)
from twinloop.safety.supervision_policy import Policy, parse_dependencies
from twinloop_interfaces.msg import GuardStatus

_PERIOD_S = 0.05
_NICENESS = -10
# What a guard gives as the reason of such a stop; a press has another.
_LOST = "heartbeat lost"
_REARM_AFTER_S = 1.0
_PID = re.compile("[0-9]{1,10}")
_POLICY = Policy()
_IDS = {
    "configure": TransitionMessage.TRANSITION_CONFIGURE,
    "activate": TransitionMessage.TRANSITION_ACTIVATE,
    "deactivate": TransitionMessage.TRANSITION_DEACTIVATE,
}


class SupervisorNode(Node):
    """Wires a Supervision to heartbeats and lifecycle services.

    The emergency stop begins to beat when all nodes are up, or when it is pressed, and never ends:
    from the first beat on a robot takes silence for a press. While processes start, beats come too
    late on a small machine, and nothing can move yet.
    """

    parameters = (
        ParameterSpec("nodes", [], "Names of the nodes, in the order in which they are brought up"),
        ParameterSpec(
            "dependencies",
            [],
            "Such as 'planner: twin, recorder'; a node not named here depends on all before it",
        ),
        ParameterSpec(
            "heartbeat_timeout_s", _POLICY.heartbeat_timeout_s, "Silence that counts [s]", 0.3, 60.0
        ),
        ParameterSpec(
            "kill_after_s",
            _POLICY.kill_after_s,
            "Silence before a process is killed [s]",
            0.5,
            60.0,
        ),
        ParameterSpec(
            "start_timeout_s", _POLICY.start_timeout_s, "Until a first heartbeat [s]", 1.0, 3600.0
        ),
        ParameterSpec(
            "max_restarts", _POLICY.max_restarts, "Restarts before a node is given up", 0, 100
        ),
        ParameterSpec(
            "restart_window_s",
            _POLICY.restart_window_s,
            "Restarts longer ago do not count [s]",
            1.0,
            1e6,
        ),
        ParameterSpec(
            "rearm_lost_heartbeat",
            False,
            "Re-arm a guard that stopped for want of this node's heartbeat, never a pressed one; "
            "for twins",
        ),
    )

    def __init__(self) -> None:
        super().__init__("supervisor")
        self._supervision: Supervision | None = None
        # By the full name of a node; its last part may repeat in other namespaces.
        self._changers: dict[str, Any] = {}
        self._undo: list[Any] = []
        self._malformed = 0
        self._complaint = ""
        self._is_pressed = False
        self._is_beating = False
        self._beating_since_s = 0.0
        self._stop = self.create_publisher(Bool, "emergency_stop", qos.HEARTBEAT)
        self.create_service(Trigger, "press_emergency_stop", self._on_press)
        self.create_service(Trigger, "release_emergency_stop", self._on_release)
        self.create_timer(_PERIOD_S, self._publish_stop, clock=self.steady_clock)

    def configure(self) -> None:
        names = [self._full_name(name) for name in self.param("nodes")]
        if not names:
            raise ValueError("parameter nodes is empty; name the nodes to supervise")
        dependencies = {
            self._full_name(name): [self._full_name(other) for other in others]
            for name, others in parse_dependencies(self.param("dependencies")).items()
        }
        policy = Policy(
            heartbeat_timeout_s=self.param("heartbeat_timeout_s"),
            kill_after_s=self.param("kill_after_s"),
            start_timeout_s=self.param("start_timeout_s"),
            max_restarts=self.param("max_restarts"),
            restart_window_s=self.param("restart_window_s"),
        )
        if self.param("rearm_lost_heartbeat"):
            self._rearm = self.create_client(Trigger, "rearm")
            guard = self.create_subscription(
                GuardStatus, "guard_status", self._on_guard_status, qos.latched()
            )
            self._undo += [
                lambda: self.destroy_subscription(guard),
                lambda: self.destroy_client(self._rearm),
            ]
        self._supervision = Supervision(names, dependencies, policy, time.monotonic())
        self._changers = {
            name: self.create_client(ChangeState, f"{name}/change_state") for name in names
        }
        subscription = self.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS
        )
        timer = self.create_timer(_PERIOD_S, self._tick, clock=self.steady_clock)
        self._undo += [
            lambda: self.destroy_timer(timer),
            lambda: self.destroy_subscription(subscription),
        ]

    def cleanup(self) -> None:
        for undo in self._undo:
            undo()
        for client in self._changers.values():
            self.destroy_client(client)
        self._undo, self._changers, self._supervision = [], {}, None

    def health(self) -> Health:
        if self._supervision is None:
            return Health(WARN, "not configured")
        phases, restarts = self._supervision.phases, self._supervision.restarts
        values = {
            "emergency_stop": "pressed" if self._is_pressed else "released",
            "malformed": str(self._malformed),
        }
        for name, phase in phases.items():
            values[name] = phase.value + (f", restarts {restarts[name]}" if restarts[name] else "")
        if failures := self._supervision.failures:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
            return Health(ERROR, f"given up: {reasons}", values)
        waiting = [name for name, phase in phases.items() if phase is not Phase.ACTIVE]
        warnings = [f"not active: {', '.join(waiting)}"] if waiting else []
        if warnings or self._complaint:
            return Health(WARN, "; ".join(filter(None, [self._complaint, *warnings])), values)
        return Health(OK, "all nodes are active", values)

    def _full_name(self, name: str) -> str:
        return name if name.startswith("/") else f"{self.get_namespace().rstrip('/')}/{name}"

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        now_s = time.monotonic()
        for status in array.status:
            values = {item.key: item.value for item in status.values}
            if self._supervision is None or status.name not in self._changers:
                continue
            # Diagnostics of a foreign node may carry the name, but not these.
            if "state" not in values or "pid" not in values:
                continue
            if _PID.fullmatch(values["pid"]) is None:
                self._malformed += 1
                self._complaint = (
                    f"heartbeat of {status.name}: pid is {values['pid']!r:.40}, expected a number"
                )
                continue
            self._complaint = ""
            fault = status.message if status.level == DiagnosticStatus.ERROR else ""
            self._supervision.heartbeat(
                Heartbeat(
                    status.name, status.hardware_id, int(values["pid"]), values["state"], fault
                ),
                now_s,
            )

    def _tick(self) -> None:
        supervision = self._supervision
        if supervision is None or not self.is_active:
            return
        for action in supervision.tick(time.monotonic()):
            if isinstance(action, Kill):
                self._kill(action)
            else:
                self._request(action, supervision)
        if supervision.is_up:
            self._start_beating()
        for event in supervision.take_events():
            logger = self.get_logger()
            # rclpy ties each logging call in the source to one level.
            if event.level == "error":
                logger.error(event.text)
            elif event.level == "warn":
                logger.warning(event.text)
            else:
                logger.info(event.text)

    def _request(self, action: Transition, supervision: Supervision) -> None:
        client = self._changers[action.node]
        if not client.service_is_ready():
            supervision.transition_not_sent(action.node)
            return
        request = ChangeState.Request()
        request.transition.id = _IDS[action.kind]

        def on_answer(future: Future) -> None:
            response = future.result()
            if response is not None:
                supervision.transition_ended(
                    action.node, action.kind, response.success, time.monotonic()
                )

        client.call_async(request).add_done_callback(on_answer)

    def _kill(self, action: Kill) -> None:
        try:
            kill_node_process(action.node, action.host, action.pid)
        except NotThatNode as reason:
            self.get_logger().info(f"not killed: {reason}")
        else:
            self.get_logger().error(f"killed {action.node}, process {action.pid}: it hung")

    def _on_press(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._is_pressed:
            self.get_logger().error("emergency stop pressed")
        self._is_pressed = True
        self._start_beating()
        self._publish_stop()
        response.success, response.message = True, "pressed"
        return response

    def _on_release(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        if self._is_pressed:
            self.get_logger().warning("emergency stop released; the robot waits to be re-armed")
        self._is_pressed = False
        self._publish_stop()
        response.success, response.message = True, "released; re-arm the robot to go on"
        return response

    def _on_guard_status(self, status: GuardStatus) -> None:
        """Re-arm a guard that lost the heartbeat, once it has been beating again for a while."""
        is_stopped = status.state == GuardStatus.EMERGENCY_STOP and _LOST in status.reason
        beats_s = time.monotonic() - self._beating_since_s
        if not (is_stopped and self._is_beating) or self._is_pressed or beats_s < _REARM_AFTER_S:
            return
        if self._rearm.service_is_ready():
            self._beating_since_s = time.monotonic()
            self._rearm.call_async(Trigger.Request())
            self.get_logger().warning("re-armed the guard, which had lost the heartbeat")

    def _start_beating(self) -> None:
        if not self._is_beating:
            self._is_beating = True
            self._beating_since_s = time.monotonic()

    def _publish_stop(self) -> None:
        if self._is_beating:
            self._stop.publish(Bool(data=self._is_pressed))


def main() -> None:
    with contextlib.suppress(PermissionError):
        # A late heartbeat stops the robot. Before the middleware starts: its threads inherit this.
        os.nice(_NICENESS)
    run(SupervisorNode)
