# SPDX-License-Identifier: Apache-2.0
"""The base of every node: lifecycle, checked parameters, heartbeat and clean ends.

A node file derives from `Node`, overrides the hooks it needs and ends with
`def main(): run(MyNode)`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.experimental import EventsExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from twinloop.dds import stay_on_this_machine
from twinloop.nodes import qos
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec

HEARTBEAT_PERIOD_S = 0.2
# Of the middleware, such as where it has no security and shall have; and of a transition that there
# is not in the present state.
RclError: type[Exception] = rclpy_implementation.RCLError
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass
class Health:
    """What a node says of itself in its heartbeat."""

    level: bytes = OK
    message: str = "ok"
    values: dict[str, str] = field(default_factory=dict)


class Node(LifecycleNode):
    """A lifecycle node that beats.

    Five times a second, on the steady clock and from the thread that does the node's work, it
    publishes its state on /diagnostics: name, lifecycle state, process id, health. A node that
    hangs stops beating.
    """

    parameters: tuple[ParameterSpec, ...] = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._specs = {
            spec.name: spec
            for spec in (
                ParameterSpec(
                    "autostart", True, "Configure and activate at start, without a supervisor"
                ),
                *self.parameters,
            )
        }
        self._values: dict[str, Any] = {}
        for spec in self._specs.values():
            given = self.declare_parameter(spec.name, spec.default, spec.descriptor()).value
            self._values[spec.name] = spec.check(spec.default if given is None else given)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        # A node whose work is done sets this to its exit code; the process then ends.
        self.exit_code: int | None = None
        self._fault: str | None = None
        self._late_beats = 0
        self._last_beat_s = time.monotonic()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(HEARTBEAT_PERIOD_S, self._beat, clock=self.steady_clock)

    # Hooks of the life cycle. An exception in one is logged and refuses the transition.

    def configure(self) -> None:
        """Read parameters, load files, create publishers and subscriptions."""

    def activate(self) -> None:
        """Start to work."""

    def deactivate(self) -> None:
        """Stop to work; the robot is left in a held state."""

    def cleanup(self) -> None:
        """Undo configure."""

    def close(self) -> None:
        """Called once when the process ends, in whatever state; the ROS context may be gone."""

    def health(self) -> Health:
        """Say how the node is."""
        return Health()

    def param(self, name: str) -> Any:
        """Return a parameter's checked value."""
        return self._values[name]

    def parameter_changed(self, name: str, value: Any) -> None:
        """Called after a dynamic parameter got a new, checked value."""

    def fail(self, reason: str) -> None:
        """Report a fault that this node cannot work with, and deactivate it alone."""
        self._fault = reason
        self.get_logger().error(reason)
        if self.is_active:
            self.trigger_deactivate()

    def guarded(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a callback so that an exception in it deactivates this node instead of ending it."""

        @wraps(callback)
        def call(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except Exception as error:
                self.fail(f"{callback.__name__}: {type(error).__name__}: {error}")
                return None

        return call

    @property
    def is_active(self) -> bool:
        return bool(self._state_machine.current_state[1] == "active")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._fault = None
        return self._transition("configure", self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._fault = None
        result = self._transition("activate", self.activate)
        return super().on_activate(state) if result is TransitionCallbackReturn.SUCCESS else result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_deactivate(state)
        return self._transition("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("cleanup", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shut down", self.deactivate)

    def _transition(self, name: str, hook: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            hook()
        except Exception as error:
            self._fault = f"could not {name}: {error}"
            self.get_logger().error(f"could not {name}: {type(error).__name__}: {error}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        checked = {}
        for parameter in parameters:
            spec = self._specs.get(parameter.name)
            if spec is None:
                continue
            try:
                checked[parameter.name] = spec.check(parameter.value)
            except ParameterRefused as error:
                return SetParametersResult(successful=False, reason=str(error))
        self._values.update(checked)
        for name, value in checked.items():
            self.parameter_changed(name, value)
        return SetParametersResult(successful=True)

    def say_goodbye(self) -> None:
        """Beat a last time, as ended, so that nobody takes a clean end for a crash."""
        self._beat("finalized")

    def beat_if_late(self) -> None:
        """Beat where the timer was not heard.

        The events executor of Jazzy hears none while messages come faster than they are worked on.
        """
        if time.monotonic() - self._last_beat_s > 1.5 * HEARTBEAT_PERIOD_S:
            self._beat()

    def _beat(self, state: str = "") -> None:
        now = time.monotonic()
        period, self._last_beat_s = now - self._last_beat_s, now
        self._late_beats += period > 2 * HEARTBEAT_PERIOD_S
        health = Health(ERROR, self._fault) if self._fault else self.health()
        values = {
            "state": state or self._state_machine.current_state[1],
            "pid": str(os.getpid()),
            "period_ms": f"{period * 1e3:.1f}",
            "late_beats": str(self._late_beats),
            **health.values,
        }
        status = DiagnosticStatus(
            level=health.level,
            name=self.get_fully_qualified_name(),
            message=health.message,
            hardware_id=socket.gethostname(),
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def run(make_node: Callable[[], Node]) -> None:
    """Run a node until it is told to stop; the body of every node's `main`.

    Exits with 2 where a parameter is refused or the node cannot start by itself.
    """
    stay_on_this_machine()
    # The events executor of Jazzy does not return from spin() on a signal, hence the loop below.
    ends: list[int] = []
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _frame: ends.append(received))
        node = make_node()
    except (ParameterException, ParameterRefused, RclError, ValueError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        sys.exit(2)
    executor = EventsExecutor()
    executor.add_node(node)
    try:
        if node.param("autostart"):
            for trigger in (node.trigger_configure, node.trigger_activate):
                if trigger() is not TransitionCallbackReturn.SUCCESS:
                    sys.exit(2)
        while not ends and node.exit_code is None:
            try:
                executor.spin_once(timeout_sec=0.1)
                node.beat_if_late()
            except RclError as error:
                # Asked to configure when configured, say: refused, and no reason to end.
                node.get_logger().warning(f"lifecycle request refused: {error}")
    finally:
        node.close()
        node.say_goodbye()
        rclpy.try_shutdown()
    sys.exit(node.exit_code or 0)
