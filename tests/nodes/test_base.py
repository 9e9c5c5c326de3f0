# SPDX-License-Identifier: Apache-2.0
"""The base of every node: a fault in one stops that one only, odd requests are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Bool
from twinloop.dds import take_domain
from twinloop.nodes import qos

DOMAIN = str(take_domain())
FAULTY = """
import time
from std_msgs.msg import Bool
from twinloop.nodes import qos
from twinloop.nodes.base import Node, run

class Faulty(Node):
    def configure(self):
        self.create_subscription(Bool, "step", self.guarded(self.step), qos.HEARTBEAT)
        self.create_subscription(Bool, "flood", lambda _: time.sleep(0.05), qos.SENSOR)
    def step(self, message):
        if message.data:
            raise ZeroDivisionError("in a control step")

run(lambda: Faulty("faulty"))
"""


class Watcher:
    """Hears the heartbeats of the node under test, and talks to it."""

    def __init__(self, context: Context) -> None:
        self.node = Node("watcher", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.last: DiagnosticStatus | None = None
        self.beats = 0
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_beat, qos.DIAGNOSTICS
        )
        self.step = self.node.create_publisher(Bool, "step", qos.HEARTBEAT)
        self.flood = self.node.create_publisher(Bool, "flood", qos.SENSOR)
        self.change = self.node.create_client(ChangeState, "/faulty/change_state")

    def _on_beat(self, array: DiagnosticArray) -> None:
        self.last = array.status[0]
        self.beats += 1

    def state(self) -> str:
        if self.last is None:
            return ""
        return {entry.key: entry.value for entry in self.last.values}["state"]

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
        return condition()


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[Watcher, subprocess.Popen[bytes]]]:
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    environment = os.environ | {
        "ROS_DOMAIN_ID": DOMAIN,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    context = Context()
    rclpy.init(context=context, domain_id=int(DOMAIN))
    watcher = Watcher(context)
    try:
        assert watcher.until(lambda: watcher.state() == "active")
        yield watcher, process
    finally:
        process.terminate()
        process.wait(60.0)
        context.try_shutdown()


def test_row_24_an_exception_in_a_step_deactivates_that_node_and_names_itself(
    faulty: tuple[Watcher, subprocess.Popen[bytes]],
) -> None:
    watcher, process = faulty
    assert watcher.until(lambda: watcher.step.get_subscription_count() == 1)
    watcher.step.publish(Bool(data=False))
    watcher.until(lambda: False, 0.5)
    assert watcher.state() == "active"
    watcher.step.publish(Bool(data=True))
    assert watcher.until(lambda: watcher.state() == "inactive")
    assert watcher.last is not None
    assert watcher.last.level == DiagnosticStatus.ERROR
    assert "ZeroDivisionError: in a control step" in watcher.last.message
    assert process.poll() is None


def test_an_odd_lifecycle_request_does_not_end_the_node(
    faulty: tuple[Watcher, subprocess.Popen[bytes]],
) -> None:
    watcher, process = faulty
    assert watcher.until(watcher.change.service_is_ready)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    watcher.change.call_async(request)
    watcher.until(lambda: False, 1.0)
    watcher.last = None
    assert watcher.until(lambda: watcher.state() == "active")
    assert process.poll() is None


def test_a_node_with_more_messages_than_it_can_take_still_beats(
    faulty: tuple[Watcher, subprocess.Popen[bytes]],
) -> None:
    watcher, _ = faulty
    assert watcher.until(lambda: watcher.flood.get_subscription_count() == 1)
    for seconds in (0.5, 4.0):  # the first, until it is behind
        watcher.beats, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            watcher.flood.publish(Bool())
            watcher.executor.spin_once(timeout_sec=0.01)
    assert watcher.beats >= 3


def test_a_clean_end_says_goodbye(faulty: tuple[Watcher, subprocess.Popen[bytes]]) -> None:
    watcher, process = faulty
    process.terminate()
    assert watcher.until(lambda: watcher.state() == "finalized")
    assert process.wait(60.0) == 0
