# SPDX-License-Identifier: Apache-2.0
"""A twin node as a process of its own, and a station beside it that commands and records.

The station works in the thread that spins it: nothing happens between two calls.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import rclpy
from rclpy.action import ActionClient
from rclpy.experimental import EventsExecutor
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from twinloop.dds import leave_domain
from twinloop.dds import take_domain as free_domain
from twinloop.nodes import qos
from twinloop.robots.hand24 import HAND24

from twinloop_interfaces.action import ResetScene
from twinloop_interfaces.msg import GuardStatus, TrackedBallArray

NAMES = list(HAND24.joint_names)
CUP = HAND24.poses["cup"]
PERIOD_NS = 100_000_000
TICK_NS = 10_000_000
# Patience of a busy machine: for processes that start and find each other, and for an answer.
START_S, ANSWER_S = 90.0, 30.0
# Deeper than the nodes' own, so that a busy machine costs the record nothing.
DEEP = rclpy.qos.QoSProfile(depth=500, reliability=rclpy.qos.ReliabilityPolicy.BEST_EFFORT)


def stamp_ns(message: Any) -> int:
    stamp = message.header.stamp if hasattr(message, "header") else message.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def command(
    targets: Sequence[float] | np.ndarray, stamp: int, source: str, names: Sequence[str] = NAMES
) -> JointTrajectory:
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    message.header.frame_id = source
    message.points = [JointTrajectoryPoint(positions=[float(value) for value in targets])]
    return message


def start_node(
    module: str,
    domain: int,
    namespace: str = "/",
    remap: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
    stderr: IO[str] | None = None,
    **parameters: Any,
) -> subprocess.Popen:
    """Start the `main` of a module as a process in a domain, with ROS parameters.

    `remap` gives other names to the topics that it names; `before` runs in the process first;
    `stderr` gets what it logs.
    """
    ros = [
        f"{name}:={str(v).lower() if isinstance(v, bool) else v}" for name, v in parameters.items()
    ]
    settings = [part for item in ros for part in ("-p", item)]
    settings += [part for old, new in (remap or {}).items() for part in ("-r", f"{old}:={new}")]
    # The kernel ends the process with this one, however this one ends (PR_SET_PDEATHSIG).
    code = f"import ctypes; ctypes.CDLL(None).prctl(1, 9); from {module} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "--ros-args", "-r", f"__ns:={namespace}", *settings],
        env={
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.fspath(Path(__file__).parent),
            # A node that dies of a signal says where it was.
            "PYTHONFAULTHANDLER": "1",
        },
        preexec_fn=before,
        stderr=stderr,
    )


@dataclass
class Record:
    """What the twin said, in order of arrival; stamps are ROS time, ns."""

    joints: list[tuple[int, np.ndarray]] = field(default_factory=list)
    setpoints: list[tuple[int, np.ndarray]] = field(default_factory=list)
    applied: list[tuple[int, str, np.ndarray]] = field(default_factory=list)
    balls: list[tuple[int, TrackedBallArray]] = field(default_factory=list)
    truth: list[tuple[int, np.ndarray]] = field(default_factory=list)
    statuses: list[GuardStatus] = field(default_factory=list)
    clocks: list[int] = field(default_factory=list)


class Station:
    """Commands a twin over DDS and records what it says.

    Args:
        domain: to be in; None: one that is free.
        is_launched: the twin is started by somebody else.
        parameters: of the twin node.
    """

    def __init__(
        self, domain: int | None = None, is_launched: bool = False, **parameters: Any
    ) -> None:
        self.domain = domain or free_domain()
        # Domains are few; a namespace keeps out whoever else is in this one.
        self.namespace = f"/station_{os.getpid()}_{self.domain}"
        self.record = Record()
        self.driver: Callable[[int], np.ndarray | None] | None = None
        self.source = "tester"
        self.commanded: list[int] = []
        self.clock_lag_ns = 0  # by which the station's clock is behind the twin's
        self.beats: bool | None = None
        self._next_due_ns = 0
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        self.node = rclpy.create_node(
            f"station_{self.domain}", namespace=self.namespace, context=self._context
        )
        self._subscribe()
        self._publisher = self.node.create_publisher(JointTrajectory, "command", qos.COMMAND)
        self._stop = self.node.create_publisher(Bool, "emergency_stop", qos.HEARTBEAT)
        self._rearm = self.node.create_client(Trigger, "rearm")
        self._reset = ActionClient(self.node, ResetScene, "reset_scene")
        self._parameters = AsyncParameterClient(self.node, "twin")
        self.node.create_timer(0.05, self._beat)
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.twin = None if is_launched else self.start("twinloop_sim.nodes.twin", **parameters)
        try:
            self.spin_until(lambda: self.record.joints and self.record.statuses, START_S)
            if not parameters.get("lockstep"):
                self.spin_until(lambda: self.record.setpoints, START_S)
            self.spin_until(lambda: self._publisher.get_subscription_count() > 0, START_S)
            self.spin_until(self._rearm.service_is_ready, START_S)
            self.spin_until(self._reset.server_is_ready, START_S)
        except BaseException:
            self.close()
            raise

    def start(self, module: str, **parameters: Any) -> subprocess.Popen:
        """Start a node beside the station."""
        return start_node(module, self.domain, self.namespace, **parameters)

    def close(self) -> None:
        if self.twin is not None and self.twin.poll() is None:
            self.twin.send_signal(signal.SIGINT)
            try:
                self.twin.wait(60.0)
            except subprocess.TimeoutExpired:
                self.twin.kill()
                self.twin.wait()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        leave_domain(self.domain)

    # Time.

    @property
    def now_ns(self) -> int:
        """Stamp of the newest joint states, ns."""
        return self.record.joints[-1][0]

    @property
    def state(self) -> int:
        return self.record.statuses[-1].state

    def _life(self) -> str:
        """Return whether the twin still runs, and of what time its last joint states are."""
        ended = None if self.twin is None else self.twin.poll()
        last = self.record.joints[-1][0] if self.record.joints else None
        return f"{'runs' if ended is None else f'ended with {ended}'}, joints last of {last} ns"

    def spin_until(self, is_true: Callable[[], Any], timeout_s: float = ANSWER_S) -> None:
        """Work until something is true; fails after `timeout_s` of steady time."""
        end_s = time.monotonic() + timeout_s
        while not is_true():
            assert time.monotonic() < end_s, (
                f"nothing came of it within {timeout_s} s; the twin {self._life()}, the guard's "
                f"last word: {self.record.statuses[-1:]}"
            )
            self._executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        """Work for some simulated time."""
        start = len(self.record.joints)
        ticks = round(seconds * 100)
        self.spin_until(lambda: len(self.record.joints) >= start + ticks, 30.0 + 20 * seconds)

    # Commands.

    def send(self, targets: Any, stamp: int | None = None, **changes: Any) -> None:
        stamp = self.now_ns if stamp is None else stamp
        self._publisher.publish(command(targets, stamp, **({"source": self.source} | changes)))

    def send_refused(self, message: JointTrajectory) -> str:
        """Publish a bad command, wait until it was counted; returns the reason given."""
        before = self.record.statuses[-1].refused
        self._publisher.publish(message)
        self.spin_until(lambda: self.record.statuses[-1].refused > before)
        return str(self.record.statuses[-1].last_refusal)

    def drive(self, driver: Callable[[int], np.ndarray | None]) -> None:
        """From now on ask `driver(k)` for the targets of each control step k; None is silence."""
        self.commanded.clear()
        self._next_due_ns = 0
        self.driver = driver

    # Services.

    def press(self, is_pressed: bool) -> None:
        """Tell the emergency stop's state at once, and in every heartbeat from now on."""
        self.beats = is_pressed
        self._beat()

    def rearm(self) -> Trigger.Response:
        return self._wait(self._rearm.call_async(Trigger.Request()))

    def reset(self, seed: int = 1, **goal: Any) -> Any:
        """Reset the scene and cease to command; returns the result."""
        self.driver = None
        handle = self._wait(
            self._reset.send_goal_async(ResetScene.Goal(seed=seed, **({"start": "cup"} | goal)))
        )
        assert handle.accepted
        result = self._wait(handle.get_result_async()).result
        return result

    def set_parameter(self, name: str, value: Any) -> None:
        future = self._parameters.set_parameters([Parameter(name, value=value)])
        assert self._wait(future).results[0].successful

    def _wait(self, future: Any) -> Any:
        self.spin_until(future.done)
        return future.result()

    # Callbacks.

    def _subscribe(self) -> None:
        record, subscribe = self.record, self.node.create_subscription
        subscribe(JointState, "joint_states", self._on_joints, DEEP)
        subscribe(
            JointState,
            "setpoint",
            lambda m: record.setpoints.append((stamp_ns(m), np.array(m.position))),
            DEEP,
        )
        subscribe(
            JointTrajectory,
            "applied_command",
            lambda m: record.applied.append(
                (stamp_ns(m), m.header.frame_id, np.array(m.points[0].positions))
            ),
            qos.EVENT,
        )
        subscribe(TrackedBallArray, "balls", lambda m: record.balls.append((stamp_ns(m), m)), DEEP)
        subscribe(TrackedBallArray, "truth", self._on_truth, DEEP)
        subscribe(GuardStatus, "guard_status", record.statuses.append, qos.latched())
        subscribe(
            Clock,
            "/clock",
            lambda m: record.clocks.append(m.clock.sec * 10**9 + m.clock.nanosec),
            DEEP,
        )

    def _on_truth(self, message: TrackedBallArray) -> None:
        places = [(b.position.x, b.position.y, b.position.z) for b in message.balls]
        self.record.truth.append((stamp_ns(message), np.array(places)))

    def _on_joints(self, message: JointState) -> None:
        stamp = stamp_ns(message)
        self.record.joints.append((stamp, np.array(message.position)))
        if self.driver is None:
            return
        if abs(stamp - self._next_due_ns) > 10**9:
            self._next_due_ns = stamp
        if stamp >= self._next_due_ns:
            targets = self.driver(len(self.commanded))
            if targets is None:
                self.driver = None
                return
            self.send(targets, self._next_due_ns - self.clock_lag_ns)
            self.commanded.append(self._next_due_ns)
            self._next_due_ns += PERIOD_NS

    def _beat(self) -> None:
        if self.beats is not None:
            self._stop.publish(Bool(data=self.beats))
