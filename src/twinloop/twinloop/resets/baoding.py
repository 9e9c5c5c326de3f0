# SPDX-License-Identifier: Apache-2.0
"""Brings the Baoding balls back from the tray into the palm.

::

    reset = BallReset(devices, planner)            # plans its fixed places
    outcome = reset.run(tell=show)                 # from whatever state the scene is in
    outcome.success, outcome.fault, outcome.message

States, each with its timeout::

    check -> clear -> open -> look -> approach -> grasp -> lift -> carry -> lower -> release -> look
                               |                              ^
                               |-> carry, with a ball in the gripper already
                               |-> spill, once, when a ball is neither in the tray nor in the palm
                               '-> cup -> confirm -> done
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from twinloop.motion.planner import ArmPlanner, Pose
from twinloop.motion.trajectory import Trajectory
from twinloop.resets.arm_moves import ArmMoves, Surroundings
from twinloop.resets.arm_steps import follow, grip, planned
from twinloop.resets.devices import Course, Devices
from twinloop.resets.faults import Fault, StepFailed
from twinloop.resets.machine import DONE, Outcome, Run, State
from twinloop.resets.settings import ResetSettings, load_settings
from twinloop.resets.sights import Sights
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_TRAVEL_M

Array = NDArray[np.float64]

_OPEN_M = 2 * FINGER_TRAVEL_M
_SEND_S = 0.1  # between two commands to the hand


class BallReset:
    """Runs resets of one cell.

    Args:
        devices: of the cell.
        planner: of its arm.
        settings: default: config/reset/baoding.yaml.

    Raises:
        MotionError: palm or tray cannot be reached as the settings say.
    """

    def __init__(
        self, devices: Devices, planner: ArmPlanner, settings: ResetSettings | None = None
    ) -> None:
        self.settings = settings or load_settings()
        self._devices = devices
        self._moves = ArmMoves(planner, self.settings)
        self._receive = self.settings.hand.receive_posture()
        self._cancelled: Callable[[], bool] = lambda: False
        self._states = self._table()

    def run(
        self,
        tell: Callable[[str, float], None] = lambda _name, _percent: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Bring the balls back, from whatever state the scene is in.

        Args:
            tell: is told each state's name and percent when it begins.
            cancelled: asked at each look whether to give up.

        Returns:
            How it ended. The robot is at rest then; a ball that is held stays held.
        """
        devices = self._devices
        self._cancelled = cancelled
        self._run = Run(devices.clock, self.settings.poll_s, self._watch, tell)
        self._sights = Sights(devices, self.settings, self._run)
        self._holds = self._lifted = self._has_spilled = False
        self._placed_side = ""
        self._posture = devices.hand.position()
        self._goal = self._posture
        self._sent_s = -np.inf
        outcome = self._run.through(self._states, "check", self.settings.retries)
        if outcome.fault is not None:
            self._stand_down(outcome.fault)
        return outcome

    def _table(self) -> dict[str, State]:
        hand_s = self.settings.hand.timeout_s
        look_s = self.settings.look.settle_s + self.settings.look.unseen_s + 1.0
        move_s = 15.0
        return {
            "check": State(self._check, 5.0, Fault.GRIPPER_FAILED, 0.0, "check"),
            "clear": State(self._clear, move_s, Fault.ARM_FAILED, 2.0, "check"),
            "open": State(self._open, move_s + hand_s, Fault.HAND_STUCK, 5.0, "check"),
            "look": State(self._look, look_s, Fault.TRAY_UNSEEN, 15.0, "look"),
            "spill": State(self._spill, 2 * hand_s + 5.0, Fault.HAND_STUCK, 20.0, "check"),
            "approach": State(self._approach, move_s, Fault.ARM_FAILED, 25.0, "check"),
            "grasp": State(self._grasp, move_s, Fault.GRIPPER_FAILED, 35.0, "check"),
            "lift": State(self._lift, move_s, Fault.ARM_FAILED, 45.0, "check"),
            "carry": State(self._carry, move_s, Fault.ARM_FAILED, 50.0, "check"),
            "lower": State(self._lower, move_s, Fault.ARM_FAILED, 65.0, "check"),
            "release": State(self._release, move_s, Fault.GRIPPER_FAILED, 75.0, "check"),
            "cup": State(self._cup, move_s + hand_s, Fault.HAND_STUCK, 85.0, "check"),
            "confirm": State(self._confirm, look_s, Fault.PALM_UNSEEN, 95.0, "open"),
        }

    # States.

    def _check(self) -> str:
        """Find out whether the gripper holds a ball: close it where it might."""
        arm, grasp = self._devices.arm, self.settings.grasp
        self._holds = self._lifted = False
        self._run.until(lambda: arm.course() is not Course.ACTIVE)
        if self._feels_ball():
            self._grip(grasp.close_to_m, grasp.effort_n)
            self._holds = self._feels_ball()
        return "clear"

    def _clear(self) -> str:
        """Rise from tray or palm before the hand moves, and keep a ball that is held."""
        motion = planned(lambda: self._moves.rise(self._devices.arm.position(), self._around()))
        if motion is not None:
            self._follow(motion)
        self._lifted = self._holds
        return "open"

    def _open(self) -> str:
        """Open the hand; the arm goes out of the cameras' way meanwhile."""
        self._hand_to(self._receive)
        if not self._holds and self._devices.gripper.width_m() < 0.95 * _OPEN_M:
            self._grip(_OPEN_M, 0.0)
        self._go("aside")
        self._run.until(self._hand_is_there, self._lead_hand)
        return "look"

    def _look(self) -> str:
        """Count the balls and decide."""
        seen = self._sights.count(self._holds)
        self._seen = seen
        if self._holds:
            return "carry"
        if seen.total < self.settings.balls:
            if not self._has_spilled:
                return "spill"
            raise StepFailed(
                Fault.BALL_OUT_OF_REACH,
                f"{seen.total} of {self.settings.balls} balls are seen in palm and tray",
            )
        if not seen.tray:
            return "cup"
        self._refuse_far(seen.tray[0])
        return "approach"

    def _spill(self) -> str:
        """Let what lies somewhere on the hand, unseen, roll off it."""
        self._has_spilled = True
        for posture in (self.settings.hand.spill_posture(), self._receive):
            self._hand_to(posture)
            self._run.until(self._hand_is_there, self._lead_hand)
            self._run.pause(0.5)
        return "look"

    def _approach(self) -> str:
        """Go over the tray, fingers open."""
        if self._devices.gripper.width_m() < 0.95 * _OPEN_M:
            self._grip(_OPEN_M, 0.0)
        self._go("tray")
        return "grasp"

    def _grasp(self) -> str:
        """Go straight down to the first ball and close the fingers on it."""
        grasp = self.settings.grasp
        self._line(self._moves.grasp(self._seen.tray[0]), grasp.line_speed)
        self._grip(grasp.close_to_m, grasp.effort_n)
        self._holds = self._feels_ball()
        if not self._holds:
            raise StepFailed(Fault.GRASP_MISSED, f"the gripper closed to {self._width_mm()}")
        return "lift"

    def _lift(self) -> str:
        """Go straight up with the ball."""
        tool = self._moves.tool(self._devices.arm.position())
        self._line(
            tool.moved([0.0, 0.0, self.settings.grasp.above_m]), self.settings.grasp.line_speed
        )
        self._lifted = True
        return "carry"

    def _carry(self) -> str:
        """Go next to the side of the palm that is free."""
        others = self._seen.palm
        is_left = len(others) > 0 and others[0][0] < 0.0
        self._placed_side = "right" if is_left else "left"
        self._go(self._placed_side)
        return "lower"

    def _lower(self) -> str:
        """Go straight into the palm, low over the fingers."""
        place = self._moves.place(self._placed_side, self._around().hand)
        self._line(place, self.settings.place.line_speed)
        return "release"

    def _release(self) -> str:
        """Let the ball go, and leave."""
        place = self.settings.place
        self._grip(place.open_m, 0.0)
        self._holds = self._lifted = False
        tool = self._moves.tool(self._devices.arm.position())
        self._line(tool.moved([0.0, 0.0, place.above_m]), self.settings.grasp.line_speed)
        self._grip(_OPEN_M, 0.0, wait=False)
        self._go("aside")
        return "look"

    def _cup(self) -> str:
        """Close the hand while the arm goes out of the cameras' way."""
        self._hand_to(HAND24.poses["cup"])
        self._go("rest")
        self._run.until(self._hand_is_there, self._lead_hand)
        return "confirm"

    def _confirm(self) -> str:
        """Have the tracker say that all balls are in the palm."""
        found = self._sights.palm(self.settings.look.unseen_s)
        if len(found) < self.settings.balls:
            raise StepFailed(
                Fault.NOT_IN_PALM, f"{len(found)} of {self.settings.balls} balls are in the palm"
            )
        return DONE

    # What states are made of.

    def _refuse_far(self, ball: Array) -> None:
        """Fingers fit through the walls' slots at the end board alone."""
        off = float(np.linalg.norm(ball - self._moves.pick))
        if off > self.settings.grasp.first_m:
            raise StepFailed(
                Fault.BALL_OUT_OF_REACH,
                f"a ball lies in the tray {off * 1e3:.0f} mm from where it can be grasped",
            )

    def _watch(self) -> None:
        if self._cancelled():
            raise StepFailed(Fault.CANCELLED, "the reset was withdrawn")
        reason = self._devices.safety.stopped()
        if reason:
            raise StepFailed(Fault.STOPPED, reason)

    def _around(self) -> Surroundings:
        """Where the hand is, or, near enough, is told to be: then motions can be used again."""
        measured = self._devices.hand.position()
        near = np.abs(measured - self._receive).max() < self.settings.hand.same_rad
        return Surroundings(
            self._receive if near else measured, self._devices.gripper.width_m(), self._lifted
        )

    def _go(self, goal: str) -> None:
        arm = self._devices.arm
        self._follow(planned(lambda: self._moves.to(goal, arm.position(), self._around())))

    def _line(self, goal: Pose, speed: float) -> None:
        arm = self._devices.arm
        self._follow(planned(lambda: self._moves.line(goal, arm.position(), self._around(), speed)))

    def _follow(self, motion: Trajectory) -> None:
        """Carry a motion out; a ball that is lost on the way ends it."""
        overtime_s = self.settings.move.overtime_s
        follow(self._run, self._devices.arm, motion, overtime_s, self._mind)

    def _mind(self) -> None:
        """Lead the hand on, and see that what is held stays held."""
        self._lead_hand()
        if self._holds and not self._feels_ball():
            width = self._width_mm()
            self._holds = self._lifted = False
            raise StepFailed(Fault.BALL_SLIPPED, f"the gripper is at {width} with a ball in it")

    def _grip(self, width_m: float, effort_n: float, wait: bool = True) -> None:
        gripper = self._devices.gripper
        if wait:
            grip(self._run, gripper, width_m, effort_n, self._lead_hand)
        else:
            gripper.move(width_m, effort_n)

    def _feels_ball(self) -> bool:
        off = abs(self._devices.gripper.width_m() - self.settings.held_width_m)
        return off < self.settings.grasp.width_tolerance_m

    def _width_mm(self) -> str:
        return f"{self._devices.gripper.width_m() * 1e3:.1f} mm"

    def _hand_to(self, posture: Array) -> None:
        self._posture, self._goal = self._devices.hand.position(), posture
        self._still_at, self._still_since_s = self._posture, self._devices.clock.now_s()
        self._sent_s = -np.inf

    def _lead_hand(self) -> None:
        """Tell the hand a posture a little further on the way."""
        now_s = self._devices.clock.now_s()
        if now_s < self._sent_s + _SEND_S - 1e-9:
            return
        self._sent_s = now_s
        step = self.settings.hand.speed * _SEND_S
        self._posture = self._posture + np.clip(self._goal - self._posture, -step, step)
        self._devices.hand.send(self._posture)

    def _hand_is_there(self) -> bool:
        if np.abs(self._goal - self._posture).max() > 1e-6:
            return False
        now_s, at = self._devices.clock.now_s(), self._devices.hand.position()
        hand = self.settings.hand
        if np.abs(at - self._still_at).max() > hand.still_rad:
            self._still_at, self._still_since_s = at, now_s
        # Balls and soft servos keep joints off their goals; far off they are blocked.
        off = np.abs(at - self._goal).max()
        return bool(now_s - self._still_since_s > hand.still_s and off < hand.blocked_rad)

    def _stand_down(self, fault: Fault) -> None:
        """Leave the robot at rest: out of the way where nothing was held and nobody stopped it."""
        devices = self._devices
        devices.arm.cancel()
        if fault in (Fault.CANCELLED, Fault.STOPPED) or self._holds:
            return
        run = Run(devices.clock, self.settings.poll_s, self._watch)
        self._run = run
        state = State(self._withdraw, 20.0, Fault.ARM_STUCK, 100.0, DONE)
        run.through({"withdraw": state}, "withdraw", {})

    def _withdraw(self) -> str:
        arm = self._devices.arm
        self._run.until(lambda: arm.course() is not Course.ACTIVE)
        self._clear()
        self._go("rest")
        return DONE
