# SPDX-License-Identifier: Apache-2.0
"""The arm's motions between tray and palm, planned once where nothing has changed since."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.contract.baoding import PALM_FRAME
from twinloop.motion.errors import MotionError, NoPath
from twinloop.motion.planner import ArmPlanner, Pose, Scene
from twinloop.motion.semantics import TOOL
from twinloop.motion.trajectory import Trajectory
from twinloop.perception.tray_shape import tray_shape
from twinloop.resets.settings import ResetSettings
from twinloop.robots.description import cell_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import Chain
from twinloop.robots.panda import FINGER_TRAVEL_M, PANDA

Array = NDArray[np.float64]

REST = "rest"
_SAME_START_RAD = 0.01  # what was planned from so near by is used again
_KEPT = 32  # motions
_TRIES = 6
_WORTH_M_S = 0.5  # of the tool: a way shorter by this is worth a second
# The gripper points down; z is the way it points, y the way it opens. Half a turn about z makes no
# difference to it, but to the wrist.
_ACROSS_TRAY = np.diag([1.0, -1.0, -1.0])
_ACROSS_PALM = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])
_NEAR_M = 0.15  # of a place to be left upwards, sideways
_LEAST_MARGIN_M = 0.001


@dataclass(frozen=True)
class Surroundings:
    """What a motion is planned among.

    Attributes:
        hand: posture of the hand [24], rad.
        width_m: of the gripper.
        holds: whether a ball is lifted between the fingers.
    """

    hand: Array
    width_m: float
    holds: bool = False

    def scene(self, radius_m: float) -> Scene:
        """Return it as planners take it."""
        finger_m = float(np.clip(round(self.width_m / 2.0, 3), 0.0, FINGER_TRAVEL_M))
        return Scene(np.round(self.hand, 2), finger_m, radius_m if self.holds else 0.0)


class ArmMoves:
    """Plans what the reset needs of the arm.

    Args:
        planner: of the arm.
        settings: of the reset.

    Raises:
        MotionError: palm or tray cannot be reached as the settings say.
    """

    def __init__(self, planner: ArmPlanner, settings: ResetSettings) -> None:
        self._planner = planner
        self._settings = settings
        self._tool = Chain(cell_urdf(planner.side), PANDA.joint_names, (TOOL,))
        self._over_centre = np.array([0.0, 0.0, settings.grasp.over_centre_m])
        self._planned: list[tuple[str, Scene, Trajectory]] = []
        self.pick = tray_shape(planner.side).first(settings.radius_m)
        self.rest = planner.semantics.states[REST]
        self._palm = Chain(cell_urdf(planner.side), HAND24.joint_names, (PALM_FRAME,))
        open_hand = self._receive = settings.hand.receive_posture()
        over = Surroundings(open_hand, 2 * FINGER_TRAVEL_M)
        above = self._grasp(self.pick).moved([0.0, 0.0, settings.grasp.above_m])
        self.over_tray, self._tray_turn = self._chosen(above, self.rest, over)
        aside = Pose(np.array(settings.look.arm_aside_m), self._tray_turn)
        self.aside, _ = self._chosen(aside, self.over_tray, over)
        carried = Surroundings(open_hand, settings.held_width_m, holds=True)
        self.beside_palm: dict[str, Array] = {}
        self._palm_turns: dict[str, Array] = {}
        for side in ("left", "right"):
            self._palm_turns[side] = _ACROSS_PALM
            beside = self._beside(side, open_hand)
            self.beside_palm[side], turn = self._chosen(beside, self.over_tray, carried)
            self._palm_turns[side] = turn

    def grasp(self, ball: Array) -> Pose:
        """Return where the tool grasps a ball in the tray, centre [3], m, world."""
        return Pose(self._grasp(ball).position, self._tray_turn)

    def place(self, side: str, hand: Array) -> Pose:
        """Return where the tool lets go, `left` or `right` in the palm of a hand [24], rad."""
        then, then_turn = self._palm.poses(self._receive)
        now, now_turn = self._palm.poses(hand)
        centre = np.array(getattr(self._settings.place, side))
        centre = now[0] + now_turn[0] @ then_turn[0].T @ (centre - then[0])
        return Pose(centre + self._over_centre, self._palm_turns[side])

    def tool(self, q: Array) -> Pose:
        """Return the tool's pose for joints [7], rad."""
        position, rotation = self._tool.poses(q)
        return Pose(position[0], rotation[0])

    def to(self, goal: str, start: Array, around: Surroundings) -> Trajectory:
        """Return a motion to `rest`, `aside`, over the `tray`, or next to the palm's sides.

        The latter are `left` and `right`. A ball is not carried over the hand, unless it is there
        already.

        Raises:
            MotionError: there is none.
        """
        scene = around.scene(self._settings.radius_m)
        for name, then, trajectory in self._planned:
            same = name == goal and _is_same(scene, then)
            if same and np.abs(trajectory.position[0] - start).max() < _SAME_START_RAD:
                return trajectory
        fixed = {REST: self.rest, "aside": self.aside, "tray": self.over_tray}
        joints = fixed[goal] if goal in fixed else self._joints_beside(goal, around)
        move = self._settings.move
        self._set(start, scene)
        self._planner.set_goal_state(joint_positions=joints)
        shares = (
            (move.carry_velocity, move.carry_acceleration)
            if around.holds
            else (move.velocity, move.acceleration)
        )
        # A planner that draws at random finds detours too; what is planned once is driven often.
        plans = [self._planner.plan(move.plan_timeout_s, *shares) for _ in range(_TRIES)]
        if around.holds and not self._is_over_hand(start[None]):
            plans = [plan for plan in plans if not self._is_over_hand(plan.position)]
            if not plans:
                raise NoPath(f"all of {_TRIES} ways to {goal} lead over the hand")
        trajectory = min(plans, key=self._cost)
        self._planned = [*self._planned[-_KEPT + 1 :], (goal, scene, trajectory)]
        return trajectory

    def line(self, goal: Pose, start: Array, around: Surroundings, speed: float) -> Trajectory:
        """Return a straight motion of the tool.

        Raises:
            MotionError: there is none.
        """
        self._set(start, around.scene(self._settings.radius_m))
        move, grasp = self._settings.move, self._settings.grasp
        if not around.holds:
            return self._planner.plan_line(goal, speed, acceleration=grasp.line_acceleration)
        # The ball counts where the tool is, which grasps it below its centre.
        return self._planner.plan_line(goal, speed, _LEAST_MARGIN_M, move.line_acceleration)

    def rise(self, start: Array, around: Surroundings) -> Trajectory | None:
        """Return a motion straight up from tray or palm, None where the arm is clear of both.

        Whatever it is near to, it goes away from; so it may begin near to contact, and a ball that
        is held counts no more than it does when it is set down.

        Raises:
            MotionError: there is none.
        """
        pose = self.tool(start)
        settings = self._settings
        above_palm_m = settings.place.above_held_m if around.holds else settings.place.above_m
        for place, above_m in (
            (self.pick, settings.grasp.above_m),
            (self.place("left", around.hand).position, above_palm_m),
            (self.place("right", around.hand).position, above_palm_m),
        ):
            top = float(place[2]) + above_m
            beside = float(np.linalg.norm((pose.position - place)[:2]))
            if beside > _NEAR_M or pose.position[2] >= top - 0.002:
                continue
            self._set(start, Surroundings(around.hand, around.width_m).scene(settings.radius_m))
            share = settings.move.line_acceleration
            for up_m in (top - float(pose.position[2]), 0.05, 0.02):
                try:
                    return self._planner.plan_line(
                        pose.moved([0.0, 0.0, up_m]), 0.15, _LEAST_MARGIN_M, share
                    )
                except MotionError as error:
                    failure = error
            raise NoPath(f"the arm cannot rise from where it is: {failure}")
        return None

    def _beside(self, side: str, hand: Array) -> Pose:
        return self.place(side, hand).moved(getattr(self._settings.place, f"beside_{side}"))

    def _joints_beside(self, side: str, around: Surroundings) -> Array:
        """Return joints [7] next to the palm where it is: near those for the receiving posture."""
        self._set(self.beside_palm[side], around.scene(self._settings.radius_m))
        self._planner.set_goal_state(pose=self._beside(side, around.hand))
        return self._planner.plan(self._settings.move.plan_timeout_s).position[-1]

    def _grasp(self, ball: Array) -> Pose:
        return Pose(ball + self._over_centre, _ACROSS_TRAY)

    def _chosen(self, pose: Pose, start: Array, around: Surroundings) -> tuple[Array, Array]:
        """Return joints [7] for a pose of the gripper, or half a turn on, whichever is nearer."""
        scene = around.scene(self._settings.radius_m)
        found: list[tuple[float, Array, Array]] = []
        failure: MotionError | None = None
        for turn in (pose.rotation, pose.rotation @ _HALF_TURN):
            for seed in (start, *self._planner.semantics.states.values()):
                self._set(seed, scene)
                self._planner.set_goal_state(pose=Pose(pose.position, turn))
                try:
                    end = self._planner.plan(self._settings.move.plan_timeout_s).position[-1]
                    self._set(start, scene)
                    self._planner.set_goal_state(joint_positions=end)
                    cost = self._cost(self._planner.plan(self._settings.move.plan_timeout_s))
                except MotionError as error:
                    failure = error
                    continue
                found.append((cost, end, turn))
        if not found:
            assert failure is not None
            raise failure
        _, joints, turn = min(found, key=lambda one: one[0])
        return joints, turn

    def _is_over_hand(self, q: Array) -> bool:
        """Whether the tool is over the hand for any of joints [N, 7]."""
        place = self._tool.poses(q)[0][:, 0, :2]
        lower, upper = self._settings.place.hand_lower, self._settings.place.hand_upper
        return bool(((place > lower) & (place < upper)).all(axis=1).any())

    def _cost(self, motion: Trajectory) -> float:
        """Return how long it takes, s, and how far the tool goes: balls are lost on detours."""
        places = self._tool.poses(motion.position[::5])[0][:, 0]
        travelled = float(np.linalg.norm(np.diff(places, axis=0), axis=-1).sum())
        return motion.duration + travelled / _WORTH_M_S

    def _set(self, start: Array, scene: Scene) -> None:
        self._planner.set_scene(scene)
        limits = self._planner.limits
        self._planner.set_start_state(np.clip(start, limits.lower, limits.upper))


def _is_same(one: Scene, other: Scene) -> bool:
    return (
        one.finger_m == other.finger_m
        and one.held_radius_m == other.held_radius_m
        and bool(np.abs(one.hand - other.hand).max() < 0.011)
    )
