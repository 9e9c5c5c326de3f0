# SPDX-License-Identifier: Apache-2.0
"""A twin that is steered: its nodes as processes, and a planner and a joystick played by a test."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from sensor_msgs.msg import Joy
from trajectory_msgs.msg import JointTrajectory
from twin_station import NAMES, PERIOD_NS, START_S, Station, command
from twinloop.nodes import qos
from twinloop.paths import share
from twinloop.teleop.settings import load_settings

from twinloop_interfaces.msg import ControlStatus, PilotInput, PilotStatus

SETTINGS = load_settings()
DEAD_MAN = SETTINGS.joystick.dead_man
AUTONOMY_STEP = 0.15  # rad, what a planner may do in a step
_JOY_S = 0.02


def patient_config(folder: Path) -> Path:
    """Return a file with the longest patience that there is: a busy machine plays the pilot."""
    text = share("config", "teleop", "cell.yaml").read_text()
    changed, count = re.subn(r"(?m)^timeout_s: \S+", "timeout_s: 0.1", text)
    assert count == 1
    path = folder / "cell.yaml"
    path.write_text(changed)
    return path


class PilotedStation(Station):
    """A station that plays planner and joystick to `steering` and `teleop`.

    Args:
        is_prompt: a pilot's silence counts as soon as it does on a robot.
        parameters: of the twin.

    Attributes:
        wanted: where the planner leads the hand [24], rad; None: it is silent.
        axes: of the joystick, by number.
        pressed: its buttons.
        joy_speaks: whether it says anything at all.
        control: who commanded, in order.
        said_ns: when the joystick, and when teleop, spoke last, steady.
        ahead_ns: what the twin's stamps of late were ahead of the steady clock. On a busy machine
            the twin falls behind for good.
    """

    def __init__(self, is_prompt: bool = False, **parameters: Any) -> None:
        self.wanted: np.ndarray | None = None
        self.axes: dict[int, float] = {}
        self.pressed: set[int] = set()
        self.joy_speaks = True
        self.control: list[ControlStatus] = []
        self.pilot: list[PilotStatus] = []
        self.planned: list[tuple[int, np.ndarray]] = []
        self.said_ns = {"joy": 0, "teleop": 0}
        self.ahead_ns: deque[int] = deque(maxlen=60)
        self._planned_ns = 0
        super().__init__(**parameters)
        node = self.node
        self._autonomy = node.create_publisher(JointTrajectory, "autonomy/command", qos.COMMAND)
        self._joy = node.create_publisher(Joy, "joy", qos.SENSOR)
        self.inputs = node.create_publisher(PilotInput, "pilot_input", qos.SENSOR)
        node.create_subscription(
            ControlStatus, "control_status", self.control.append, qos.latched()
        )
        node.create_subscription(PilotStatus, "pilot_status", self.pilot.append, qos.latched())
        node.create_subscription(JointTrajectory, "pilot_command", self._hear_pilot, qos.EVENT)
        node.create_timer(_JOY_S, self._say_joy)
        self._folder = tempfile.TemporaryDirectory()
        patience, config = {}, {}
        if not is_prompt:
            patience = {"pilot_timeout_s": 0.1}
            config = {"config": patient_config(Path(self._folder.name))}
        self.nodes: dict[str, subprocess.Popen] = {
            "steering": self.start("twinloop.nodes.steering", **patience),
            "teleop": self.start("twinloop.nodes.teleop", use_sim_time=True, **config),
        }
        self.spin_until(lambda: self.control and self.pilot, START_S)
        self.spin_until(lambda: self._autonomy.get_subscription_count() > 0, START_S)
        self.spin_until(lambda: self._joy.get_subscription_count() > 0, START_S)
        self.spin(0.3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in getattr(self, "nodes", {}).values():
            if process.poll() is None:
                process.kill()
            process.wait()
        self._folder.cleanup()
        super().close()

    @property
    def goal(self) -> np.ndarray:
        """The goal that is in force, [24] rad."""
        return self.record.applied[-1][2]

    @property
    def who(self) -> int:
        return self.control[-1].who

    def hold(self, **axes: float) -> None:
        """Press the dead-man and lean on axes, such as a1=0.5, until the pilot commands."""
        self.pressed.add(DEAD_MAN)
        self.axes = {int(name[1:]): value for name, value in axes.items()}
        self.spin_until(lambda: self.who in (ControlStatus.PILOT, ControlStatus.SHARED))

    def hold_until(self, is_true: Callable[[], Any], **axes: float) -> None:
        """Hold until something is true; pressed anew where a busy machine has lost the pilot."""
        for _ in range(20):
            self.hold(**axes)
            self.spin_until(lambda: is_true() or self.who == ControlStatus.NOBODY)
            if self.who != ControlStatus.NOBODY:
                return
            self.pressed.clear()
            self.spin(0.2)
        raise AssertionError("the pilot is lost again and again")

    def let_go(self) -> None:
        """Release everything, until autonomy commands."""
        self.pressed.clear()
        self.axes = {}
        self.spin_until(lambda: self.who == ControlStatus.AUTONOMY)

    def steps_since(self, count: int) -> np.ndarray:
        """Largest change of a joint from each applied goal to the next, rad."""
        goals = np.array([goal for _, _, goal in self.record.applied[count:]])
        return np.abs(np.diff(goals, axis=0)).max(axis=1)

    def _say_joy(self) -> None:
        if not self.joy_speaks:
            return
        message = Joy(
            axes=[self.axes.get(number, 0.0) for number in range(8)],
            buttons=[int(number in self.pressed) for number in range(12)],
        )
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._joy.publish(message)
        self.said_ns["joy"] = time.monotonic_ns()

    def _hear_pilot(self, _message: JointTrajectory) -> None:
        self.said_ns["teleop"] = time.monotonic_ns()

    def _on_joints(self, message: Any) -> None:
        super()._on_joints(message)
        stamp = self.now_ns
        self.ahead_ns.append(stamp - time.monotonic_ns())
        if self.wanted is None or not self.record.applied or stamp < self._planned_ns + PERIOD_NS:
            return
        late = stamp - self._planned_ns >= 2 * PERIOD_NS
        self._planned_ns = stamp if late else self._planned_ns + PERIOD_NS
        # As a planner does: from the command in force.
        change = np.clip(self.wanted - self.goal, -AUTONOMY_STEP, AUTONOMY_STEP)
        self.planned.append((self._planned_ns, self.goal + change))
        self._autonomy.publish(command(self.goal + change, self._planned_ns, "planner", NAMES))
