# SPDX-License-Identifier: Apache-2.0
"""A bin's cell that is made up: the arm is where it is told, things are what tests say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grasp_views
import numpy as np
from twinloop.grasping.pick_devices import PickDevices, View, WorldGrasp
from twinloop.grasping.pick_moves import PickMoves
from twinloop.grasping.picking import PickLoop
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.motion import make_planner
from twinloop.motion.load import GRAVITY_M_S2
from twinloop.motion.planner import ArmPlanner, Pose
from twinloop.motion.trajectory import Trajectory
from twinloop.resets.devices import Course
from twinloop.resets.machine import Outcome

DOWN = np.diag([1.0, -1.0, -1.0])
TICK_S = 0.02
BRAKE_S = 0.1  # that the arm goes on for when a motion is given up
PLACES = ([0.02, 0.03, 0.02], [-0.08, -0.05, 0.03], [0.1, 0.06, 0.02])


def planner() -> ArmPlanner:
    return make_planner("ompl", cell="bins")


@dataclass
class Thing:
    """Something in the bin.

    Attributes:
        width_m: between the fingers.
        slips_in: the state in which it is lost, while `slips` is above 0.
    """

    place: list[float]
    width_m: float = 0.03
    mass_kg: float = 0.1
    slips_in: str = ""
    slips: int = 99
    is_there: bool = True


@dataclass
class FakeCell:
    """Clock, arm, gripper, eyes, scales and safety in one.

    Attributes:
        misses: closings that meet nothing.
        blocks: ways down that are stopped by a push from below.
        is_dark: the camera shows nothing.
        arm_fails, gripper_fails: so many motions.
        reason: of a stop.
    """

    things: list[Thing]
    misses: int = 0
    blocks: int = 0
    is_dark: bool = False
    arm_fails: int = 0
    gripper_fails: int = 0
    reason: str = ""
    complaint: str = ""
    detail: str = "made up"
    time_s: float = 0.0
    width: float = 0.08
    held: Thing | None = None
    put_over: list[Thing] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    tried: list[np.ndarray] = field(default_factory=list)
    at: Callable[[str], None] = lambda _phase: None
    _motion: Trajectory | None = None
    _began_s: float = 0.0
    _course: Course = Course.IDLE
    _stands_s: float = np.inf
    _pushes_since_s: float = -1.0

    def __post_init__(self) -> None:
        self.planner = planner()
        self.q = self.planner.semantics.states["rest"].copy()
        self.gripper = FakeGripper(self)
        self.loop = PickLoop(
            PickDevices(self, self, self.gripper, self, self, self),
            PickMoves(self.planner),
            self.find,
        )

    def run(self, **settings: Any) -> Outcome:
        def tell(phase: str, _percent: float) -> None:
            self.phases.append(phase)
            held = self.held
            if held is not None and held.slips_in == phase and held.slips > 0:
                held.slips -= 1
                self.held, self.width = None, 0.0
            self.at(phase)

        return self.loop.run(tell, **settings)

    @property
    def left(self) -> list[Thing]:
        return [one for one in self.things if one.is_there and one is not self.held]

    # Clock.

    def now_s(self) -> float:
        return self.time_s

    def wait(self, seconds: float) -> None:
        self.time_s += max(seconds, TICK_S)
        motion = self._motion
        if self._course is Course.ACTIVE and motion is not None:
            since_s = min(self.time_s, self._stands_s) - self._began_s
            self.q = motion.at(since_s)
            if self.time_s >= self._stands_s:
                self._course = Course.IDLE
            elif since_s >= motion.duration:
                self._course = Course.FAILED if self.arm_fails else Course.DONE
                self.arm_fails = max(self.arm_fails - 1, 0)

    # Arm.

    def position(self) -> np.ndarray:
        return self.q.copy()

    def follow(self, trajectory: Trajectory) -> None:
        assert np.abs(trajectory.position[0] - self.q).max() < 0.02, "a jump"
        assert self._course is not Course.ACTIVE, "it moves"
        self._motion, self._began_s, self._course = trajectory, self.time_s, Course.ACTIVE
        self._stands_s = np.inf

    def course(self) -> Course:
        return self._course

    def cancel(self) -> None:
        if self._course is Course.ACTIVE:
            self._stands_s = min(self._stands_s, self.time_s + BRAKE_S)

    # Eyes, scales, safety.

    def look(self, after_s: float) -> View | None:
        if self.is_dark or self.time_s <= after_s:
            return None
        depth = np.ones((4, 4), np.float32)
        return View(self.time_s, depth, grasp_views.camera(size=(4, 4)), np.eye(3), np.zeros(3))

    def force(self) -> np.ndarray:
        is_low = self.phases[-1] == "lower" and self.tool_z < 0.15
        if is_low and self._pushes_since_s == self._began_s:
            return np.array([0.0, 0.0, 60.0])
        if is_low and self.blocks > 0:
            self.blocks -= 1
            self._pushes_since_s = self._began_s  # until the next way down
            return np.array([0.0, 0.0, 60.0])
        mass = 0.0 if self.held is None else self.held.mass_kg
        return np.array([0.0, 0.0, -mass * GRAVITY_M_S2])

    def stopped(self) -> str:
        return self.reason

    @property
    def tool_z(self) -> float:
        return float(self.planner.world.pose(self.q).position[2])

    def find(self, _view: View, avoid: list[np.ndarray]) -> list[WorldGrasp]:
        if not self.left:
            raise GraspRefused(Reason.EMPTY_SCENE, "nothing rises")
        found = [
            WorldGrasp(Pose(np.array(one.place), DOWN), one.width_m + 0.02, 0.9)
            for one in self.left
            if all(np.linalg.norm(np.array(one.place) - place) > 0.015 for place in avoid)
        ]
        if not found:
            raise GraspRefused(Reason.NO_GRASP, "all are to be avoided")
        self.tried.append(found[0].tips.position)
        return found


class FakeGripper:
    """Closes on what is below it, and lets it fall where it is."""

    detail = "the fingers are bent"

    def __init__(self, cell: FakeCell) -> None:
        self._cell = cell
        self._course = Course.IDLE

    def width_m(self) -> float:
        return self._cell.width

    def move(self, width_m: float, effort_n: float) -> None:
        cell = self._cell
        if cell.gripper_fails:
            cell.gripper_fails -= 1
            self._course = Course.FAILED
            return
        self._course = Course.DONE
        tool = cell.planner.world.pose(cell.q).position
        if width_m > 0.01:
            if cell.held is not None:
                if tool[1] > 0.25:
                    cell.put_over.append(cell.held)
                    cell.held.is_there = False
                cell.held = None
            cell.width = width_m
            return
        if cell.held is None and cell.misses == 0:
            near = [one for one in cell.left if np.abs(np.array(one.place) - tool).max() < 0.02]
            cell.held = near[0] if near else None
        cell.misses = max(cell.misses - 1, 0)
        cell.width = 0.0 if cell.held is None else cell.held.width_m

    def course(self) -> Course:
        return self._course
