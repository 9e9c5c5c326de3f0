# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that commands a twin at every control step, until a step fails.

It says on stdout what happens to it, and when by the steady clock.
"""

from __future__ import annotations

import time

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Empty
from trajectory_msgs.msg import JointTrajectory
from twin_station import CUP, PERIOD_NS, command, stamp_ns
from twinloop.nodes import qos
from twinloop.nodes.base import Node, run


class CommandingNode(Node):
    """Moves all joints to and fro while it is active; fails in the step after `fail`."""

    def __init__(self) -> None:
        super().__init__("source")
        self._due_ns = 0
        self._step = 0
        self._fails = False

    def configure(self) -> None:
        self._command = self.create_publisher(JointTrajectory, "command", qos.COMMAND)
        self.create_subscription(
            JointState, "joint_states", self.guarded(self._control), qos.SENSOR
        )
        self.create_subscription(Empty, "fail", self._fail, 1)

    def activate(self) -> None:
        self._say("started")

    def deactivate(self) -> None:
        self._say("stopped")

    def _fail(self, _message: Empty) -> None:
        self._fails = True

    def _control(self, message: JointState) -> None:
        stamp = stamp_ns(message)
        if not self.is_active or stamp < self._due_ns:
            return
        self._due_ns = stamp + PERIOD_NS
        self._step += 1
        if self._fails:
            self._fails = False
            self._say(f"failed {stamp}")
            raise ZeroDivisionError("in a control step")
        targets = CUP + 0.1 * np.sin(0.8 * self._step)
        self._command.publish(command(targets, stamp, self.get_name()))

    def _say(self, word: str) -> None:
        print(f"{time.monotonic():.6f} {word}", flush=True)


if __name__ == "__main__":
    run(CommandingNode)
