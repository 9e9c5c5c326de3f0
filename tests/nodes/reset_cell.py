# SPDX-License-Identifier: Apache-2.0
"""A twin with its arm, a reset node beside it, and a client that asks for resets."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
from arm_station import ArmStation
from rclpy.action import ActionClient
from twinloop.resets.settings import load_settings

from twinloop_interfaces.action import ResetScene

ACTION = "bring_back"
PALM = np.array([[-0.075, -0.15, 0.0], [0.08, 0.02, 0.19]])


class ResetCell:
    """The twin makes up what a tracker would tell.

    Attributes:
        phases: of the present reset.
    """

    def __init__(self, **parameters: Any) -> None:
        self.arm = ArmStation(seed=3, **parameters)
        self.station = self.arm.station
        self.phases: list[str] = []
        self._client = ActionClient(self.station.node, ResetScene, ACTION)
        self.nodes: dict[str, subprocess.Popen] = {}

    def start(self, name: str, module: str, **parameters: Any) -> None:
        self.nodes[name] = self.station.start(module, **parameters)

    def start_reset(self) -> None:
        self.start("reset", "twinloop.nodes.reset", action=ACTION, use_sim_time=True)
        self.until(self._client.server_is_ready, 90.0)

    def kill_reset(self) -> None:
        node = self.nodes.pop("reset")
        node.kill()
        node.wait()
        self.until(lambda: not self._client.server_is_ready(), 90.0)

    def close(self) -> None:
        for node in self.nodes.values():
            node.send_signal(signal.SIGINT)
        for node in self.nodes.values():
            node.wait(60.0)
        self.arm.close()

    def until(self, is_true: Callable[[], Any], timeout_s: float = 60.0) -> None:
        self.station.spin_until(is_true, timeout_s)

    def ask(self) -> Any:
        """Ask for a reset; returns the goal's handle."""
        self.phases = []
        sent = self._client.send_goal_async(
            ResetScene.Goal(start="cup"), lambda m: self.phases.append(m.feedback.phase)
        )
        self.until(sent.done)
        assert sent.result().accepted
        return sent.result()

    def result(self, handle: Any, timeout_s: float = 300.0) -> ResetScene.Result:
        answer = handle.get_result_async()
        self.until(answer.done, timeout_s)
        return answer.result().result

    def spill(self) -> None:
        """Let the hand drop both balls, and wait until they lie in the tray."""
        posture = load_settings().hand.spill_posture()
        self.station.drive(lambda k: posture if k < 25 else None)
        self.until(lambda: self.station.driver is None)
        self.station.spin(3.0)
        assert self.balls_in_palm == 0

    @property
    def balls_in_palm(self) -> int:
        self.station.record.truth.clear()
        self.until(lambda: self.station.record.truth)
        place = self.station.record.truth[-1][1]
        return int(((place > PALM[0]) & (place < PALM[1])).all(axis=-1).sum())

    @property
    def holds_ball(self) -> bool:
        return abs(self.arm.arm.width_m - load_settings().held_width_m) < 0.004
