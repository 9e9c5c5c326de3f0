# SPDX-License-Identifier: Apache-2.0
"""Joint driver node: a robot's joints, through whatever driver the hardware file names."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from copy import copy
from typing import Any

import numpy as np
from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from twinloop.drivers.base import DriverSettings, JointDriver
from twinloop.drivers.hardware import make_driver
from twinloop.drivers.loop import Cycle, DriverLoop, LoopSettings, LoopStatus
from twinloop.nodes import qos
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.guard_topics import GuardTopics
from twinloop.nodes.hardware_entry import HARDWARE, hardware_entry
from twinloop.nodes.joint_messages import joint_state, nanoseconds
from twinloop.nodes.parameters import ParameterRefused, ParameterSpec
from twinloop.safety.verdict import GuardSettings, GuardState, Refusal

_LOOK_S = 0.02
# A service that takes longer answers that it is under way: the node must not miss its heartbeat.
_PATIENCE_S = 0.4
_GUARD = GuardSettings()
_LOOP = LoopSettings()
_LEVELS = {
    "idle": WARN,
    "connecting": ERROR,
    "running": OK,
    "stopped": WARN,
    "fault": ERROR,
    "crashed": ERROR,
}


class JointDriverNode(Node):
    """Wires a DriverLoop to its topics and services.

    A device that is lost makes the node inactive; the loop goes on to look for it, and the node is
    active again when it is back, or when it is asked to be.
    """

    parameters: tuple[ParameterSpec, ...] = (
        HARDWARE,
        ParameterSpec("robot", "", "Which robot of the file to drive; empty: the only one"),
        ParameterSpec("command_period_s", _GUARD.period_s, "Between two commands [s]", 0.002, 1.0),
        ParameterSpec("joint_speed", _GUARD.joint_speed, "Of commands at most [rad/s]", 1e-3, 10.0),
        ParameterSpec(
            "command_delay_s",
            _GUARD.command_delay_s,
            "From a command's stamp to its effect [s]",
            0.0,
            1.0,
        ),
        ParameterSpec(
            "command_max_age_s",
            _GUARD.max_age_s,
            "Commands stamped longer ago are refused [s]",
            0.01,
            10.0,
        ),
        ParameterSpec(
            "command_timeout_s",
            _GUARD.command_timeout_s,
            "Silence of the command source that ends in a hold, steady [s]",
            0.01,
            10.0,
        ),
        ParameterSpec(
            "lease_s",
            _GUARD.lease_s,
            "Silence after which another source may command, steady [s]",
            0.01,
            60.0,
        ),
        ParameterSpec(
            "emergency_stop_timeout_s",
            _GUARD.heartbeat_timeout_s,
            "Silence of the emergency stop that counts as pressed, steady [s]",
            0.06,
            10.0,
        ),
        ParameterSpec(
            "require_emergency_stop",
            True,
            "Stay stopped until the emergency stop is heard and the guard re-armed",
        ),
        ParameterSpec(
            "stall_limit_s",
            _LOOP.stall_limit_s,
            "A cycle that is later ends a motion [s]",
            0.001,
            60.0,
        ),
        ParameterSpec(
            "silent_s", _LOOP.silent_s, "A device silent for longer is at fault [s]", 0.005, 60.0
        ),
        ParameterSpec(
            "reconnect_s", _LOOP.longest_wait_s, "Longest wait for a lost device [s]", 0.1, 60.0
        ),
        ParameterSpec("temperature_warn_c", 60.0, "Warn of a warmer joint [°C]", 0.0, 200.0),
        ParameterSpec("jitter_warn_ms", 5.0, "Warn of more jitter of the loop [ms]", 0.0, 1e4),
        ParameterSpec("lost_warn", 0.01, "Warn of a greater share of lost samples", 0.0, 1.0),
    )

    loop_type: type[DriverLoop] = DriverLoop
    prefix = ""  # of its topics and services, but for the emergency stop's

    def __init__(self, name: str = "joint_driver") -> None:
        super().__init__(name)
        self._loop: DriverLoop | None = None
        self._undo: list[Any] = []
        self._was_connected = False
        self._is_lost = False
        self._has_setpoint_readers = False

    def make_driver(self) -> JointDriver:
        """Make the driver that the parameters name.

        Raises:
            HardwareRefused, ParameterRefused: naming what is wrong.
        """
        if not self.param("hardware"):
            raise ParameterRefused(
                "parameter hardware is empty, expected the lab's hardware file, a copy of "
                "config/hardware/example.yaml"
            )
        robot, settings = hardware_entry(self, "robot")
        return make_driver(robot, settings, **self.driver_parts(robot, settings))

    def driver_parts(self, robot: str, settings: DriverSettings) -> dict[str, Any]:
        """Return what the driver needs from its node; only those that speak ROS need anything."""
        return {}

    def configure(self) -> None:
        driver = self.make_driver()
        guard = GuardSettings(
            tick_s=driver.period_s,
            period_s=self.param("command_period_s"),
            joint_speed=self.param("joint_speed"),
            command_delay_s=self.param("command_delay_s"),
            max_age_s=self.param("command_max_age_s"),
            command_timeout_s=self.param("command_timeout_s"),
            lease_s=max(self.param("lease_s"), self.param("command_timeout_s")),
            heartbeat_timeout_s=self.param("emergency_stop_timeout_s"),
            requires_emergency_stop=self.param("require_emergency_stop"),
        )
        settings = LoopSettings(
            stall_limit_s=self.param("stall_limit_s"),
            silent_s=self.param("silent_s"),
            longest_wait_s=self.param("reconnect_s"),
        )
        clock = self.get_clock()
        self._has_changed = threading.Event()
        self._loop = self.loop_type(
            driver,
            guard,
            lambda: int(clock.now().nanoseconds),
            settings,
            on_cycle=self._publish,
            on_change=self._has_changed.set,
        )
        self._names = list(driver.robot.joint_names)
        self._guard_topics = GuardTopics(self, self._names, self.prefix)
        self._joint_states = self.create_publisher(
            JointState, f"{self.prefix}joint_states", qos.SENSOR
        )
        self._setpoint = self.create_publisher(JointState, f"{self.prefix}setpoint", qos.SENSOR)
        self._looker = self.create_timer(_LOOK_S, self.guarded(self._look), clock=self.steady_clock)
        self._undo += [
            self._guard_topics.close,
            lambda: self.destroy_publisher(self._joint_states),
            lambda: self.destroy_publisher(self._setpoint),
            lambda: self.destroy_timer(self._looker),
        ]
        self._open_inputs()

    def _open_inputs(self) -> None:
        # Deeper than a source's queue: no source can push another one's commands out.
        commands = copy(qos.COMMAND)
        commands.depth = 10
        subscriptions = [
            self.create_subscription(
                JointTrajectory,
                f"{self.prefix}command",
                self.guarded(self._on_command),
                commands,
                event_callbacks=SubscriptionEventCallbacks(liveliness=self._on_liveliness),
            ),
            self.create_subscription(
                Bool, "emergency_stop", self._on_emergency_stop, qos.HEARTBEAT
            ),
        ]
        services = [
            self.create_service(Trigger, f"{self.prefix}rearm", self._on_rearm),
            self.create_service(Trigger, f"{self.prefix}recover", self._on_recover),
            self.create_service(Trigger, f"{self.prefix}stop", self._on_stop),
        ]
        self._undo += [
            lambda: [self.destroy_subscription(each) for each in subscriptions],
            lambda: [self.destroy_service(each) for each in services],
        ]

    def activate(self) -> None:
        assert self._loop is not None
        self._is_lost = False
        if not self._loop.is_alive:
            self._loop.start()

    def deactivate(self) -> None:
        if self._loop is not None and not self._is_lost:
            self._loop.halt()
            self._was_connected = False

    def cleanup(self) -> None:
        self.close()
        while self._undo:
            self._undo.pop()()
        self._loop = None

    def close(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.halt("the process ends")

    def health(self) -> Health:
        loop = self._loop
        if loop is None:
            return Health(WARN, "not configured")
        status, guard = loop.status(), loop.guard
        timing = status.timing
        values = {
            "device": loop.driver.name,
            "driver": status.state,
            "cycle_ms": f"{timing.period_ms:.2f}",
            "jitter_ms": f"{timing.jitter_ms:.2f}",
            "longest_ms": f"{timing.longest_ms:.1f}",
            "lost": str(status.lost),
            "stalls": str(status.stalls),
            "connects": str(status.connects),
        }
        if guard is not None:
            values["guard"] = guard.state.name.lower()
        if status.reading is not None:
            values |= {
                f"temperature {name}": f"{value:.0f}"
                for name, value in zip(self._names, status.reading.temperature, strict=True)
                if math.isfinite(value)
            }
        level, text = _LEVELS[status.state], status.text
        if level == OK and guard is not None:
            text = f"guard: {guard.reason}"
            if guard.state in (GuardState.STOPPED, GuardState.EMERGENCY_STOP):
                level = WARN
        warnings = self._warnings(status)
        if warnings and level in (OK, WARN):
            return Health(WARN, "; ".join([*warnings, text]), values)
        return Health(level, text, values)

    def _warnings(self, status: LoopStatus) -> list[str]:
        found = []
        if status.reading is not None:
            temperature, limit_c = status.reading.temperature, self.param("temperature_warn_c")
            found = [
                f"{name} is at {value:.0f} °C"
                for name, value in zip(self._names, temperature, strict=True)
                if value > limit_c
            ]
        if status.state == "running" and status.timing.jitter_ms > self.param("jitter_warn_ms"):
            found.append(f"the loop's jitter is {status.timing.jitter_ms:.1f} ms")
        if status.lost_share > self.param("lost_warn"):
            found.append(f"{status.lost_share:.1%} of the samples are lost")
        return found

    # What the loop does.

    def _publish(self, cycle: Cycle) -> None:
        """Publish a cycle; in the loop's thread."""
        if self._has_setpoint_readers:
            self._setpoint.publish(joint_state(self._names, cycle.stamp_ns, cycle.setpoint))
        reading = cycle.reading
        if reading is not None:
            effort = reading.effort if np.isfinite(reading.effort).all() else None
            self._joint_states.publish(
                joint_state(self._names, cycle.stamp_ns, reading.position, reading.velocity, effort)
            )

    def _look(self) -> None:
        """Tell what loop and guard did meanwhile."""
        loop = self._loop
        if loop is None:
            return
        if loop.guard is not None:
            self._guard_topics.publish(loop.take_changes())
            now_ns = self.get_clock().now().nanoseconds
            if self._guard_topics.report(loop.guard, now_ns, time.monotonic()):
                self._has_setpoint_readers = self._setpoint.get_subscription_count() > 0
        if self._has_changed.is_set():
            self._has_changed.clear()
            self._take_state(loop.status())

    def _take_state(self, status: LoopStatus) -> None:
        """Follow the loop's state, and say so at once."""
        is_connected = status.state in ("running", "stopped", "fault")
        if status.state == "crashed":
            self.fail(status.text)
        elif status.state == "connecting" and self._was_connected and self.is_active:
            self._is_lost = True
            self.fail(status.text)
        elif is_connected and self._is_lost:
            self.trigger_activate()
        self._was_connected = is_connected
        self._beat()

    # What the driver is told.

    def _on_command(self, message: JointTrajectory) -> None:
        loop = self._loop
        if loop is None or loop.guard is None or not self.is_active:
            return
        if not message.points:
            loop.submit_hold(message.header.frame_id)
            self._look()
            return
        if len(message.points) != 1:
            with loop.lock:
                loop.guard.refuse(Refusal.POINTS, f"{len(message.points)} points, expected 1")
            return
        verdict = loop.submit(
            message.joint_names,
            message.points[0].positions,
            nanoseconds(message.header.stamp),
            message.header.frame_id,
        )
        if verdict is not None and verdict.goal is not None:
            self._guard_topics.publish(loop.take_changes())
            self._guard_topics.accept(verdict.stamp_ns, message.header.frame_id, verdict.goal)
        self._look()

    def _on_liveliness(self, status: Any) -> None:
        # The middleware does not say which source it lost: hold, the right one takes over again.
        if status.alive_count_change < 0 and self._loop is not None:
            self._loop.lose_source()
            self._look()

    def _on_emergency_stop(self, message: Bool) -> None:
        if self._loop is not None:
            self._loop.emergency_stop(message.data)
            self._look()

    def _on_rearm(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._loop is not None
        response.success, response.message = self._loop.rearm()
        self._look()
        return response

    def _on_recover(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        assert self._loop is not None
        response.success, response.message = self._loop.recover(_PATIENCE_S)
        self._look()
        return response

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._loop is not None
        response.success, response.message = self._loop.stop(_PATIENCE_S)
        self._look()
        return response


def main() -> None:
    run(JointDriverNode)
