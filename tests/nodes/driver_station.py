# SPDX-License-Identifier: Apache-2.0
"""A joint driver's node as a process, and a station beside it that commands and records.

All times are those of the steady clock. The station works in the thread that spins it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.experimental import EventsExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from twin_station import ANSWER_S, DEEP, START_S, command, start_node
from twinloop.dds import leave_domain, take_domain
from twinloop.nodes import qos
from twinloop.robots.leap import LEAP

from twinloop_interfaces.msg import GuardStatus

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from dynamixel import Servos as SERVOS

__all__ = ["PERIOD_S", "SERVOS", "DriverStation"]

PERIOD_S = 0.1


class DriverStation:
    """Commands a driver over DDS and records what it says.

    Attributes:
        module: the node's; a subclass has another.
        robot: that it drives.
        prefix: of its topics and services.

    Args:
        servos: at the other end of its wire; in a `domain` that they may name.
        folder: for the hardware file.
        parameters: of the node.
    """

    module = "twinloop.nodes.dynamixel"
    robot = LEAP
    prefix = ""

    def __init__(self, servos: Any, folder: Path, **parameters: Any) -> None:
        self.servos = servos
        self.joints: list[tuple[float, list[str], np.ndarray]] = []
        self.applied: list[tuple[float, str, np.ndarray]] = []
        self.guards: list[tuple[float, GuardStatus]] = []
        self.beats: list[tuple[float, DiagnosticStatus]] = []
        self._pressed: bool | None = None
        self._driver: Callable[[int], np.ndarray | None] | None = None
        self._step, self._due_s = 0, 0.0
        hardware = folder / "lab.yaml"
        hardware.write_text(json.dumps({self.robot.name: servos.settings()}))
        domain = self._domain = getattr(servos, "domain", None) or take_domain()
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("station", namespace="/lab", context=self._context)
        self._listen()
        self._command = self._make_source()
        self._stop = self.node.create_publisher(Bool, "emergency_stop", qos.HEARTBEAT)
        self._clients = {
            name: self.node.create_client(Trigger, f"{self.prefix}{name}")
            for name in ("rearm", "recover", "stop")
        }
        self.node.create_timer(0.05, self._tell_stop)
        self.node.create_timer(0.005, self._drive_on)
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self.node)
        # A busy machine's stalls are injected where they are wanted, and not taken for faults.
        patience = {"stall_limit_s": 30.0, "emergency_stop_timeout_s": 5.0, "silent_s": 0.4}
        self.process: subprocess.Popen[bytes] = start_node(
            self.module,
            domain,
            "/lab",
            hardware=hardware,
            **({"command_timeout_s": 2.0, "lease_s": 2.0} | patience | parameters),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        leave_domain(self._domain)

    # What it says.

    @property
    def guard(self) -> GuardStatus:
        return self.guards[-1][1]

    @property
    def level(self) -> bytes:
        return self.beats[-1][1].level

    @property
    def text(self) -> str:
        return self.beats[-1][1].message

    def values(self) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.beats[-1][1].values}

    def wait_for_joints(self) -> None:
        self.until(lambda: self.joints and self.guards and self.beats, START_S)
        for client in self._clients.values():
            self.until(client.service_is_ready, START_S)
        self.until(lambda: self._command.get_subscription_count() > 0)
        self.until(lambda: self._stop.get_subscription_count() > 0)

    def until(self, is_true: Callable[[], Any], timeout_s: float = ANSWER_S) -> float:
        """Work until something is true; returns when it was, steady s."""
        end_s = time.monotonic() + timeout_s
        while not is_true():
            assert time.monotonic() < end_s, f"it never came true; {self.beats[-1:]}"
            self._executor.spin_once(timeout_sec=0.05)
        return time.monotonic()

    # What it is told.

    def beat(self, is_pressed: bool) -> None:
        """Tell the emergency stop's state now, and from now on."""
        self._pressed = is_pressed
        heard = len(self.beats)
        self._tell_stop()
        self.until(lambda: len(self.beats) > heard)

    def call(self, service: str) -> Trigger.Response:
        future = self._clients[service].call_async(Trigger.Request())
        self.until(future.done)
        return future.result()

    def drive(self, driver: Callable[[int], np.ndarray | None]) -> None:
        """Ask `driver(k)` for the targets of each step k from now on; None ends it."""
        self.until(lambda: self._command.get_subscription_count() > 0)
        self._driver, self._step, self._due_s = driver, 0, time.monotonic()

    def withdraw(self) -> float:
        """Take the command source away in the middle of what it does; returns when, steady s.

        The next `drive` has a new one.
        """
        self._driver = None
        gone_s = time.monotonic()
        self.node.destroy_publisher(self._command)
        self._command = self._make_source()
        return gone_s

    def _make_source(self) -> Any:
        return self.node.create_publisher(JointTrajectory, f"{self.prefix}command", qos.COMMAND)

    def refused(self, targets: np.ndarray) -> str:
        """Send a command that is refused; returns the reason given."""
        before = self.guard.refused
        self._send(targets)
        self.until(lambda: self.guard.refused > before)
        return self.guard.last_refusal.partition(": ")[0]

    def _send(self, targets: np.ndarray) -> None:
        message = command(targets, time.time_ns(), "tester", self.robot.joint_names)
        self._command.publish(message)

    def _drive_on(self) -> None:
        now_s = time.monotonic()
        if self._driver is None or now_s < self._due_s:
            return
        targets = self._driver(self._step)
        if targets is None:
            self._driver = None
            return
        self._send(targets)
        self._step += 1
        self._due_s = max(self._due_s + PERIOD_S, now_s)

    def _tell_stop(self) -> None:
        if self._pressed is not None:
            self._stop.publish(Bool(data=self._pressed))

    def _listen(self) -> None:
        def keep(
            record: list[Any], take: Callable[[Any], tuple[Any, ...]]
        ) -> Callable[[Any], None]:
            return lambda message: record.append((time.monotonic(), *take(message)))

        subscribe = self.node.create_subscription
        subscribe(
            JointState,
            f"{self.prefix}joint_states",
            keep(self.joints, lambda m: (list(m.name), np.array(m.position))),
            DEEP,
        )
        subscribe(
            JointTrajectory,
            f"{self.prefix}applied_command",
            keep(self.applied, lambda m: (m.header.frame_id, np.array(m.points[0].positions))),
            qos.EVENT,
        )
        status = f"{self.prefix}guard_status"
        subscribe(GuardStatus, status, keep(self.guards, lambda m: (m,)), qos.latched())
        subscribe(DiagnosticArray, "/diagnostics", self._take_diagnostics, qos.DIAGNOSTICS)

    def _take_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == f"/lab/{self.module.rpartition('.')[2]}":
                self.beats.append((time.monotonic(), status))
