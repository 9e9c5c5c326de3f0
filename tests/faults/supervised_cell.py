# SPDX-License-Identifier: Apache-2.0
"""A twin, a node that commands it, two that do nothing, and their supervisor, as launched."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_msgs.msg import Empty
from twin_station import Station
from twinloop.launching import LaunchLine, LaunchRunner, load_launch_file
from twinloop.nodes import qos

NODES = Path(__file__).parents[1] / "nodes"
# `source` depends on `twin` and `front`; `side` depends on nothing, and nothing on it.
LAUNCH = """<launch>
  <node pkg="twinloop_sim" exec="twin_node" name="twin" namespace="{space}" output="screen"
        respawn="true" respawn_delay="0.1" respawn_max_retries="3">
    <param name="autostart" value="false"/>
    <param name="emergency_stop_timeout_s" value="{patience_s}"/>
  </node>
  {others}
  <node pkg="twinloop" exec="supervisor_node" name="supervisor" namespace="{space}"
        output="screen" respawn="true" respawn_delay="0.1" respawn_max_retries="3">
    <param name="nodes" value="[twin, front, source, side]"/>
    <param name="dependencies" value="['front:', 'side:']"/>
    <param name="heartbeat_timeout_s" value="{silence_s}"/>
    <param name="kill_after_s" value="3.0"/>
    <param name="rearm_lost_heartbeat" value="true"/>
  </node>
</launch>"""
OTHER = """<executable name="{name}" output="screen"
    cmd="{python} {script} --ros-args -r __node:={name} -r __ns:={space} -p autostart:=false"
    respawn="true" respawn_delay="0.2" respawn_max_retries="3"/>"""
SCRIPTS = {
    "front": NODES / "dummy_node.py",
    "source": NODES / "commanding_node.py",
    "side": NODES / "dummy_node.py",
}
LABELS = {
    "twin": "twin_node-1",
    "front": "front-2",
    "source": "source-3",
    "side": "side-4",
    "supervisor": "supervisor_node-5",
}


class SupervisedCell:
    """The running cell, and a station that hears it.

    Args:
        folder: for the launch file.
        domain: that this process's environment names.
        is_patient: nodes of a busy machine are not taken for lost; else as the cell is launched.
    """

    def __init__(self, folder: Path, domain: int, is_patient: bool) -> None:
        self.space = f"/station_{os.getpid()}_{domain}"  # the station's
        path = folder / "cell.launch.xml"
        others = "\n".join(
            OTHER.format(name=name, python=sys.executable, script=script, space=self.space)
            for name, script in SCRIPTS.items()
        )
        silence_s, patience_s = (2.0, 2.0) if is_patient else (0.7, 0.23)
        path.write_text(
            LAUNCH.format(
                others=others, space=self.space, silence_s=silence_s, patience_s=patience_s
            )
        )
        self.lines: list[LaunchLine] = []
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.runner = LaunchRunner(load_launch_file(path), on_line=self.lines.append)
        self._thread = threading.Thread(target=self.runner.run)
        self._thread.start()
        try:
            self.station = Station(domain, is_launched=True)
        except BaseException:
            self.stop()
            raise
        node = self.station.node
        node.create_subscription(DiagnosticArray, "/diagnostics", self._take, qos.DIAGNOSTICS)
        self._fail = node.create_publisher(Empty, "fail", 1)

    def close(self) -> None:
        self.stop()
        self.station.close()

    def stop(self) -> None:
        self.runner.stop()
        self._thread.join()

    # What it says.

    def status(self, name: str) -> DiagnosticStatus:
        return self.statuses.get(f"{self.space}/{name}", DiagnosticStatus())

    def state(self, name: str) -> str:
        values = {value.key: value.value for value in self.status(name).values}
        return values.get("state", "")

    def is_whole(self) -> bool:
        return self.status("supervisor").message == "all nodes are active"

    def is_moving(self) -> bool:
        """Whether a setpoint of the last quarter of a second differs from another."""
        recent = np.array([position for _, position in self.station.record.setpoints[-25:]])
        return bool(np.ptp(recent, axis=0).max() > 1e-3)

    def said(self, name: str, word: str, after: int = 0) -> str | None:
        """Return the first line of a node that has a word in it, from a line on."""
        for line in self.lines[after:]:
            if line.source == LABELS[name] and word in line.text:
                return line.text
        return None

    def when(self, name: str, word: str, after: int = 0) -> float:
        """Return when the commanding node said something, steady s."""
        self.until(lambda: self.said(name, word, after))
        return float((self.said(name, word, after) or "").split()[0])

    def until(self, is_true: Callable[[], Any]) -> None:
        try:
            self.station.spin_until(is_true, 60.0)
        except AssertionError:
            print(*(f"{line.source}: {line.text}" for line in self.lines[-60:]), sep="\n")
            print({name: status.message for name, status in self.statuses.items()})
            raise

    def wait_until_whole(self) -> None:
        """Wait until all nodes are active and the twin moves."""
        self.statuses.clear()
        self.until(lambda: self.is_whole() and self.is_moving())

    # What is done to it.

    def pid(self, name: str) -> int:
        pid = self.runner.processes[LABELS[name]].pid
        assert pid is not None, f"{name} does not run"
        return pid

    def signal(self, name: str, number: int) -> int:
        """Send a signal to a node; returns the newest line's number."""
        start = len(self.lines)
        os.kill(self.pid(name), number)
        return start

    def fail(self) -> None:
        """Have the commanding node's next step fail."""
        self.until(lambda: self._fail.get_subscription_count() > 0)
        self._fail.publish(Empty())

    def _take(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self.statuses[status.name] = status
