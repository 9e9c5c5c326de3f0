# SPDX-License-Identifier: Apache-2.0
"""Twin node: a simulated Baoding cell that talks like the real one."""

from __future__ import annotations

import gc
import time
from copy import copy
from typing import Any

from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle
from rclpy.event_handler import SubscriptionEventCallbacks
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from twinloop.nodes import qos
from twinloop.nodes.base import OK, WARN, Health, Node, run
from twinloop.nodes.joint_messages import nanoseconds
from twinloop.safety.verdict import GuardSettings, GuardState, Refusal

from twinloop_interfaces.action import ResetScene
from twinloop_sim.cell import Cell
from twinloop_sim.nodes.arm_topics import ArmTopics
from twinloop_sim.nodes.guarded_cell import CellReading, GuardedCell
from twinloop_sim.nodes.outputs import Outputs
from twinloop_sim.nodes.pacing import LockStep, Pace
from twinloop_sim.nodes.twin_parameters import PARAMETERS
from twinloop_sim.variation import gap

_WATCH_S = 0.02
_LOOKS = 5  # at the pace, for each tick
_REST_S = 0.001  # between bursts as fast as possible: time to listen
_REPEAT_S = 0.1
_SILENT_S = 0.3  # a source without a command while time stands still has lost its lease
_DISCOVERY_S = 2.0  # a planner that is there is known by then


