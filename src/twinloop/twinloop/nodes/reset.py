# SPDX-License-Identifier: Apache-2.0
"""Reset node: has the arm bring dropped balls back, as the action that resets the scene."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

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
from twinloop.resets.baoding import BallReset
from twinloop.resets.devices import Devices
from twinloop.resets.faults import Fault
from twinloop.resets.machine import Outcome
from twinloop.resets.settings import load_settings
from twinloop_interfaces.action import ResetScene

_DISCOVERY_S = 10.0  # nodes that were started together find each other within it
_LEASE_S = 0.6  # after the last command another source may command
_END_S = 5.0
_POLL_S = 0.05


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
        self._last: Outcome | None = None
        self._phase = ""
        self._thread: threading.Thread | None = None
        self._withdrawn = threading.Event()
        self._outcome: Outcome | None = None  # of the thread, for the executor's
        self._done: Future | None = None
        self.create_timer(_POLL_S, self._poll, clock=self.steady_clock)

    def configure(self) -> None:
        settings = load_settings()
        self._hand = RosHand(self, self.param("patience_s"), self._withdrawn)
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
        self._last, self._phase, self._trouble = None, "", ""
        # Planning the fixed places takes seconds, in which heartbeats go on.
        self._prepared = threading.Thread(target=self._prepare, daemon=True)
        self._prepared.start()
        self._server = ActionServer(
            self,
            ResetScene,
            self.param("action"),
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    def deactivate(self) -> None:
        self._withdrawn.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    def cleanup(self) -> None:
        self._prepared.join()
        self._server.destroy()
        for device in (self._hand, self._client, self._tray, self._palm, self._safety):
            device.close()
        self._reset = None

    def close(self) -> None:
        self._withdrawn.set()

    def health(self) -> Health:
        values = {"phase": self._phase}
        if self._last is not None:
            values |= {"seconds": f"{self._last.seconds:.1f}", "last": self._last.message}
        if self._trouble:
            return Health(ERROR, self._trouble, values)
        if self._phase:
            return Health(OK, f"resetting: {self._phase}", values)
        if self._last is not None and not self._last.success:
            return Health(ERROR, f"{self._last.fault}: {self._last.message}", values)
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

    def _on_goal(self, _request: Any) -> GoalResponse:
        busy = self._done is not None
        return GoalResponse.ACCEPT if self.is_active and not busy else GoalResponse.REJECT

    def _on_cancel(self, _handle: ServerGoalHandle) -> CancelResponse:
        self._withdrawn.set()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> ResetScene.Result:
        self._withdrawn.clear()
        self._outcome, self._done = None, Future()
        self._thread = threading.Thread(target=self._run, args=(handle,), daemon=True)
        self._thread.start()
        outcome: Outcome = await self._done
        self._last, self._phase = outcome, ""
        log = self.get_logger()
        if outcome.success:
            handle.succeed()
            log.info(f"both balls are back after {outcome.seconds:.1f} s")
        elif outcome.fault is Fault.CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
            log.error(f"reset failed: {outcome.fault}: {outcome.message}")
        message = outcome.message if outcome.success else f"{outcome.fault}: {outcome.message}"
        return ResetScene.Result(success=outcome.success, message=message, seconds=outcome.seconds)

    def _poll(self) -> None:
        if self._outcome is not None and self._done is not None:
            done, self._done = self._done, None
            done.set_result(self._outcome)

    def _run(self, handle: ServerGoalHandle) -> None:
        """Run a reset; in a thread of its own."""
        try:
            outcome = self._bring_back(handle)
        except Exception as error:  # whatever it is, the client gets an answer
            message = f"{type(error).__name__}: {error}"
            outcome = Outcome(Fault.ARM_FAILED, message, 0.0, (), {})
        self._hand.end()
        if outcome.success:
            time.sleep(_LEASE_S)
        self._outcome = outcome

    def _missing(self) -> str:
        """What a reset needs and nobody serves, such as right after the start."""
        return self._client.missing or ("" if self._hand.is_there else "joint_states of the hand")

    def _bring_back(self, handle: ServerGoalHandle) -> Outcome:
        self._prepared.join()
        if self._reset is None:
            return Outcome(Fault.NO_PATH, self._trouble, 0.0, (), {})
        missing = self._missing()
        end_s = time.monotonic() + _DISCOVERY_S
        while missing and time.monotonic() < end_s and not self._withdrawn.is_set():
            time.sleep(0.05)
            missing = self._missing()
        if missing:
            return Outcome(Fault.STOPPED, f"not there: {missing}", 0.0, (), {})

        def tell(phase: str, percent: float) -> None:
            self._phase = phase
            handle.publish_feedback(ResetScene.Feedback(phase=phase, percent=percent))

        self._hand.begin()
        return self._reset.run(tell, self._withdrawn.is_set)


def main() -> None:
    run(ResetNode)
