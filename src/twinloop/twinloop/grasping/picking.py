# SPDX-License-Identifier: Apache-2.0
"""Clears a bin: picks one thing after the other and puts it into the other bin.

::

    loop = PickLoop(devices, PickMoves(planner), finder)
    outcome = loop.run(tell=show)                 # from whatever the arm is at
    outcome.success, outcome.fault, outcome.message, loop.attempts

States, each with its timeout::

  check -> clear -> look -> plan -> approach -> lower -> close -> lift -> weigh -> carry -> release
             |        |       '-> rest, when the bin is empty                                 |
             |        '------------------------------------------------------------------- look
             '-> whatever was held already is put over first; failures lead here
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twinloop.grasping.pick_devices import Finder, PickDevices, View, WorldGrasp, merged
from twinloop.grasping.pick_moves import PickMoves, Reach
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.motion.errors import MotionError
from twinloop.motion.load import GRAVITY_M_S2
from twinloop.motion.trajectory import Trajectory
from twinloop.resets.arm_steps import follow, grip, planned
from twinloop.resets.devices import Course
from twinloop.resets.faults import Fault, StepFailed
from twinloop.resets.machine import DONE, Outcome, Run, State
from twinloop.robots.panda import FINGER_TRAVEL_M

Array = NDArray[np.float64]

_OPEN_M = 2 * FINGER_TRAVEL_M


@dataclass(frozen=True)
class Attempt:
    """One try to pick something, as the robot saw it.

    Attributes:
        grasp: that was tried.
        fault: how it failed; None where something was put into the other bin.
        message: of the failure.
        held_m: width with the thing between the fingers; 0 where they closed on nothing.
        weight_kg: of what was lifted; NaN where it came to no weighing.
        began_s, ended_s: robot time, from the look on.
    """

    grasp: WorldGrasp
    began_s: float
    fault: Fault | None = None
    message: str = ""
    held_m: float = 0.0
    weight_kg: float = math.nan
    ended_s: float = math.nan


class PickLoop:
    """Clears the bin of one cell.

    Args:
        devices: of the cell.
        moves: of its arm, with the numbers of the loop.
        finder: of grasps.
        watch_attempt: called with the view and each attempt when it is over.

    Attributes:
        attempts: of the last run, in their order.
        avoided: places [3] that failed, m, world.
    """

    def __init__(
        self,
        devices: PickDevices,
        moves: PickMoves,
        finder: Finder,
        watch_attempt: Callable[[View, Attempt], None] = lambda _view, _attempt: None,
    ) -> None:
        self.settings = moves.settings
        self._devices = devices
        self._moves = moves
        self._find = finder
        self._watch_attempt = watch_attempt
        self._cancelled: Callable[[], bool] = lambda: False
        self._states = self._table()
        self.attempts: list[Attempt] = []
        self.avoided: list[Array] = []
        self._attempt: Attempt | None = None
        self._view: View | None = None
        self._found_held = 0

    @property
    def picked(self) -> int:
        """Things that were put into the other bin."""
        return sum(one.fault is None for one in self.attempts) + self._found_held

    @property
    def trying(self) -> WorldGrasp | None:
        """The grasp that is being tried, if any."""
        return None if self._attempt is None else self._attempt.grasp

    def run(
        self,
        tell: Callable[[str, float], None] = lambda _name, _percent: None,
        cancelled: Callable[[], bool] = lambda: False,
        most: int = 0,
    ) -> Outcome:
        """Clear the bin, from whatever the arm is at.

        Args:
            tell: is told each state's name and percent of a pick when it begins.
            cancelled: asked at each look whether to give up.
            most: things to put over at most; 0 for all.

        Returns:
            How it ended. The arm is at rest then; a thing that is held stays held.
        """
        self._cancelled, self._most = cancelled, most
        self.attempts, self.avoided = [], []
        self._attempt, self._view, self._found_held = None, None, 0
        self._in_a_row = 0
        self._holds = False
        self._tare_n = 0.0
        run = self._run = Run(self._devices.clock, self.settings.poll_s, self._watch, tell)
        outcome = run.through(self._states, "check", self.settings.retries, "the bin is empty")
        if outcome.success and most and self.picked >= most:
            outcome = replace(outcome, message=f"{self.picked} things were put over")
        if outcome.fault is not None:
            self._end_attempt(outcome.fault, outcome.message)
            self._stand_down(outcome.fault)
        return outcome

    def _table(self) -> dict[str, State]:
        look_s = self.settings.look.unseen_s + 1.0
        move_s = 15.0

        def trying(
            step: Callable[[], str], timeout_s: float, fault: Fault, percent: float
        ) -> State:
            """A state of an attempt: its failure is the attempt's, and its place remembered."""
            return State(lambda: self._try(step), timeout_s, fault, percent, "clear")

        return {
            "check": State(self._check, 5.0, Fault.GRIPPER_FAILED, 0.0, "check"),
            "clear": State(self._clear, 2 * move_s, Fault.ARM_FAILED, 0.0, "clear"),
            "look": State(self._look, look_s, Fault.BIN_UNSEEN, 5.0, "look"),
            "plan": State(self._plan, look_s, Fault.NO_GRASP, 10.0, "look"),
            "approach": trying(self._approach, move_s, Fault.ARM_FAILED, 20.0),
            "lower": trying(self._lower, move_s, Fault.ARM_FAILED, 35.0),
            "close": trying(self._close, 5.0, Fault.GRIPPER_FAILED, 45.0),
            "lift": trying(self._lift, move_s, Fault.ARM_FAILED, 55.0),
            "weigh": trying(self._weigh, 5.0, Fault.NOTHING_LIFTED, 65.0),
            "carry": trying(self._carry, move_s, Fault.ARM_FAILED, 70.0),
            "release": trying(self._release, 5.0, Fault.GRIPPER_FAILED, 90.0),
            "rest": State(self._rest, move_s, Fault.ARM_FAILED, 95.0, "clear"),
        }

    # States.

    def _check(self) -> str:
        """Find out whether the gripper holds something: what stops the fingers is held."""
        arm, gripper = self._devices.arm, self._devices.gripper
        self._run.until(lambda: arm.course() is not Course.ACTIVE)
        self._holds = False
        if gripper.width_m() < 0.95 * _OPEN_M:
            self._grip(0.0, self.settings.grasp.effort_n)
            self._holds = self._feels_something()
        return "clear"

    def _clear(self) -> str:
        """Rise out of a bin, and go out of the camera's sight; what is held is put over."""
        arm, gripper = self._devices.arm, self._devices.gripper
        # A motion that was given up ends where the arm has come to rest.
        self._run.until(lambda: arm.course() is not Course.ACTIVE)
        rise = planned(lambda: self._moves.rise(arm.position(), gripper.width_m()))
        if rise is not None:
            self._follow(rise)
        self._follow(
            planned(lambda: self._moves.carry(arm.position(), gripper.width_m(), self._holds))
        )
        if gripper.width_m() < 0.95 * _OPEN_M:
            self._grip(_OPEN_M, 0.0)
            self._found_held += self._holds
            self._holds = False
        return "look"

    def _look(self) -> str:
        """Take images later than the arm's last motion."""
        if self._most and self.picked >= self._most:
            return "rest"
        if self._in_a_row >= self.settings.tries:
            raise StepFailed(
                Fault.NO_GRASP, f"{self._in_a_row} grasps in a row failed, {self._last_failure()}"
            )
        look = self.settings.look
        clock = self._devices.clock
        self._began_s = clock.now_s()
        after_s = self._began_s + look.blank_s
        found: list[View] = []

        def are_there() -> bool:
            newest_s = found[-1].stamp_s if found else after_s
            view = self._devices.eyes.look(newest_s)
            if view is not None:
                if found and view.depth.shape != found[-1].depth.shape:
                    found.clear()  # the camera was set to another size meanwhile
                found.append(view)
            elif clock.now_s() > newest_s + look.unseen_s:
                why = self._devices.eyes.complaint or "no image"
                raise StepFailed(Fault.BIN_UNSEEN, f"{why}, for {look.unseen_s:g} s")
            return len(found) >= look.images

        self._run.until(are_there)
        self._view = merged(found)
        return "plan"

    def _plan(self) -> str:
        """Choose a grasp that the arm can reach, or see that nothing is left."""
        try:
            grasps = self._grasps()
        except GraspRefused as error:
            if error.reason is Reason.EMPTY_SCENE:
                return "rest"
            fault = Fault.NO_GRASP if error.reason is Reason.NO_GRASP else Fault.BIN_UNSEEN
            raise StepFailed(fault, f"{error.reason}: {error}") from error
        start = self._devices.arm.position()
        failure: MotionError | None = None
        for grasp in grasps[: self.settings.grasp.candidates]:
            try:
                self._reach: Reach = self._moves.reach(grasp, start)
            except MotionError as error:
                failure = error
                continue
            self._attempt = Attempt(grasp, self._began_s)
            return "approach"
        assert failure is not None
        self.avoided += [one.tips.position for one in grasps[: self.settings.grasp.candidates]]
        raise StepFailed(Fault.NO_PATH, f"{type(failure).__name__}: {failure}")

    def _approach(self) -> str:
        """Go over the thing, fingers as wide as planned, and weigh the empty gripper there."""
        assert self._attempt is not None
        self._devices.gripper.move(self._attempt.grasp.width_m, 0.0)
        self._follow(self._reach.over)
        self._grip(self._attempt.grasp.width_m, 0.0)
        self._tare_n = self._weighed()
        return "lower"

    def _lower(self) -> str:
        """Go straight down; a touch from below ends it, early ones are failures."""
        grasp = self.settings.grasp
        goal_m = float(self._moves.tool(self._reach.down.position[-1]).position[2])
        arm = self._devices.arm
        touched: list[float] = []

        def mind() -> None:
            push_n = float(self._devices.scales.force()[2]) - self._tare_n
            if push_n > grasp.touch_n and not touched:
                touched.append(push_n)
                arm.cancel()

        arm.follow(self._reach.down)
        try:
            self._run.until(lambda: arm.course() is not Course.ACTIVE, mind)
        except StepFailed:
            arm.cancel()
            raise
        left_m = float(self._moves.tool(arm.position()).position[2]) - goal_m
        if left_m > grasp.touch_m:
            push = f"{touched[0]:.0f} N" if touched else arm.detail
            raise StepFailed(Fault.GRASP_BLOCKED, f"{left_m * 1e3:.0f} mm too high: {push}")
        if not touched and arm.course() is not Course.DONE:
            raise StepFailed(Fault.ARM_FAILED, arm.detail)
        return "close"

    def _close(self) -> str:
        """Close the fingers until something or each other stops them."""
        gripper, clock = self._devices.gripper, self._devices.clock
        latest_s = clock.now_s() + self.settings.grasp.close_s
        gripper.move(0.0, self.settings.grasp.effort_n)
        self._run.until(lambda: gripper.course() is not Course.ACTIVE or clock.now_s() > latest_s)
        if gripper.course() is Course.FAILED:
            raise StepFailed(Fault.GRIPPER_FAILED, gripper.detail)
        if not self._feels_something():
            raise StepFailed(Fault.GRASP_MISSED, f"the gripper closed to {self._width_mm()}")
        self._holds = True
        return "lift"

    def _lift(self) -> str:
        """Go straight up with the thing."""
        arm, gripper = self._devices.arm, self._devices.gripper
        rise = planned(lambda: self._moves.rise(arm.position(), gripper.width_m()))
        if rise is not None:
            self._follow(rise)
        return "weigh"

    def _weigh(self) -> str:
        """Compare with the empty gripper's weight."""
        assert self._attempt is not None
        weight_kg = (self._tare_n - self._weighed()) / GRAVITY_M_S2
        width_m = self._devices.gripper.width_m()
        self._attempt = replace(self._attempt, weight_kg=weight_kg, held_m=width_m)
        if weight_kg < self.settings.check.least_weight_kg:
            self._holds = False
            raise StepFailed(
                Fault.NOTHING_LIFTED,
                f"{weight_kg * 1e3:.0f} g at {width_m * 1e3:.1f} mm between the fingers",
            )
        return "carry"

    def _carry(self) -> str:
        """Go over the other bin."""
        arm, gripper = self._devices.arm, self._devices.gripper
        self._follow(
            planned(lambda: self._moves.carry(arm.position(), gripper.width_m(), holds=True))
        )
        return "release"

    def _release(self) -> str:
        """Let the thing fall into the other bin."""
        self._holds = False
        self._grip(_OPEN_M, 0.0)
        self._in_a_row = 0
        self._run.forgive()
        self._end_attempt(None)
        return "look"

    def _rest(self) -> str:
        arm = self._devices.arm
        self._follow(
            planned(lambda: self._moves.to_rest(arm.position(), self._devices.gripper.width_m()))
        )
        return DONE

    # What states are made of.

    def _try(self, step: Callable[[], str]) -> str:
        try:
            return step()
        except StepFailed as failure:
            if failure.fault not in (Fault.CANCELLED, Fault.STOPPED):
                assert self._attempt is not None
                self.avoided.append(self._attempt.grasp.tips.position)
                self._in_a_row += 1
            self._end_attempt(failure.fault, str(failure))
            raise

    def _end_attempt(self, fault: Fault | None, message: str = "") -> None:
        if self._attempt is None:
            return
        assert self._view is not None
        now_s = self._devices.clock.now_s()
        attempt = replace(self._attempt, fault=fault, message=message, ended_s=now_s)
        self._attempt = None
        self.attempts.append(attempt)
        self._watch_attempt(self._view, attempt)

    def _last_failure(self) -> str:
        return next((f"last: {one.message}" for one in reversed(self.attempts) if one.fault), "")

    def _grasps(self) -> list[WorldGrasp]:
        """Return planned grasps; places that failed are tried again when nothing else is left."""
        assert self._view is not None
        try:
            return self._find(self._view, self.avoided)
        except GraspRefused as error:
            if error.reason is not Reason.NO_GRASP or not self.avoided:
                raise
        self.avoided = []
        return self._find(self._view, self.avoided)

    def _watch(self) -> None:
        if self._cancelled():
            raise StepFailed(Fault.CANCELLED, "clearing the bin was withdrawn")
        reason = self._devices.safety.stopped()
        if reason:
            raise StepFailed(Fault.STOPPED, reason)

    def _follow(self, motion: Trajectory) -> None:
        """Carry a motion out; a thing that is lost on the way ends it."""
        overtime_s = self.settings.move.overtime_s
        follow(self._run, self._devices.arm, motion, overtime_s, self._mind)

    def _mind(self) -> None:
        if self._holds and not self._feels_something():
            self._holds = False
            raise StepFailed(Fault.OBJECT_SLIPPED, f"the gripper closed to {self._width_mm()}")

    def _grip(self, width_m: float, effort_n: float) -> None:
        grip(self._run, self._devices.gripper, width_m, effort_n, lambda: None)

    def _feels_something(self) -> bool:
        return self._devices.gripper.width_m() > self.settings.check.least_width_m

    def _width_mm(self) -> str:
        return f"{self._devices.gripper.width_m() * 1e3:.1f} mm"

    def _weighed(self) -> float:
        """Return the vertical force on the tool, N, upwards, over some looks at rest."""
        found: list[float] = []
        check, clock = self.settings.check, self._devices.clock
        begin_s = clock.now_s() + check.settle_s

        def is_over() -> bool:
            if clock.now_s() >= begin_s:
                found.append(float(self._devices.scales.force()[2]))
            return clock.now_s() >= begin_s + check.weigh_s

        self._run.until(is_over, self._mind)
        return float(np.mean(found))

    def _stand_down(self, fault: Fault) -> None:
        """Leave the arm at rest: out of the way, where nothing is held and nobody stopped it."""
        self._devices.arm.cancel()
        if fault in (Fault.CANCELLED, Fault.STOPPED) or self._holds:
            return
        self._run = Run(self._devices.clock, self.settings.poll_s, self._watch)
        state = State(self._withdraw, 20.0, Fault.ARM_STUCK, 100.0, DONE)
        self._run.through({"withdraw": state}, "withdraw", {})

    def _withdraw(self) -> str:
        arm = self._devices.arm
        self._run.until(lambda: arm.course() is not Course.ACTIVE)
        rise = planned(lambda: self._moves.rise(arm.position(), self._devices.gripper.width_m()))
        if rise is not None:
            self._follow(rise)
        return self._rest()
