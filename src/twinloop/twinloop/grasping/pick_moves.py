# SPDX-License-Identifier: Apache-2.0
"""The arm's motions between two bins: over one of them, straight down, up, and over the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.bins import Bin
from twinloop.grasping.pick_devices import WorldGrasp
from twinloop.grasping.pick_settings import PickSettings, load_settings
from twinloop.motion.errors import MotionError, Unreachable
from twinloop.motion.planner import ArmPlanner, Pose, Scene
from twinloop.motion.semantics import TOOL
from twinloop.motion.trajectory import Trajectory
from twinloop.robots.description import arm_cell_urdf
from twinloop.robots.kinematics import Chain
from twinloop.robots.panda import FINGER_TRAVEL_M, PANDA

Array = NDArray[np.float64]

REST = "rest"
# The gripper points down. Half a turn about its axis makes no difference to it, but to the wrist.
_DOWN = np.diag([1.0, -1.0, -1.0])
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])
_FIXED_S = 30.0  # for the search of a place that is planned once
_STEP_M = 0.005  # of the width that scenes are arranged for
# What the fingers squeeze pushes the arm from where it was told to be; rising begins from there.
_LEAD_S = 0.25
_UP_M = (0.05, 0.02)  # that the arm rises at least, where it cannot rise all the way


@dataclass(frozen=True)
class Reach:
    """The ways to a grasp.

    Attributes:
        over: to where the gripper goes straight down from.
        down: from there to the grasp.
    """

    over: Trajectory
    down: Trajectory


class PickMoves:
    """Plans what the pick loop needs of the arm.

    Args:
        planner: of the arm, in the cell `bins`.
        settings: of the loop; default: config/grasping/picking.yaml.

    Raises:
        MotionError: the middles of the bins cannot be reached.
    """

    def __init__(self, planner: ArmPlanner, settings: PickSettings | None = None) -> None:
        self.settings = settings = settings or load_settings()
        self._planner = planner
        self._tool = Chain(arm_cell_urdf(planner.cell, planner.side), PANDA.joint_names, (TOOL,))
        self._scene: Scene | None = None
        self.rest = planner.semantics.states[REST]
        self._over_source = self._over(settings.source, self.rest)
        self.over_target = self._over(settings.target, self.rest)

    def tool(self, q: Array) -> Pose:
        """Return the tool's pose for joints [7], rad."""
        position, rotation = self._tool.poses(q)
        return Pose(position[0], rotation[0])

    def reach(self, grasp: WorldGrasp, start: Array) -> Reach:
        """Return the ways to a grasp from joints [7], rad.

        Raises:
            MotionError: there are none; says why.
        """
        goal = self._tool_at(grasp.tips)
        steep = -float(goal.rotation[2, 2])
        if steep < 0.5:
            raise Unreachable(f"the grasp's approach is {np.round(goal.rotation[:, 2], 2)}")
        above = goal.backed((self.settings.grasp.above_m - float(goal.position[2])) / steep)
        self._arrange(grasp.width_m)
        # From the bin's middle the arm keeps to one posture of its elbow, wherever it goes.
        self._begin(self._over_source)
        joints = self._planner.plan_line(above, 0.5).position[-1]
        self._begin(joints)
        down = self._line(goal, self.settings.grasp.down_speed)
        move = self.settings.move
        self._begin(start)
        self._planner.set_goal_state(joint_positions=joints)
        over = self._planner.plan(move.plan_timeout_s, move.velocity, move.acceleration)
        return Reach(over, down)

    def rise(self, start: Array, width_m: float) -> Trajectory | None:
        """Return a way straight up out of a bin, None where the tool is high enough.

        Raises:
            MotionError: there is none.
        """
        pose = self.tool(start)
        up_m = self.settings.grasp.above_m - float(pose.position[2])
        if up_m < 0.01:
            return None
        self._arrange(width_m)
        self._begin(start)
        failure: MotionError | None = None
        for rise_m in (up_m, *_UP_M):
            try:
                way = self._line(pose.moved([0.0, 0.0, rise_m]), self.settings.grasp.up_speed)
                return way.later(_LEAD_S)
            except MotionError as error:
                failure = error
        assert failure is not None
        raise failure

    def carry(self, start: Array, width_m: float, holds: bool) -> Trajectory:
        """Return a way over the other bin; raises MotionError where there is none."""
        return self._to(self.over_target, start, width_m, holds)

    def to_rest(self, start: Array, width_m: float) -> Trajectory:
        """Return a way to rest; raises MotionError where there is none."""
        return self._to(self.rest, start, width_m, holds=False)

    def is_over_target(self, q: Array) -> bool:
        """Return whether what the gripper lets go falls into the other bin."""
        return self.settings.target.holds(self.tool(q).position)

    def _to(self, goal: Array, start: Array, width_m: float, holds: bool) -> Trajectory:
        move = self.settings.move
        self._arrange(width_m, move.carried_radius_m if holds else 0.0)
        self._begin(start)
        self._planner.set_goal_state(joint_positions=goal)
        shares = (
            (move.carry_velocity, move.carry_acceleration)
            if holds
            else (move.velocity, move.acceleration)
        )
        return self._planner.plan(move.plan_timeout_s, *shares)

    def _over(self, box: Bin, start: Array) -> Array:
        """Return joints [7] with the tool over a bin's middle."""
        self._arrange(2 * FINGER_TRAVEL_M)
        self._begin(start)
        place = np.array([*box.middle, self.settings.grasp.above_m])
        self._planner.set_goal_state(pose=Pose(place, _DOWN))
        return self._planner.plan(_FIXED_S).position[-1]

    def _tool_at(self, tips: Pose) -> Pose:
        """Return where the tool is with the finger tips there, its wrist turned the lesser way."""
        settings = self.settings.grasp
        rotation = tips.rotation
        if float(rotation[:, 0] @ _DOWN[:, 0]) < 0.0:
            rotation = rotation @ _HALF_TURN
        place = tips.position.copy()
        place[2] = max(float(place[2]), settings.lowest_tip_m)
        return Pose(place, rotation).backed(settings.beyond_tool_m)

    def _line(self, goal: Pose, speed: float) -> Trajectory:
        return self._planner.plan_line(
            goal, speed, self.settings.move.margin_m, self.settings.grasp.line_acceleration
        )

    def _arrange(self, width_m: float, held_radius_m: float = 0.0) -> None:
        """Tell the planner how wide the gripper is; wider, where that spares arranging anew."""
        steps = np.ceil(round(width_m / _STEP_M, 3))
        finger_m = float(np.clip(steps * _STEP_M / 2, 0.0, FINGER_TRAVEL_M))
        scene = Scene(finger_m=finger_m, held_radius_m=held_radius_m)
        known = self._scene
        if known is None or (known.finger_m, known.held_radius_m) != (finger_m, held_radius_m):
            self._planner.set_scene(scene)
            self._scene = scene

    def _begin(self, start: Array) -> None:
        limits = self._planner.limits
        self._planner.set_start_state(np.clip(start, limits.lower, limits.upper))
