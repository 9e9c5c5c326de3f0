# SPDX-License-Identifier: Apache-2.0
"""Reset node: has the arm bring dropped balls back, as the action that resets the scene."""

from __future__ import annotations

import threading
import time

from rclpy.action.server import ServerGoalHandle

from twinloop.motion import PLANNERS, make_planner
from twinloop.nodes.arm_client import ArmClient
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.nodes.reset_devices import (
    RosArm,
    RosGripper,
    RosHand,
    RosPalmEyes,
    RosSafety,
    RosTrayEyes,
)
from twinloop.nodes.task_action import TaskAction
from twinloop.resets.baoding import BallReset
from twinloop.resets.devices import Devices
from twinloop.resets.faults import Fault
from twinloop.resets.machine import Outcome
from twinloop.resets.settings import load_settings
from twinloop_interfaces.action import ResetScene

_DISCOVERY_S = 10.0  # nodes that were started together find each other within it
_LEASE_S = 0.6  # after the last command another source may command


class ResetNode(Node):
    """Wires a `BallReset` to the cell's topics and actions; it runs in a thread of its own."""

    parameters = (
        ParameterSpec("planner", "ompl", "What plans the arm's motions", choices=PLANNERS),
        ParameterSpec("action", "reset_scene", "Name of the action that is served"),
        ParameterSpec(
            "patience_s", 10.0, "Silence of the hand that ends a reset, steady [s]", 0.1, 3600.0
        ),
    )

    def __init__(self) -> None:
        super().__init__("reset")
        self._reset: BallReset | None = None
        self._trouble = ""  # why there is no BallReset
        self._phase = ""
        self._action: TaskAction | None = None

    def configure(self) -> None:
        settings = load_settings()
        self._reset, self._phase, self._trouble = None, "", ""
        self._action = TaskAction(
            self, ResetScene, self.param("action"), self._carry_out, self._result
        )
        self._hand = RosHand(self, self.param("patience_s"), self._action.withdrawn)
        self._client = ArmClient(self)
        self._tray = RosTrayEyes(self, settings.radius_m)
        self._palm, self._safety = RosPalmEyes(self), RosSafety(self)
        self._devices = Devices(
            self._hand,
            RosArm(self._client),
            RosGripper(self._client),
            self._hand,
            self._tray,
            self._palm,
            self._safety,
        )
        # Planning the fixed places takes seconds, in which heartbeats go on.
        self._prepared = threading.Thread(target=self._prepare, daemon=True)
        self._prepared.start()

    def deactivate(self) -> None:
        if self._action is not None:
            self._action.end()

    def cleanup(self) -> None:
        self._prepared.join()
        if self._action is not None:
            self._action.close()
        for device in (self._hand, self._client, self._tray, self._palm, self._safety):
            device.close()
        self._reset = None

    def close(self) -> None:
        if self._action is not None:
            self._action.withdrawn.set()

    def health(self) -> Health:
        last = None if self._action is None else self._action.last
        values = {"phase": self._phase}
        if last is not None:
            values |= {"seconds": f"{last.seconds:.1f}", "last": last.message}
        if self._trouble:
            return Health(ERROR, self._trouble, values)
        if self._phase:
            return Health(OK, f"resetting: {self._phase}", values)
        if last is not None and not last.success:
            return Health(ERROR, f"{last.fault}: {last.message}", values)
        if self._tray_complaint():
            return Health(WARN, self._tray_complaint(), values)
        return Health(OK, "idle", values)

    def _tray_complaint(self) -> str:
        return self._tray.complaint if hasattr(self, "_tray") else ""

    def _prepare(self) -> None:
        try:
            self._reset = BallReset(self._devices, make_planner(self.param("planner")))
        except Exception as error:  # of another thread: shown in the heartbeat
            self._trouble = f"cannot reset: {type(error).__name__}: {error}"

    def _result(self, outcome: Outcome) -> ResetScene.Result:
        message = outcome.message if outcome.success else f"{outcome.fault}: {outcome.message}"
        return ResetScene.Result(success=outcome.success, message=message, seconds=outcome.seconds)

    def _carry_out(self, handle: ServerGoalHandle) -> Outcome:
        """Run a reset; in a thread of its own."""
        assert self._action is not None
        try:
            outcome = self._bring_back(handle, self._action.withdrawn)
        finally:
            self._hand.end()
            self._phase = ""
        if outcome.success:
            time.sleep(_LEASE_S)
        return outcome

    def _missing(self) -> str:
        """What a reset needs and nobody serves, such as right after the start."""
        return self._client.missing or ("" if self._hand.is_there else "joint_states of the hand")

    def _bring_back(self, handle: ServerGoalHandle, withdrawn: threading.Event) -> Outcome:
        self._prepared.join()
        if self._reset is None:
            return Outcome(Fault.NO_PATH, self._trouble, 0.0, (), {})
        missing = self._missing()
        end_s = time.monotonic() + _DISCOVERY_S
        while missing and time.monotonic() < end_s and not withdrawn.is_set():
            time.sleep(0.05)
            missing = self._missing()
        if missing:
            return Outcome(Fault.STOPPED, f"not there: {missing}", 0.0, (), {})

        def tell(phase: str, percent: float) -> None:
            self._phase = phase
            handle.publish_feedback(ResetScene.Feedback(phase=phase, percent=percent))

        self._hand.begin()
        return self._reset.run(tell, withdrawn.is_set)


def main() -> None:
    run(ResetNode)
