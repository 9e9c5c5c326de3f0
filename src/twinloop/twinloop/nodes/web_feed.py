# SPDX-License-Identifier: Apache-2.0
"""Messages of a running cell into what the page shows of it."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticStatus

from twinloop.contract import Contract, stamp_of
from twinloop.nodes.point_clouds import from_cloud
from twinloop.perception.image_files import ImageRefused
from twinloop.perception.images import to_array
from twinloop.views.plan_points import BALL, POINT
from twinloop.web.state import Ball, CellState, Episode, ModelRow, NodeRow, TopicRow
from twinloop_interfaces.msg import ControlStatus, EpisodeStatus, GuardStatus, ModelAnnouncement

_PHASES = {
    EpisodeStatus.IDLE: "idle",
    EpisodeStatus.RESETTING: "resetting",
    EpisodeStatus.RUNNING: "running",
    EpisodeStatus.ENDED: "ended",
    EpisodeStatus.FINISHED: "finished",
}
_GUARD = {
    GuardStatus.HOLDING: "holding",
    GuardStatus.ACTIVE: "active",
    GuardStatus.STOPPED: "stopped",
    GuardStatus.EMERGENCY_STOP: "emergency stop",
}
_WHO = {
    ControlStatus.AUTONOMY: "autonomy commands",
    ControlStatus.PILOT: "the pilot commands",
    ControlStatus.SHARED: "pilot and planner share",
    ControlStatus.NOBODY: "held, nobody commands",
}
_PLACES = ("hold", "move")  # goals whose progress is a distance
_RATE_S = 2.0
_SILENCE_S = 1.0  # of a topic that comes at a rate
_RATED = ("joint_states", "balls", "tracker/image_raw", "emergency_stop", "/diagnostics")
_NEXT = 1  # step of a plan that the next observation tells the truth of


class Feed:
    """Fills a CellState; call the method that belongs to a topic with each of its messages.

    Args:
        state: what the page shows.
        contract: of the task, for the greatest ages of its channels.
    """

    def __init__(self, state: CellState, contract: Contract) -> None:
        self.state = state
        self._max_age_s = {one.name: one.max_age_s for one in contract.observation}
        self._arrivals: dict[str, deque[float]] = {}
        self._channels: list[TopicRow] = []
        self._predicted: tuple[int, np.ndarray] | None = None
        self._period_ns = round(contract.period_s * 1e9)
        self._prediction_mm = math.nan
        self._faults: dict[str, str] = {}

    def arrived(self, topic: str) -> None:
        """Count a message of a topic."""
        self._arrivals.setdefault(topic, deque(maxlen=400)).append(time.monotonic())

    def forget(self, topics: list[str]) -> None:
        """Nobody listens to these any more."""
        for topic in topics:
            self._arrivals.pop(topic, None)

    def measure(self) -> None:
        """Work out rates and ages."""
        now_s = time.monotonic()
        rows = []
        for topic, times in sorted(self._arrivals.items()):
            recent = sum(now_s - at < _RATE_S for at in times)
            silence_s = _SILENCE_S if topic in _RATED else math.inf
            rows.append(TopicRow(topic, recent / _RATE_S, now_s - times[-1], silence_s))
        self.state.topics = rows + self._channels
        for row in self.state.nodes.values():
            row.rss_mb = _resident_mb(row.pid)

    def on_joints(self, message: Any) -> None:
        if len(message.position) == len(message.name) and np.isfinite(message.position).all():
            self.state.joints.update(zip(message.name, message.position, strict=True))

    def on_balls(self, message: Any) -> None:
        self.state.balls = [
            Ball(np.array([one.position.x, one.position.y, one.position.z]), one.stale)
            for one in message.balls
        ]

    def on_plan(self, message: Any) -> None:
        """Take a plan, and see how well the one before foretold where the balls are now."""
        try:
            points = from_cloud(message, POINT)
        except ValueError as error:
            self._fault("plan_rollouts", str(error))
            return
        self.state.plan = points
        stamp_ns = stamp_of(message)
        best = points[(points["kind"] == BALL) & (points["rollout"] == 0)]
        now, then = (_balls(best[best["step"] == step]) for step in (0, _NEXT))
        if self._predicted is not None and stamp_ns - self._predicted[0] == self._period_ns:
            apart = np.linalg.norm(now - self._predicted[1], axis=-1)
            self._prediction_mm = 1e3 * float(apart.mean()) if len(apart) else math.nan
        self._predicted = (stamp_ns, then)

    def on_image(self, message: Any) -> None:
        try:
            self.state.image = to_array(message, "rgb8")
        except ImageRefused as error:
            self._fault("tracker/image_raw", str(error))

    def on_stats(self, message: Any) -> None:
        stamp_ns = stamp_of(message)
        self._channels = [
            TopicRow(
                f"{name} at a step",
                math.nan,
                (stamp_ns - stamp.sec * 10**9 - stamp.nanosec) / 1e9,
                self._max_age_s.get(name, math.inf),
            )
            for name, stamp in zip(message.channels, message.channel_stamps, strict=False)
        ]
        if not len(message.action):
            return
        self.state.series.add(
            time_s=stamp_ns / 1e9,
            rotation=self.state.episode.rotation,
            cost=-message.best_return,
            plan_ms=message.plan_ms,
            lateness_ms=message.lateness_ms,
            prediction_mm=self._prediction_mm,
            disagreement=message.disagreement,
        )
        self._prediction_mm = math.nan

    def on_episode(self, message: Any) -> None:
        state = self.state
        is_pause = message.phase == EpisodeStatus.IDLE
        if is_pause:
            state.is_paused = message.stop_reason == "paused"
        former = state.episode
        state.episode = Episode(
            id=message.episode_id,
            index=message.index,
            total=message.total,
            phase=_PHASES.get(message.phase, "unknown"),
            step=message.step,
            steps=message.steps,
            goal=message.goal,
            rotation=message.rotation_deg,
            model=message.model_version or former.model,
            stop_reason=message.stop_reason,
        )
        state.unit = "mm" if message.goal in _PLACES else "deg"
        if message.phase == EpisodeStatus.ENDED and former.phase != "ended":
            self._fault(
                "episode",
                "" if message.stop_reason in ("complete", "paused") else message.stop_reason,
            )

    def on_model(self, message: Any) -> None:
        is_promoted = message.status == ModelAnnouncement.PROMOTED
        if is_promoted:
            self.state.episode.model = message.version
        known = self.state.models.get(message.version)
        self.state.models[message.version] = ModelRow(
            message.version,
            "promoted" if is_promoted else "rejected",
            message.transitions or (known.transitions if known else 0),
            message.error_one_step_mm,
            message.error_seven_step_mm,
            message.reason,
        )

    def on_guard(self, message: Any) -> None:
        self.state.guard = _GUARD.get(message.state, "unknown")
        self.state.guard_reason = message.reason
        is_fault = message.state in (GuardStatus.STOPPED, GuardStatus.EMERGENCY_STOP)
        self._fault("guard", message.reason if is_fault else "")

    def on_control(self, message: Any) -> None:
        self.state.control = f"{_WHO.get(message.who, 'unknown')}: {message.reason[:80]}"
        self.state.alpha, self.state.is_sharing = message.alpha, message.sharing
        is_lost = message.who == ControlStatus.NOBODY
        self._fault("pilot", message.reason if is_lost else "")

    def on_stop(self, message: Any) -> None:
        self.state.is_pressed = message.data

    def on_diagnostics(self, message: Any) -> None:
        now_s = time.monotonic()
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if "state" not in values:
                continue
            known = self.state.nodes.get(status.name)
            pid = int(values["pid"]) if values.get("pid", "").isdigit() else 0
            is_fault = status.level == DiagnosticStatus.ERROR
            self.state.nodes[status.name] = NodeRow(
                name=status.name,
                state=values["state"],
                message=status.message,
                is_fault=is_fault,
                is_warning=status.level == DiagnosticStatus.WARN,
                beat_s=now_s,
                pid=pid,
                rss_mb=known.rss_mb if known is not None else 0.0,
            )
            self._fault(status.name, status.message if is_fault else "")
            if values.get("task") == self.state.task and values.get("goals"):
                self.state.goals = tuple(values["goals"].split(", "))
            if values.get("paused") in ("true", "false"):
                self.state.is_paused = values["paused"] == "true"

    def _fault(self, source: str, text: str) -> None:
        """Note a fault once for as long as it lasts; empty: it is over."""
        if text and self._faults.get(source) != text:
            at = time.strftime("%H:%M:%S")
            self.state.faults.append(f"{at} {source}: {text}")
        self._faults[source] = text


def _balls(points: np.ndarray) -> np.ndarray:
    points = points[np.argsort(points["body"])]
    return np.stack([points[axis] for axis in "xyz"], axis=-1)


def _resident_mb(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6 if pid else 0.0
    except psutil.Error:
        return 0.0
