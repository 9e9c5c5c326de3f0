# SPDX-License-Identifier: Apache-2.0
"""Watches a running cell over DDS, shows it, and notices when it makes no progress."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import rclpy
from rclpy.context import Context
from rclpy.experimental import EventsExecutor
from rclpy.signals import SignalHandlerOptions

from twinloop.nodes import qos
from twinloop.planners.control import COMPLETE, ENDS
from twinloop.reporting.live import CellState, LiveDisplay
from twinloop_interfaces.msg import EpisodeStatus, ModelAnnouncement, PlanStats

_POLL_S = 0.1
_NICE = 10
_PHASES = {
    EpisodeStatus.IDLE: "idle",
    EpisodeStatus.RESETTING: "resetting",
    EpisodeStatus.RUNNING: "running",
    EpisodeStatus.ENDED: "ended",
    EpisodeStatus.FINISHED: "finished",
}


class Monitor:
    """Subscribes to what the cell says of itself, in a thread and a ROS context of its own.

    Args:
        state: is kept up to date.
        display: shows it.
        stop: called once, with the reason, when no step was planned for `stall_s` or the run takes
            longer than `limit_s`.
        namespace: of the cell.
        stall_s: time without a control step that counts as a stop [s]; before the first one,
            while the nodes start, twice as much.
        limit_s: longest run [s].
    """

    def __init__(
        self,
        state: CellState,
        display: LiveDisplay,
        stop: Callable[[str], None],
        *,
        namespace: str = "",
        stall_s: float = 60.0,
        limit_s: float = 720.0,
    ) -> None:
        self.state = state
        self.fault = ""
        """Why the run was stopped; empty where it was not."""
        self._display = display
        self._stop = stop
        self._namespace = namespace
        self._stall_s, self._limit_s = stall_s, limit_s
        self._began_s = self._step_s = self._seen_s = time.monotonic()
        self._has_model = False
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor")

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        # On Linux this is the thread's alone: what is shown must not cost the planner time.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        context = Context()
        # Signals are for the launch, which shuts the cell down in order.
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node(
            "monitor",
            context=context,
            namespace=self._namespace or None,
            enable_rosout=False,
            start_parameter_services=False,
        )
        node.create_subscription(EpisodeStatus, "episode_status", self._on_status, qos.latched())
        node.create_subscription(PlanStats, "plan_stats", self._on_stats, qos.EVENT)
        node.create_subscription(ModelAnnouncement, "model", self._on_model, qos.latched(10))
        executor = EventsExecutor(context=context)
        executor.add_node(node)
        try:
            while not self._ends.is_set():
                executor.spin_once(timeout_sec=_POLL_S)
                self._display.refresh()
                self._watch(time.monotonic())
        finally:
            executor.shutdown()
            node.destroy_node()
            context.try_shutdown()

    def _watch(self, now_s: float) -> None:
        if self.state.phase == "paused":
            # Somebody took the time, and it does not count.
            self._limit_s += now_s - self._seen_s
            self._step_s = now_s
        self._seen_s = now_s
        if self.fault or self.state.phase == "finished":
            return
        patience_s = self._stall_s if self.state.transitions else 2.0 * self._stall_s
        if now_s - self._step_s > patience_s:
            self.fault = f"no control step for {patience_s:g} s ({self.state.phase})"
        elif now_s - self._began_s > self._limit_s:
            self.fault = f"took longer than {self._limit_s / 60:.0f} min"
        if self.fault:
            self._stop(self.fault)

    def _on_status(self, status: EpisodeStatus) -> None:
        state = self.state
        phase = _PHASES.get(status.phase, "unknown")
        if phase == "idle" and status.stop_reason:
            phase = status.stop_reason
        if phase == "resetting" and state.began_s is None:
            state.began_s = time.monotonic()
        if phase == "ended" and state.phase != "ended":
            self._say_end(status)
        state.phase, state.index, state.step = phase, status.index, status.step
        state.rotation_deg = status.rotation_deg
        state.model = status.model_version or state.model

    def _on_stats(self, stats: PlanStats) -> None:
        if not stats.stop_reason and len(stats.action):
            self._step_s = time.monotonic()
            self.state.transitions += 1
            self.state.plan_ms.append(stats.plan_ms)

    def _on_model(self, announcement: ModelAnnouncement) -> None:
        is_promotion = announcement.status == ModelAnnouncement.PROMOTED
        if is_promotion and not self._has_model:
            # A learner begins by naming the model that runs already.
            self._has_model = True
            return
        self.state.promotions += is_promotion
        self.state.rejections += not is_promotion
        verdict = "promoted" if is_promotion else "rejected"
        reason = announcement.reason.removeprefix(f"{announcement.version}: ")
        self._display.say(
            f"model {announcement.version} {verdict}: {reason}",
            "cyan" if is_promotion else "",
        )

    def _say_end(self, status: EpisodeStatus) -> None:
        is_fault = status.stop_reason not in ENDS
        end = {COMPLETE: "kept both balls"}.get(status.stop_reason, status.stop_reason)
        self._display.say(
            f"episode {status.index + 1}: {status.rotation_deg:.0f} deg in {status.step} steps, "
            f"{end}, model {status.model_version or '-'}",
            "yellow" if is_fault else "red" if status.dropped else "green",
        )
