# SPDX-License-Identifier: Apache-2.0
"""Picker node: has the arm clear a bin, as an action."""

from __future__ import annotations

import threading
from pathlib import Path

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
from twinloop.nodes.base import run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.nodes.pick_devices import ArmClock, ArmScales, DepthEyes
from twinloop.nodes.reset_devices import RosArm, RosGripper, RosSafety
from twinloop.nodes.task_node import Device, TaskNode
from twinloop.paths import share
from twinloop.resets.machine import Outcome
from twinloop.robots.rotations import quaternion_from_matrix
from twinloop_interfaces.action import ClearBin


class PickerNode(TaskNode):
    """Wires a `PickLoop` to its cell's topics and its action."""

    verb, doing = "pick", "picking"
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

    def configure(self) -> None:
        self._loop: PickLoop | None = None
        self.serve(ClearBin, "clear_bin")

    def open_devices(self, withdrawn: threading.Event) -> tuple[Device, ...]:
        self._client = ArmClient(self)
        self._eyes = DepthEyes(self, self.param("world"))
        safety = RosSafety(self)
        self._pick_devices = PickDevices(
            ArmClock(self._client, self.param("patience_s"), withdrawn),
            RosArm(self._client),
            RosGripper(self._client),
            self._eyes,
            ArmScales(self._client),
            safety,
        )
        return self._client, self._eyes, safety

    def prepare(self) -> None:
        torch.set_num_threads(1)
        folder, file = self.param("weights"), self.param("settings")
        settings = load_settings(Path(file) if file else None)
        network, manifest = weights.load(Path(folder) if folder else share("models", "grasping"))
        grasps = GraspPlanner(network, manifest.calibration)
        finder = BinFinder(grasps, settings, shipped_segment())
        planner = make_planner(self.param("planner"), cell="bins")
        self._loop = PickLoop(self._pick_devices, PickMoves(planner, settings), finder)

    def missing(self) -> str:
        return self._client.missing

    def figures(self, last: Outcome) -> dict[str, str]:
        picked = {} if self._loop is None else {"picked": str(self._loop.picked)}
        return picked | super().figures(last)

    def complaint(self) -> str:
        return self._eyes.complaint if self.is_active else ""

    def carry_out(self, handle: ServerGoalHandle, withdrawn: threading.Event) -> Outcome:
        loop = self._loop
        assert loop is not None

        def tell(phase: str, _percent: float) -> None:
            self.phase = phase
            feedback = ClearBin.Feedback(
                phase=phase, picked=loop.picked, attempts=len(loop.attempts)
            )
            if loop.trying is not None:
                feedback.grasp, feedback.quality = _pose(loop.trying), loop.trying.quality
            handle.publish_feedback(feedback)

        return loop.run(tell, withdrawn.is_set, handle.request.most)

    def result(self, outcome: Outcome) -> ClearBin.Result:
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
