# SPDX-License-Identifier: Apache-2.0
"""The process that talks to the arm: `python -m twinloop.drivers.franka_arm.process`.

It answers each state of the controller, a thousand a second, and does nothing else that could take
long. `FrankaDriver` starts it, tells it where to go and reads what it saw; where the driver ends or
goes silent, it brings the arm to rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
import time
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.drivers.franka_arm.follower import Follower, Mode
from twinloop.drivers.franka_arm.limiter import STEP_S
from twinloop.drivers.franka_arm.limits import bounded
from twinloop.drivers.franka_arm.link import STATE, LinkLost, Memory, Words
from twinloop.drivers.franka_arm.texts import plain
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import Tolerances, TrajectoryRefused
from twinloop.robots.base import Robot

Array = NDArray[np.float64]

_ECHO_RAD = 5e-7  # the arm tells back in single precision what it was told
_FADE = 0.01  # of the mean period
_LOOK_S = 2.0  # the longest cycle is told of this long
_MLOCK_ALL = 3  # MCL_CURRENT | MCL_FUTURE


class Phase(IntEnum):
    """What the arm does, as far as this process goes."""

    IDLE = 0  # it holds by itself
    ENGAGED = 1  # it does what it is told here
    FAULT = 2  # a reflex, or a person's stop


class Arm:
    """An arm, its state, and what it is told; `cycle` takes as long as the controller's own.

    Args:
        robot: of `pylibfranka`.
        library: `pylibfranka`.
        joints: names and limits.
        memory: shared with the driver.
        words: to and from the driver.
        watchdog_s: without a word of the driver for longer, the arm is brought to rest.
    """

    def __init__(
        self,
        robot: Any,
        library: Any,
        joints: Robot,
        memory: Memory,
        words: Words,
        watchdog_s: float,
    ) -> None:
        self._watchdog_s = watchdog_s
        self._robot = robot
        self._library = library
        self._joints = joints
        self._memory = memory
        self._words = words
        self._control: Any = None
        self._follower = Follower(joints)
        self._phase = Phase.IDLE
        self._ends: list[int | None] = []  # orders that wait until the motion has ended
        self.is_ended = False
        self._told = self._follower.status
        self._record = np.zeros((), STATE)
        self._came_s = time.monotonic()
        self._longest = (0.0, 0.0)
        self._fault = ""

    def cycle(self) -> None:
        """Take a state, and answer it; then take one of the driver's words.

        Raises:
            pylibfranka.NetworkException: the controller is silent.
        """
        if self._control is None:
            self._note(self._robot.read_once(), 0.0)
        else:
            try:
                self._answer()
            except (
                self._library.ControlException,
                self._library.CommandException,
            ) as error:
                self._lose_motion(str(error))
        self._listen()

    def wind_up(self) -> None:
        """Bring the arm to rest and end the motion; nobody is there any more."""
        self._ends.append(None)
        while self._control is not None:
            self._answer()

    # The motion.

    def _answer(self) -> None:
        state, passed = self._control.readOnce()
        passed_s = max(passed.to_sec(), STEP_S)
        follower, wanted = self._follower, np.array(state.q_d)
        if np.abs(wanted - follower.limiter.position).max() > _ECHO_RAD:
            # An answer was missing or late: it was dropped, and the arm went on by itself.
            self._record["missed"] += max(1, round(passed_s / STEP_S) - 1)
            follower.rebase(wanted, np.array(state.dq_d), np.array(state.ddq_d))
        self._note(state, passed_s)
        target, _ = self._memory.target.read()
        mode, why = Mode(int(target["mode"])), "the guard does not let the arm move"
        if self._ends:
            mode, why = Mode.BRAKE, "the arm is let go"
        elif self._came_s - float(target["steady_s"]) > self._watchdog_s:
            mode, why = Mode.BRAKE, "its driver is silent"
        q, qd = self._record["q"], self._record["dq"]
        position = follower.step(mode, target["position"], passed_s, q, qd, why)
        command = self._library.JointPositions(position.tolist())
        if self._ends and follower.is_at_rest:
            command.motion_finished = True
            self._control.writeOnce(command)
            self._finish()
        else:
            self._control.writeOnce(command)
        self._tell_status()

    def _finish(self) -> None:
        self._control = None
        self._phase = Phase.IDLE
        ends, self._ends = self._ends, []
        for order in ends:
            if order is None:
                self.is_ended = True
            else:
                self._words.say({"answer": order, "text": "stopped"})

    def _lose_motion(self, text: str) -> None:
        self._fault = plain(text)
        self._control = None
        self._phase = Phase.FAULT
        self._record["phase"] = Phase.FAULT
        self._memory.state.write(self._record)
        self._follower.cancel(self._fault)
        self._tell_status()
        self._words.say({"event": "fault", "text": self._fault})
        for order in self._ends:
            if order is None:
                self.is_ended = True
            else:
                self._words.say({"answer": order, "error": self._fault})
        self._ends = []

    # What was seen.

    def _note(self, state: Any, passed_s: float) -> None:
        now_s = time.monotonic()
        period_ms = 1e3 * (now_s - self._came_s)
        self._came_s = now_s
        if period_ms >= self._longest[0] or now_s - self._longest[1] > _LOOK_S:
            self._longest = (period_ms, now_s)
        record = self._record
        mean_ms = float(record["period_ms"]) or 1.0
        record["steady_s"] = now_s
        record["robot_s"] = state.time.to_sec()
        record["cycles"] += 1
        record["success_rate"] = state.control_command_success_rate
        record["period_ms"] = mean_ms + _FADE * (period_ms - mean_ms)
        record["longest_ms"] = self._longest[0]
        record["q"], record["dq"], record["tau"] = state.q, state.dq, state.tau_J
        record["q_d"], record["dq_d"] = state.q_d, state.dq_d
        if self._control is None:
            self._judge(state)
        record["phase"] = self._phase
        self._memory.state.write(record)

    def _judge(self, state: Any) -> None:
        """Whether an arm that is not told anything could be."""
        modes = self._library.RobotMode
        if state.robot_mode in (modes.Idle, modes.Move, modes.AutomaticErrorRecovery):
            if self._phase is Phase.FAULT and not state.current_errors:
                return  # until it is recovered from here
            return
        text = plain(str(state.current_errors)) or state.robot_mode.name
        if self._phase is not Phase.FAULT or text != self._fault:
            self._phase, self._fault = Phase.FAULT, text
            self._words.say({"event": "fault", "text": text})

    def _tell_status(self) -> None:
        status = self._follower.status
        if status is not self._told:
            self._told = status
            self._words.say(
                {
                    "event": "motion",
                    "state": status.state.value,
                    "number": status.number,
                    "detail": status.detail,
                }
            )

    # What is asked.

    def _listen(self) -> None:
        message = self._words.hear()
        if message is None:
            return
        word, arrays = message
        order = int(word["order"])
        try:
            text = getattr(self, f"_on_{word['do']}")(order, word, arrays)
        except (RuntimeError, TrajectoryRefused) as error:
            self._words.say(
                {
                    "answer": order,
                    "error": plain(str(error)),
                    "other_joints": getattr(error, "is_of_other_joints", False),
                }
            )
        else:
            if text is not None:
                self._words.say({"answer": order, "text": text})

    def _on_engage(self, order: int, word: dict[str, Any], arrays: Array) -> str:
        if self._control is not None:
            return "was engaged"
        if self._phase is Phase.FAULT:
            raise RuntimeError(f"{self._fault}: recover first")
        gc.collect()
        control = self._robot.start_joint_position_control(
            self._library.ControllerMode.JointImpedance
        )
        # Where the arm itself wants to be, which is not quite where it was measured to be.
        state, _ = control.readOnce()
        position = np.array(state.q_d)
        self._follower.stand(position)
        control.writeOnce(self._library.JointPositions(position.tolist()))
        self._control = control
        self._phase = Phase.ENGAGED
        self._note(state, STEP_S)
        return "engaged"

    def _on_stop(self, order: int, word: dict[str, Any], arrays: Array) -> str | None:
        if self._control is None:
            return "was not engaged"
        self._ends.append(order)
        return None

    def _on_end(self, order: int, word: dict[str, Any], arrays: Array) -> str | None:
        if self._control is None:
            self.is_ended = True
            return "ended"
        self._ends.append(None)
        return None

    def _on_recover(self, order: int, word: dict[str, Any], arrays: Array) -> str:
        if self._control is not None:
            return "was not at fault"
        self._robot.automatic_error_recovery()
        self._phase = Phase.IDLE
        self._note(self._robot.read_once(), 0.0)
        if self._phase is Phase.FAULT:
            raise RuntimeError(self._fault)
        return "recovered"

    def _on_follow(self, order: int, word: dict[str, Any], arrays: Array) -> str:
        if self._control is None or self._ends:
            raise RuntimeError("the arm is not engaged")
        points = arrays[:-21].reshape(-1, 22)
        path, goal, stopped = arrays[-21:].reshape(3, 7)
        trajectory = Trajectory(
            self._joints.joint_names, points[:, 0], *np.split(points[:, 1:], 3, axis=1)
        )
        tolerances = Tolerances(path, goal, stopped, float(word["goal_time_s"]))
        number = self._follower.follow(trajectory, tolerances)
        self._tell_status()
        return str(number)

    def _on_cancel(self, order: int, word: dict[str, Any], arrays: Array) -> str:
        self._follower.cancel(str(word["why"]))
        self._tell_status()
        return "cancelled"


def _settle_in(priority: int) -> str:
    """Have the machine let this process run on time; returns what it would not do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node says when to end
    refused = []
    if ctypes.CDLL(None).mlockall(_MLOCK_ALL):
        refused.append("memory is not locked")
    if priority:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except OSError:
            refused.append("ordinary priority")
    gc.collect()
    gc.freeze()
    gc.disable()
    return ", ".join(refused)


