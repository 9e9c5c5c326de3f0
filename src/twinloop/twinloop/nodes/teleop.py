# SPDX-License-Identifier: Apache-2.0
"""Teleop node: what a pilot does at a joystick, a keyboard or the page, as targets of the hand.

Nothing is said on `pilot_command` unless a dead-man is held. With `arm` the arm and its gripper
are moved too, through their actions.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import Joy
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from twinloop import contract as contracts
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.joint_messages import time_message, trajectory
from twinloop.nodes.parameters import ParameterSpec
from twinloop.nodes.steering import PILOT_COMMAND
from twinloop.nodes.teleop_arm import PilotedArm
from twinloop.teleop.hand import HandJog
from twinloop.teleop.joy import JoyMap, MalformedJoy
from twinloop.teleop.pilot import Hold, Pilot, Wish
from twinloop.teleop.settings import load_settings
from twinloop_interfaces.msg import ControlStatus, GuardStatus, PilotInput, PilotStatus

Array = NDArray[np.float64]

JOYSTICK = "joystick"
_STOPPED = (GuardStatus.STOPPED, GuardStatus.EMERGENCY_STOP)
_SAID_S = 0.5  # the state is said again so often
_NICENESS = -10
_WATCH_S = 0.005
_STALL_S = 0.04
_AWAY_S = 0.1  # steering has given the pilot up by then
_STRANGE = "a source without a name"
_SILENT_S = 1.0  # of a joystick, whose messages come all the time


class TeleopNode(Node):
    """Wires a Pilot, a HandJog and, with an arm, a PilotedArm to their topics."""

    parameters = (
        ParameterSpec("task", "baoding", "Task, and contract, whose joints are moved"),
        ParameterSpec("config", "", "File of motions, keys and speeds; empty: the cell's own"),
        ParameterSpec("hand", True, "Move the hand"),
        ParameterSpec("arm", False, "Move the arm and its gripper too"),
        ParameterSpec("planner", "planner", "Node whose parameter alpha the pilot sets"),
        ParameterSpec("steering", "steering", "Node whose parameter sharing the pilot sets"),
    )

    def __init__(self) -> None:
        super().__init__("teleop")
        self._pilot: Pilot | None = None
        self._arm: PilotedArm | None = None
        self._applied: Array | None = None
        self._undo: list[Any] = []
        self._malformed = 0
        self._complaint = ""

    def configure(self) -> None:
        contract = contracts.load(self.param("task"))
        self._settings = settings = load_settings(self.param("config") or None)
        self._names = list(contract.action.elements)
        self._pilot = Pilot(settings.timeout_s, settings.names())
        self._joy_map = JoyMap(settings.joystick)
        self._hand = HandJog(settings.hand)
        self._control = ControlStatus(alpha=float("nan"))
        self._is_stopped = False
        self._said: tuple[Any, ...] = ()
        self._said_s = 0.0
        self._joy_s = self._joy_flows_s = float("-inf")
        self._ticked_s = self._looked_s = time.monotonic()
        self._command = self.create_publisher(JointTrajectory, "pilot_command", PILOT_COMMAND)
        self._status = self.create_publisher(PilotStatus, "pilot_status", qos.latched())
        subscribe, guarded = self.create_subscription, self.guarded
        applied = contract.action.applied_topic
        made = [
            subscribe(Joy, "joy", guarded(self._on_joy), qos.SENSOR),
            subscribe(PilotInput, "pilot_input", guarded(self._on_input), qos.SENSOR),
            subscribe(JointTrajectory, applied, guarded(self._on_applied), qos.EVENT),
            subscribe(GuardStatus, "guard_status", self._on_guard, qos.latched()),
            subscribe(ControlStatus, "control_status", self._on_control, qos.latched()),
        ]
        self._triggers = {
            "stop": self.create_client(Trigger, "press_emergency_stop"),
            "resume": self.create_client(Trigger, "resume_autonomy"),
        }
        self._parameter_clients = {
            node: self.create_client(SetParameters, f"{self.param(node)}/set_parameters")
            for node in ("planner", "steering")
        }
        timer = self.create_timer(
            1.0 / settings.rate_hz, self.guarded(self._tick), clock=self.steady_clock
        )
        watcher = self.create_timer(_WATCH_S, self.guarded(self._watch), clock=self.steady_clock)
        if self.param("arm"):
            self._arm = PilotedArm(self, settings)
        clients = (*self._triggers.values(), *self._parameter_clients.values())
        self._undo = [
            partial(self.destroy_timer, timer),
            partial(self.destroy_timer, watcher),
            *(partial(self.destroy_subscription, one) for one in made),
            *(partial(self.destroy_client, one) for one in clients),
            partial(self.destroy_publisher, self._command),
            partial(self.destroy_publisher, self._status),
        ]

    def activate(self) -> None:
        assert self._pilot is not None
        # Whoever holds a dead-man already has to let go of it first.
        self._pilot.lose("teleop has just begun")
        self._ticked_s = self._looked_s = time.monotonic()

    def deactivate(self) -> None:
        if self._pilot is not None:
            self._pilot.lose("teleop was deactivated")
            self._tell(time.monotonic())
        if self._arm is not None:
            self._arm.rest()

    def cleanup(self) -> None:
        if self._arm is not None:
            self._arm.close()
        self._arm = self._pilot = self._applied = None
        for undo in self._undo:
            undo()
        self._undo = []

    def health(self) -> Health:
        if self._pilot is None:
            return Health(WARN, "not configured")
        values = {
            "dead_man": self._pilot.hold.name.lower(),
            "source": self._pilot.source,
            "mode": self._joy_map.mode,
            "malformed": str(self._malformed + self._pilot.malformed),
        }
        if self._arm is not None:
            values["clearance_mm"] = f"{1e3 * self._arm.clearance_m:.0f}"
        if self._pilot.hold is Hold.LOST:
            return Health(WARN, self._pilot.reason, values)
        complaint = (
            self._complaint
            or ("" if self._arm is None else self._arm.problem)
            or self._joystick_problem()
        )
        if complaint:
            return Health(WARN, complaint, values)
        return Health(OK, self._pilot.reason or "nobody holds the dead-man", values)

    def _joystick_problem(self) -> str:
        """Say that a joystick is silent; one that never was there is none that is missed."""
        silent_s = time.monotonic() - self._joy_flows_s
        if silent_s <= _SILENT_S or not (np.isfinite(silent_s) or self.count_publishers("joy")):
            return ""
        since = f" for {silent_s:.0f} s" if np.isfinite(silent_s) else ""
        return f"no joystick messages{since}: unplugged? It counts as released"

    # What is heard.

    def _on_joy(self, message: Joy) -> None:
        now_s = time.monotonic()
        if now_s - self._joy_s <= _SILENT_S:  # a driver without a device speaks now and then
            self._joy_flows_s = now_s
        self._joy_s = now_s
        try:
            wish = self._joy_map.read(message.axes, message.buttons)
        except MalformedJoy as error:
            self._complain(str(error))
            return
        self._hear(JOYSTICK, wish)

    def _on_input(self, message: PilotInput) -> None:
        if len(message.names) != len(message.values):
            self._complain(
                f"pilot_input: {len(message.names)} names for {len(message.values)} values"
            )
            return
        motions = dict(zip(message.names, map(float, message.values), strict=True))
        # Nobody may pass for another device.
        source = f"{message.source or _STRANGE}"[:32]
        self._hear(f"{source} (joystick)" if source == JOYSTICK else source,
                   Wish(message.dead_man, motions))  # fmt: skip

    def _hear(self, source: str, wish: Wish) -> None:
        if self._pilot is None or not self.is_active:
            return
        self._pilot.hear(source, wish, time.monotonic())
        if self._is_stopped:
            self._pilot.lose("the robot is stopped")
        for order in self._pilot.take_orders():
            self._obey(order)

    def _on_applied(self, message: JointTrajectory) -> None:
        if len(message.points) != 1 or list(message.joint_names) != self._names:
            return
        goal = np.array(message.points[0].positions, dtype=np.float64)
        if goal.shape == (len(self._names),) and np.isfinite(goal).all():
            self._applied = goal

    def _on_guard(self, message: GuardStatus) -> None:
        self._is_stopped = message.state in _STOPPED
        if self._is_stopped and self._pilot is not None:
            self._pilot.lose("the robot is stopped")

    def _on_control(self, message: ControlStatus) -> None:
        self._control = message

    def _complain(self, text: str) -> None:
        self._malformed += 1
        self._complaint = text

    # What is done.

    def _watch(self) -> Hold:
        """Look whether the pilot is still heard, and say so where he is not."""
        pilot = self._pilot
        if pilot is None or not self.is_active:
            return Hold.RELEASED
        now_s = time.monotonic()
        away_s, self._looked_s = now_s - self._looked_s, now_s
        if away_s > _STALL_S:
            # Who was away heard nobody; messages may be waiting.
            pilot.excuse(away_s)
        if away_s > _AWAY_S:
            pilot.lose(f"teleop itself was away for {1e3 * away_s:.0f} ms")
        hold = pilot.watch(now_s)
        self._tell(now_s)
        return hold

    def _tick(self) -> None:
        pilot = self._pilot
        if pilot is None or not self.is_active:
            return
        hold = self._watch()
        now_s = time.monotonic()
        dt, self._ticked_s = now_s - self._ticked_s, now_s
        if self.param("hand"):
            self._move_hand(pilot, min(dt, 2.0 / self._settings.rate_hz))
        if self._arm is not None:
            self._arm.move(pilot.motions, hold is Hold.HELD, now_s)

    def _move_hand(self, pilot: Pilot, dt: float) -> None:
        if pilot.hold is not Hold.HELD or self._applied is None:
            self._hand.rest()
            return
        target = self._hand.step(pilot.motions, self._applied, dt)
        now_ns = self.get_clock().now().nanoseconds
        source = self.get_fully_qualified_name()
        self._command.publish(trajectory(self._names, now_ns, source, target))

    def _tell(self, now_s: float) -> None:
        """Say who holds the dead-man: at once where that is new, and now and then."""
        pilot = self._pilot
        assert pilot is not None
        joint = self._hand.chosen_joint
        if self._arm is not None:
            joint += f", {self._arm.chosen_joint}"
        saying = (pilot.hold, pilot.source, self._joy_map.mode, joint)
        if saying == self._said and now_s - self._said_s < _SAID_S:
            return
        self._said, self._said_s = saying, now_s
        self._status.publish(
            PilotStatus(
                stamp=time_message(self.get_clock().now().nanoseconds),
                state=int(pilot.hold),
                source=pilot.source,
                mode=self._joy_map.mode,
                joint=joint,
                reason=pilot.reason,
            )
        )

    def _obey(self, order: str) -> None:
        if order == "mode/next":
            self._joy_map.next_mode()
        elif order in ("hand/next", "hand/previous"):
            self._hand.choose(1 if order == "hand/next" else -1)
        elif order in ("arm/next", "arm/previous"):
            if self._arm is not None:
                self._arm.choose(1 if order == "arm/next" else -1)
        elif order in ("alpha/up", "alpha/down"):
            self._shift_alpha(1.0 if order == "alpha/up" else -1.0)
        elif order == "share":
            shares = ParameterValue(
                type=ParameterType.PARAMETER_BOOL, bool_value=not self._control.sharing
            )
            self._set("steering", "sharing", shares)
        elif order in self._triggers:
            client = self._triggers[order]
            if client.service_is_ready():
                client.call_async(Trigger.Request())
            else:
                self._complain(f"{order}: nobody serves {client.srv_name}")

    def _shift_alpha(self, way: float) -> None:
        alpha = self._control.alpha
        if not np.isfinite(alpha):
            self._complain("alpha: the planner has not told it")
            return
        wanted = min(1.0, max(0.0, round(alpha + way * self._settings.alpha_step, 6)))
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=wanted)
        self._set("planner", "alpha", value)

    def _set(self, node: str, name: str, value: ParameterValue) -> None:
        client = self._parameter_clients[node]
        if not client.service_is_ready():
            self._complain(f"{name}: nobody serves {client.srv_name}")
            return
        client.call_async(SetParameters.Request(parameters=[Parameter(name=name, value=value)]))


def main() -> None:
    with contextlib.suppress(PermissionError):
        # A pilot waits for nobody. Before the middleware starts: its threads inherit this.
        os.nice(_NICENESS)
    run(TeleopNode)
