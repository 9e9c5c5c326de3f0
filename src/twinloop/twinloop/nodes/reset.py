# SPDX-License-Identifier: Apache-2.0
"""Reset node: has the arm bring dropped balls back, as the action that resets the scene."""

from __future__ import annotations

import threading
import time

from rclpy.action.server import ServerGoalHandle

from twinloop.motion import PLANNERS, make_planner
from twinloop.nodes.arm_client import ArmClient
from twinloop.nodes.base import run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.nodes.reset_devices import (
    RosArm,
    RosGripper,
    RosHand,
    RosPalmEyes,
    RosSafety,
    RosTrayEyes,
)
from twinloop.nodes.task_node import Device, TaskNode
from twinloop.resets.baoding import BallReset
from twinloop.resets.devices import Devices
from twinloop.resets.machine import Outcome
from twinloop.resets.settings import load_settings
from twinloop_interfaces.action import ResetScene

_LEASE_S = 0.6  # after the last command another source may command


class ResetNode(TaskNode):
    """Wires a `BallReset` to the cell's topics and its action."""

    verb, doing = "reset", "resetting"
    parameters = (
        ParameterSpec("planner", "ompl", "What plans the arm's motions", choices=PLANNERS),
        ParameterSpec("action", "reset_scene", "Name of the action that is served"),
        ParameterSpec(
            "patience_s", 10.0, "Silence of the hand that ends a reset, steady [s]", 0.1, 3600.0
        ),
    )

    def __init__(self) -> None:
        super().__init__("reset")

    def configure(self) -> None:
        self._reset: BallReset | None = None
        self.serve(ResetScene, self.param("action"))

    def open_devices(self, withdrawn: threading.Event) -> tuple[Device, ...]:
        self._hand = RosHand(self, self.param("patience_s"), withdrawn)
        self._client = ArmClient(self)
        self._tray = RosTrayEyes(self, load_settings().radius_m)
        palm, safety = RosPalmEyes(self), RosSafety(self)
        self._reset_devices = Devices(
            self._hand,
            RosArm(self._client),
            RosGripper(self._client),
            self._hand,
            self._tray,
            palm,
            safety,
        )
        return self._hand, self._client, self._tray, palm, safety

    def prepare(self) -> None:
        self._reset = BallReset(self._reset_devices, make_planner(self.param("planner")))

    def missing(self) -> str:
        return self._client.missing or ("" if self._hand.is_there else "joint_states of the hand")

    def figures(self, last: Outcome) -> dict[str, str]:
        return {"seconds": f"{last.seconds:.1f}"} | super().figures(last)

    def complaint(self) -> str:
        return self._tray.complaint

    def carry_out(self, handle: ServerGoalHandle, withdrawn: threading.Event) -> Outcome:
        assert self._reset is not None

        def tell(phase: str, percent: float) -> None:
            self.phase = phase
            handle.publish_feedback(ResetScene.Feedback(phase=phase, percent=percent))

        self._hand.begin()
        try:
            outcome = self._reset.run(tell, withdrawn.is_set)
        finally:
            self._hand.end()
        if outcome.success:
            time.sleep(_LEASE_S)
        return outcome

    def result(self, outcome: Outcome) -> ResetScene.Result:
        message = outcome.message if outcome.success else f"{outcome.fault}: {outcome.message}"
        return ResetScene.Result(success=outcome.success, message=message, seconds=outcome.seconds)


def main() -> None:
    run(ResetNode)
