# SPDX-License-Identifier: Apache-2.0
"""Picker node: has the arm clear a bin, as an action."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import torch
from geometry_msgs.msg import Point, Pose, Quaternion
from rclpy.action.server import ServerGoalHandle

from twinloop.grasping import weights
from twinloop.grasping.finding import BinFinder, shipped_segment
from twinloop.grasping.pick_devices import PickDevices, WorldGrasp
from twinloop.grasping.pick_moves import PickMoves
from twinloop.grasping.pick_settings import load_settings
from twinloop.grasping.picking import PickLoop
from twinloop.grasping.planner import GraspPlanner
from twinloop.motion import PLANNERS, make_planner
from twinloop.nodes.arm_client import ArmClient
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.nodes.pick_devices import ArmClock, ArmScales, DepthEyes
from twinloop.nodes.reset_devices import RosArm, RosGripper, RosSafety
from twinloop.nodes.task_action import TaskAction
from twinloop.paths import share
from twinloop.resets.faults import Fault
from twinloop.resets.machine import Outcome
from twinloop.robots.rotations import quaternion_from_matrix
from twinloop_interfaces.action import ClearBin

_DISCOVERY_S = 10.0  # nodes that were started together find each other within it


class PickerNode(Node):
    """Wires a `PickLoop` to its cell's topics and actions; it runs in a thread of its own."""

    parameters = (
        ParameterSpec("planner", "ompl", "What plans the arm's motions", choices=PLANNERS),
        ParameterSpec("weights", "", "Folder of the quality network; empty: the shipped one"),
        ParameterSpec("settings", "", "File of the loop's numbers; empty: the shipped one"),
        ParameterSpec("world", "world", "Frame that the arm and the bins stand in"),
        ParameterSpec(
            "patience_s", 10.0, "Silence of the arm that ends the loop, steady [s]", 0.1, 3600.0
        ),
    )

    def __init__(self) -> None:
        super().__init__("picker")
        self._loop: PickLoop | None = None
        self._action: TaskAction | None = None
        self._trouble = ""  # why there is no PickLoop
        self._phase = ""

    def configure(self) -> None:
        self._loop, self._phase, self._trouble = None, "", ""
        self._client = ArmClient(self)
        self._eyes = DepthEyes(self, self.param("world"))
        self._safety = RosSafety(self)
        self._action = TaskAction(self, ClearBin, "clear_bin", self._clear, self._result)
        self._devices = PickDevices(
            ArmClock(self._client, self.param("patience_s"), self._action.withdrawn),
            RosArm(self._client),
            RosGripper(self._client),
            self._eyes,
            ArmScales(self._client),
            self._safety,
        )
        # Loading and planning the fixed places takes seconds, in which heartbeats go on.
        self._prepared = threading.Thread(target=self._prepare, daemon=True)
        self._prepared.start()

    def deactivate(self) -> None:
        if self._action is not None:
            self._action.end()

    def cleanup(self) -> None:
        self._prepared.join()
        if self._action is not None:
            self._action.close()
        for device in (self._client, self._eyes, self._safety):
            device.close()
        self._loop = None

    def close(self) -> None:
        if self._action is not None:
            self._action.withdrawn.set()

    def health(self) -> Health:
        last = None if self._action is None else self._action.last
        values = {"phase": self._phase}
        if self._loop is not None and last is not None:
            values |= {"picked": str(self._loop.picked), "last": last.message}
        if self._trouble:
            return Health(ERROR, self._trouble, values)
        if self._phase:
            return Health(OK, f"picking: {self._phase}", values)
        if last is not None and not last.success:
            return Health(ERROR, f"{last.fault}: {last.message}", values)
        if self.is_active and self._eyes.complaint:
            return Health(WARN, self._eyes.complaint, values)
        return Health(OK, "idle", values)

    def _prepare(self) -> None:
        try:
            torch.set_num_threads(1)
            folder, file = self.param("weights"), self.param("settings")
            settings = load_settings(Path(file) if file else None)
            network, manifest = weights.load(
                Path(folder) if folder else share("models", "grasping")
            )
            grasps = GraspPlanner(network, manifest.calibration)
            finder = BinFinder(grasps, settings, shipped_segment())
            planner = make_planner(self.param("planner"), cell="bins")
            self._loop = PickLoop(self._devices, PickMoves(planner, settings), finder)
        except Exception as error:  # of another thread: shown in the heartbeat
            self._trouble = f"cannot pick: {type(error).__name__}: {error}"

    def _clear(self, handle: ServerGoalHandle) -> Outcome:
        assert self._action is not None
        withdrawn = self._action.withdrawn
        self._prepared.join()
        loop = self._loop
        if loop is None:
            return Outcome(Fault.NO_PATH, self._trouble, 0.0, (), {})
        end_s = time.monotonic() + _DISCOVERY_S
        while self._client.missing and time.monotonic() < end_s and not withdrawn.is_set():
            time.sleep(0.05)
        if self._client.missing:
            return Outcome(Fault.STOPPED, f"not there: {self._client.missing}", 0.0, (), {})

        def tell(phase: str, _percent: float) -> None:
            self._phase = phase
            feedback = ClearBin.Feedback(
                phase=phase, picked=loop.picked, attempts=len(loop.attempts)
            )
            if loop.trying is not None:
                feedback.grasp, feedback.quality = _pose(loop.trying), loop.trying.quality
            handle.publish_feedback(feedback)

        try:
            return loop.run(tell, withdrawn.is_set, handle.request.most)
        finally:
            self._phase = ""

    def _result(self, outcome: Outcome) -> Any:
        loop = self._loop
        return ClearBin.Result(
            success=outcome.success,
            reason="" if outcome.fault is None else str(outcome.fault),
            message=outcome.message,
            picked=0 if loop is None else loop.picked,
            attempts=0 if loop is None else len(loop.attempts),
            seconds=outcome.seconds,
        )


def _pose(grasp: WorldGrasp) -> Pose:
    w, i, j, k = quaternion_from_matrix(grasp.tips.rotation).tolist()
    x, y, z = grasp.tips.position.tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=w, x=i, y=j, z=k))


def main() -> None:
    run(PickerNode)
