# SPDX-License-Identifier: Apache-2.0
"""The supervisor over real DDS: the order of a start, the emergency stop, whom it re-arms.

What it does about nodes that die or hang: `tests/faults/test_supervision_faults.py`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from twinloop.dds import own_domain
from twinloop.launching import LaunchLine, LaunchRunner, load_launch_file
from twinloop.nodes import qos

from twinloop_interfaces.msg import GuardStatus

DUMMY = Path(__file__).with_name("dummy_node.py")
# `back` depends on `front`; `side` depends on nothing.
LAUNCH = """<launch>
  {dummies}
  <node pkg="twinloop" exec="supervisor_node" name="supervisor" namespace="cell" output="screen">
    <param name="nodes" value="[front, back, side]"/>
    <param name="dependencies" value="['side:']"/>
    <param name="kill_after_s" value="1.5"/>
    <param name="rearm_lost_heartbeat" value="true"/>
  </node>
</launch>"""
DUMMY_TAG = """<executable name="{name}" output="screen"
    cmd="{python} {dummy} --ros-args -r __node:={name} -r __ns:=/cell -p autostart:=false"
    respawn="true" respawn_delay="0.2" respawn_max_retries="3"/>"""
LABELS = {"front": "front-1", "back": "back-2", "side": "side-3", "supervisor": "supervisor_node-4"}


class Cell:
    """Three dummies and a supervisor as processes, and what they say."""

    def __init__(self, folder: Path) -> None:
        path = folder / "cell.launch.xml"
        dummies = "\n".join(
            DUMMY_TAG.format(name=name, python=sys.executable, dummy=DUMMY)
            for name in ("front", "back", "side")
        )
        path.write_text(LAUNCH.format(dummies=dummies))
        self.lines: list[tuple[float, LaunchLine]] = []
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.stops: list[bool] = []
        self._changed = threading.Condition()
        self.runner = LaunchRunner(load_launch_file(path), on_line=self._on_line)
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("observer", namespace="/cell", context=self.context)
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS
        )
        self.node.create_subscription(Bool, "emergency_stop", self._on_stop, qos.HEARTBEAT)
        self.node.create_service(Trigger, "rearm", self._on_rearm)
        self.guard_status = self.node.create_publisher(GuardStatus, "guard_status", qos.latched())
        self.rearmed = 0
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._is_over = False
        self._threads = [
            threading.Thread(target=self.runner.run),
            threading.Thread(target=self._spin),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self.runner.stop()
        self._threads[0].join()
        self._is_over = True
        self._threads[1].join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def supervisor_says(self) -> tuple[bytes, str]:
        status = self.statuses.get("/cell/supervisor")
        return (b"", "") if status is None else (status.level, status.message)

    def all_active(self) -> bool:
        return self.supervisor_says() == (DiagnosticStatus.OK, "all nodes are active")

    def wait(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        with self._changed:
            met = self._changed.wait_for(condition, timeout=timeout_s)
        log = "\n".join(f"{line.source}: {line.text}" for _, line in self.lines)
        assert met, f"{log}\n{self.supervisor_says()}"

    def call(self, name: str) -> Trigger.Response:
        client = self.node.create_client(Trigger, name)
        assert client.wait_for_service(timeout_sec=60)
        future = client.call_async(Trigger.Request())
        self.wait(future.done)
        return future.result()

    def _on_rearm(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.rearmed += 1
        response.success = True
        return response

    def _spin(self) -> None:
        while not self._is_over:
            self._executor.spin_once(timeout_sec=0.1)
            with self._changed:
                self._changed.notify_all()

    def _on_line(self, line: LaunchLine) -> None:
        with self._changed:
            self.lines.append((time.monotonic(), line))
            self._changed.notify_all()

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self.statuses[status.name] = status

    def _on_stop(self, message: Bool) -> None:
        self.stops.append(message.data)


@pytest.fixture(scope="module")
def running_cell(tmp_path_factory) -> Iterator[Cell]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own_domain().items():
            patch.setenv(name, value)
        cell = Cell(tmp_path_factory.mktemp("cell"))
        try:
            yield cell
        finally:
            cell.close()


@pytest.fixture
def cell(running_cell) -> Cell:
    """Three dummies and their supervisor, all active; restarts of earlier tests count."""
    running_cell.statuses.clear()
    running_cell.wait(running_cell.all_active)
    return running_cell


def test_nodes_come_up_in_order_and_the_emergency_stop_beats(cell):
    order = [
        (line.source, line.text) for _, line in cell.lines if line.text in ("configured", "started")
    ]
    assert order == [
        (LABELS[name], word)
        for name in ("front", "back", "side")
        for word in ("configured", "started")
    ]
    cell.stops.clear()
    cell.wait(lambda: len(cell.stops) >= 20)
    assert not any(cell.stops)
    assert cell.call("press_emergency_stop").success
    cell.wait(lambda: cell.stops[-5:] == [True] * 5)
    assert cell.call("release_emergency_stop").success
    cell.wait(lambda: cell.stops[-5:] == [False] * 5)


def test_only_a_guard_that_lost_the_heartbeat_is_rearmed(cell):
    def stopped(reason: str) -> None:
        for _ in range(6):
            cell.guard_status.publish(GuardStatus(state=GuardStatus.EMERGENCY_STOP, reason=reason))
            heard = len(cell.stops)
            cell.wait(lambda heard=heard: len(cell.stops) >= heard + 5)

    cell.wait(lambda: len(cell.stops) >= 25)
    stopped("emergency stop pressed")
    assert cell.rearmed == 0
    stopped("emergency-stop heartbeat lost")
    cell.wait(lambda: cell.rearmed >= 1)
    assert cell.call("press_emergency_stop").success
    rearmed = cell.rearmed
    stopped("emergency-stop heartbeat lost")
    assert cell.rearmed == rearmed
    assert cell.call("release_emergency_stop").success