def _robot(name: str) -> Robot:
    robot: Robot = getattr(importlib.import_module(f"twinloop.robots.{name}"), name.upper())
    return robot


def _prepare(robot: Any, settings: dict[str, Any]) -> None:
    """Set what may be set while nothing moves."""
    robot.set_joint_impedance(settings["joint_impedance"])
    torques, forces = settings["collision_torques"], settings["collision_forces"]
    robot.set_collision_behavior(torques, torques, forces, forces)
    load = settings["load"]
    robot.set_load(load["mass"], load["centre"], load["inertia"])


def main() -> None:
    memory = Memory(int(sys.argv[1]))
    words = Words(socket.socket(fileno=int(sys.argv[2])))
    with contextlib.suppress(LinkLost):
        _run(memory, words)


def _run(memory: Memory, words: Words) -> None:
    message = words.hear()
    while message is None:
        time.sleep(0.001)
        message = words.hear()
    settings = message[0]
    try:
        import pylibfranka as library
    except ImportError as error:
        text = f"pylibfranka cannot be loaded ({error}): pip install pylibfranka on Linux, x86-64"
        words.say({"event": "missing", "text": text})
        return
    lacks = _settle_in(settings["priority"])
    config = library.RealtimeConfig
    try:
        robot = library.Robot(
            settings["address"], config.kEnforce if settings["realtime_kernel"] else config.kIgnore
        )
        _prepare(robot, settings)
        joints = bounded(_robot(settings["robot"]))
        arm = Arm(robot, library, joints, memory, words, settings["watchdog_s"])
        arm.cycle()
    except RuntimeError as error:
        words.say({"event": "missing", "text": plain(str(error))})
        return
    words.say({"event": "connected", "text": lacks})
    try:
        while not arm.is_ended:
            arm.cycle()
    except LinkLost:
        arm.wind_up()
    except RuntimeError as error:
        words.say({"event": "lost", "text": plain(str(error))})


if __name__ == "__main__":
    main()