class TwinNode(Node):
    """Wires a GuardedCell to its topics and to the steady clock.

    A steady timer runs the ticks that are due; between ticks, and while simulated time stands
    still, another one looks at the guard's watchdogs.
    """

    parameters = PARAMETERS

    def __init__(self) -> None:
        super().__init__("twin")
        self._guarded: GuardedCell | None = None
        self._undo: list[Any] = []

    def configure(self) -> None:
        engine, speed = self.param("engine"), self.param("joint_speed")
        name = self.param("variation")
        variations = [gap(name).draw(self.param("variation_seed"))] if name else None
        cell = Cell(
            1,
            engine,
            joint_speed=speed or None,
            variations=variations,
            arm=self.param("arm"),
        )
        settings = GuardSettings(
            tick_s=cell.tick_s,
            period_s=cell.contract.period_s,
            joint_speed=cell.joint_speed,
            command_delay_s=cell.contract.action.delay_s,
            max_age_s=self.param("command_max_age_s"),
            command_timeout_s=self.param("command_timeout_s"),
            lease_s=max(self.param("lease_s"), self.param("command_timeout_s")),
            heartbeat_timeout_s=self.param("emergency_stop_timeout_s"),
            requires_emergency_stop=self.param("require_emergency_stop"),
        )
        # From the wall clock's time on: a twin that is restarted does not take time back.
        self._guarded = GuardedCell(cell, settings, self.param("seed"), time.time_ns())
        self._guarded.offset_ns = round(self.param("clock_offset_s") * 1e9)
        self._undo.append(cell.close)
        self._rtf = self.param("rtf")
        self._pace = Pace(cell.tick_s, self._rtf)
        self._lockstep = LockStep(
            round(cell.contract.period_s * 1e9), self.param("lockstep_timeout_s")
        )
        self._is_waiting = False
        self._claim: JointTrajectory | None = None  # newest one of a source without the lease
        self._repeat_at_s = 0.0
        self._speed_since = (time.monotonic(), self._guarded.sim_ns)
        self._outputs = Outputs(
            self, self._guarded, self.param("publish_clock"), self.param("tracker")
        )
        self._undo.append(self._outputs.close)
        self._arm: ArmTopics | None = None
        if self._guarded.arm is not None:
            self._arm = ArmTopics(self, self._guarded, self._on_arm_start)
            self._undo.append(self._arm.close)
        self._open_inputs()
        # Looked at often, so that a tick is late by a share of itself at most.
        interval_s = min(cell.tick_s / self._rtf / _LOOKS, _WATCH_S) if self._rtf else _REST_S
        self._ticker = self.create_timer(
            interval_s, self.guarded(self._advance), clock=self.steady_clock, autostart=False
        )
        self._watcher = self.create_timer(
            _WATCH_S, self.guarded(self._watch), clock=self.steady_clock, autostart=False
        )
        self._undo += [
            lambda: self.destroy_timer(self._ticker),
            lambda: self.destroy_timer(self._watcher),
        ]

    def _open_inputs(self) -> None:
        # Deeper than a source's queue: no source can push another one's commands out.
        commands = copy(qos.COMMAND)
        commands.depth = 10
        self._command = self.create_subscription(
            JointTrajectory,
            "command",
            self.guarded(self._on_command),
            commands,
            event_callbacks=SubscriptionEventCallbacks(liveliness=self._on_liveliness),
        )
        stop = self.create_subscription(
            Bool, "emergency_stop", self._on_emergency_stop, qos.HEARTBEAT
        )
        rearm = self.create_service(Trigger, "rearm", self._on_rearm)
        reset = ActionServer(self, ResetScene, "reset_scene", self._on_reset)
        self._undo += [
            lambda: self.destroy_subscription(self._command),
            lambda: self.destroy_subscription(stop),
            lambda: self.destroy_service(rearm),
            reset.destroy,
        ]

    def activate(self) -> None:
        assert self._guarded is not None
        if self.param("lockstep"):
            self._lockstep.engage(self._guarded.sim_ns)
        if self._guarded.cell.tick_count == 0:
            self._publish(self._guarded.reading())
        if self._arm is not None:
            self._arm.open_up()
        self._pace.restart(time.monotonic())
        self._is_waiting = False
        self._ticker.reset()
        self._watcher.reset()
        # What is alive now stays out of later collections, which would delay a tick.
        gc.collect()
        gc.freeze()

    def deactivate(self) -> None:
        if self._guarded is not None:
            self._ticker.cancel()
            self._watcher.cancel()
            self._guarded.guard.hold("twin deactivated", self._guarded.now_ns)
            if self._arm is not None:
                self._arm.close_down("the twin is not active")

    def cleanup(self) -> None:
        while self._undo:
            self._undo.pop()()
        self._guarded = None

    def parameter_changed(self, name: str, value: Any) -> None:
        if name == "clock_offset_s" and self._guarded is not None:
            self._guarded.offset_ns = round(value * 1e9)

    def health(self) -> Health:
        if self._guarded is None:
            return Health(WARN, "not configured")
        guard, now_s, sim_ns = self._guarded.guard, time.monotonic(), self._guarded.sim_ns
        since_s, since_ns = self._speed_since
        self._speed_since = (now_s, sim_ns)
        speed = (sim_ns - since_ns) * 1e-9 / max(now_s - since_s, 1e-3)
        values = {
            "engine": self.param("engine"),
            "rtf": f"{speed:.2f}",
            "lost_s": f"{self._pace.lost_s:.2f}",
            "lockstep": str(self._lockstep.is_engaged).lower(),
            "guard": guard.state.name.lower(),
        }
        if self._guarded.arm is not None:
            values["arm"] = str(self._guarded.arm.arm.motion.state)
        if guard.state in (GuardState.STOPPED, GuardState.EMERGENCY_STOP):
            return Health(WARN, f"guard: {guard.reason}", values)
        return Health(OK, f"guard: {guard.reason}", values)

    # Time.

    def _advance(self) -> None:
        """Run the ticks that are due."""
        guarded = self._guarded
        assert guarded is not None
        now_s = time.monotonic()
        due = self._pace.due(now_s)
        for left in range(due, 0, -1):
            if self._must_wait(now_s):
                self._pace.postpone(left)
                break
            self._set_patience()
            self._publish(guarded.tick(now_s))
            now_s = time.monotonic()
        self._outputs.report(now_s)

    def _publish(self, reading: CellReading) -> None:
        if self._arm is not None:
            self._arm.publish(reading.stamp_ns)
        self._outputs.publish(reading)

    def _must_wait(self, now_s: float) -> bool:
        """Whether simulated time stands still for a command; sees to it that one can come."""
        guarded = self._guarded
        assert guarded is not None
        if guarded.guard.state in (GuardState.STOPPED, GuardState.EMERGENCY_STOP):
            self._lockstep.suspend()
        waits = self._lockstep.must_wait(guarded.sim_ns, now_s)
        if waits and not self._is_waiting:
            self._repeat_at_s = now_s + _REPEAT_S
            # A timer without an interval would spin meanwhile.
            self._ticker.cancel()
        elif self._is_waiting and not waits:
            self._ticker.reset()
        self._is_waiting = waits
        return waits

    def _watch(self) -> None:
        """Look at the watchdogs; while waiting say again where the robot stands."""
        guarded = self._guarded
        assert guarded is not None
        now_s = time.monotonic()
        guarded.guard.watch(guarded.now_ns, now_s)
        if self._is_waiting:
            if self._lockstep.has_timed_out(now_s):
                self._lockstep.suspend()
                guarded.guard.hold("no command in lock-step", guarded.now_ns)
            elif self._claim is not None and self._lockstep.waited_s(now_s) > _SILENT_S:
                # While time stands still, a source that has said its last misses no turn.
                claim, self._claim = self._claim, None
                guarded.guard.lose_source(guarded.now_ns)
                self._on_command(claim)
            elif now_s >= self._repeat_at_s:
                self._repeat_at_s = now_s + _REPEAT_S
                if self._command.get_publisher_count():
                    self._outputs.repeat()
                    if self._arm is not None:
                        self._arm.publish(guarded.now_ns)
                elif self._lockstep.waited_s(now_s) > _DISCOVERY_S:
                    self._lockstep.suspend()
            self._resume(now_s)
        self._outputs.report(now_s)

    def _resume(self, now_s: float) -> None:
        if self._is_waiting and not self._must_wait(now_s):
            self._advance()

    def _set_patience(self) -> None:
        assert self._guarded is not None
        if self._lockstep.expects_commands:
            factor = float("inf")
        else:
            factor = max(1.0, 1.0 / self._rtf) if self._rtf > 0.0 else 1.0
        self._guarded.guard.pace(factor)

    # What the cell is told.

    def _on_command(self, message: JointTrajectory) -> None:
        guarded = self._guarded
        assert guarded is not None
        now_s = time.monotonic()
        if not message.points:
            guarded.guard.submit_hold(message.header.frame_id, guarded.now_ns, now_s)
            self._outputs.report(now_s)
            return
        if len(message.points) != 1:
            guarded.guard.refuse(Refusal.POINTS, f"{len(message.points)} points, expected 1")
            return
        verdict = guarded.submit(
            message.joint_names,
            message.points[0].positions,
            nanoseconds(message.header.stamp),
            message.header.frame_id,
            now_s,
        )
        if verdict.goal is not None:
            self._outputs.accept(verdict.stamp_ns, message.header.frame_id, verdict.goal)
            self._lockstep.commanded(verdict.stamp_ns - guarded.offset_ns)
            self._resume(now_s)
            self._claim = None
        elif verdict.refusal is Refusal.FOREIGN:
            self._claim = message
        self._outputs.report(now_s)

    def _on_arm_start(self) -> None:
        # An arm that moves needs time to go on, whatever the hand's commands are waited for.
        self._lockstep.suspend()
        self._resume(time.monotonic())

    def _on_liveliness(self, status: Any) -> None:
        # The middleware does not say which source it lost: hold, the right one takes over again.
        if status.alive_count_change < 0 and self._guarded is not None:
            self._guarded.guard.lose_source(self._guarded.now_ns)
            self._outputs.report(time.monotonic())

    def _on_emergency_stop(self, message: Bool) -> None:
        assert self._guarded is not None
        now_s = time.monotonic()
        self._guarded.guard.emergency_stop(message.data, self._guarded.now_ns, now_s)
        self._outputs.report(now_s)

    def _on_rearm(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._guarded is not None
        now_s = time.monotonic()
        response.success, response.message = self._guarded.rearm(now_s)
        self._outputs.report(now_s)
        return response

    def _on_reset(self, handle: ServerGoalHandle) -> ResetScene.Result:
        goal, guarded = handle.request, self._guarded
        assert guarded is not None
        if not self.is_active:
            handle.abort()
            return ResetScene.Result(message="the twin is not active")
        begin_ns = guarded.sim_ns
        try:
            reading = guarded.reset(goal.seed, goal.start)
        except (RuntimeError, ValueError) as error:
            handle.abort()
            return ResetScene.Result(message=str(error))
        now_s = time.monotonic()
        if goal.lockstep or self.param("lockstep"):
            self._lockstep.engage(guarded.next_step_ns)
        else:
            self._lockstep.disengage()
        if reading is not None:
            self._pace.restart(now_s)
            self._publish(reading)
        self._outputs.report(now_s)
        self._resume(now_s)
        handle.succeed()
        return ResetScene.Result(
            success=True,
            message=f"seed {goal.seed}",
            seconds=(guarded.sim_ns - begin_ns) * 1e-9,
        )


def main() -> None:
    run(TwinNode)
