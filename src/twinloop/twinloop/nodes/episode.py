# SPDX-License-Identifier: Apache-2.0
"""Episode node: resets the scene, has the planner start, watches, stops with a named reason.

Runs `episodes` episodes by itself, one after the other, or any number on request through the
action `run_episode`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from twinloop import contract as contracts
from twinloop import tasks
from twinloop.nodes import qos
from twinloop.nodes.base import ERROR, OK, WARN, Health, Node, run
from twinloop.nodes.parameters import ParameterSpec
from twinloop.planners.control import DROPPED, ENDS, LOST
from twinloop.tasks.base import Progress
from twinloop_interfaces.action import ResetScene, RunEpisode
from twinloop_interfaces.msg import EpisodeStatus, PlanStats, TaskGoal
from twinloop_interfaces.srv import StartPlanning

_POLL_S = 0.05
_RETRY_S = 0.5
PAUSED = "paused"  # why an episode ended that somebody interrupted; another follows on request


@dataclass
class Running:
    """The episode that is running."""

    status: EpisodeStatus
    progress: Progress
    observation_size: int
    goal: str  # that progress is counted for
    since_s: float = field(default_factory=time.monotonic)  # steady, of the last sign of progress
    started: Future | None = None  # the planner's answer
    handle: ServerGoalHandle | None = None
    done: Future | None = None


class EpisodeNode(Node):
    """A small state machine on EpisodeStatus.phase, stepped by a steady timer and by messages."""

    parameters = (
        ParameterSpec("task", "baoding", "Task of the episodes"),
        ParameterSpec("goal", "", "Goal of the task; empty: the task's own default", dynamic=True),
        ParameterSpec(
            "episodes", 0, "Episodes to run before the node ends; 0: on request", 0, 10**6
        ),
        ParameterSpec("steps", 100, "Control steps of an episode", 1, 10**6),
        ParameterSpec("seed", 0, "Seed of the first episode; the next ones count up", 0, 2**31 - 1),
        ParameterSpec("lockstep", False, "Twins wait for the command of each control step"),
        ParameterSpec("pause_s", 0.5, "Pause between two episodes [s]", 0.0, 3600.0),
        ParameterSpec("linger_s", 1.5, "Pause before the node ends, for recorders [s]", 0.0, 60.0),
        ParameterSpec("reset_action", "reset_scene", "Action that brings the scene back"),
        ParameterSpec("reset_timeout_s", 60.0, "A reset that takes longer has failed", 0.1, 3600.0),
        ParameterSpec("silence_s", 3.0, "A planner silent for longer has failed", 0.1, 3600.0),
        ParameterSpec("retries", 20, "Failed attempts in a row before giving up", 0, 10**6),
    )

    def __init__(self) -> None:
        super().__init__("episode")
        self._running: Running | None = None
        self._index = 0
        self._failures = 0
        self._wait_until_s = 0.0
        self._waiting_for = ""
        self._is_paused = False
        self._goal = ""
        self._malformed = 0
        self._complaint = ""

    def configure(self) -> None:
        tasks.make(self.param("task"), self.param("goal"))
        self._goal = self.param("goal")
        self._publisher = self.create_publisher(EpisodeStatus, "episode_status", qos.latched())
        self._reset = ActionClient(self, ResetScene, self.param("reset_action"))
        self._start = self.create_client(StartPlanning, "start_planning")
        self._stop = self.create_client(Trigger, "stop_planning")
        self.create_subscription(PlanStats, "plan_stats", self._on_stats, qos.EVENT)
        self.create_subscription(TaskGoal, "task_goal", self._on_task_goal, qos.latched())
        self.create_service(SetBool, "pause_episodes", self._on_pause)
        self._server = ActionServer(
            self,
            RunEpisode,
            "run_episode",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
        )
        self.create_timer(_POLL_S, self._poll, clock=self.steady_clock)

    def deactivate(self) -> None:
        if self._running is not None:
            self._end("episode node deactivated")

    def health(self) -> Health:
        values = {
            "episode": str(self._index),
            "failures": str(self._failures),
            "paused": str(self._is_paused).lower(),
            "malformed": str(self._malformed),
        }
        if self._failures > self.param("retries"):
            return Health(ERROR, f"gave up after {self._failures} failed attempts", values)
        if self._waiting_for:
            return Health(WARN, f"waits for {self._waiting_for}", values)
        if self._complaint:
            return Health(WARN, self._complaint, values)
        idle = PAUSED if self._is_paused else "idle"
        return Health(OK, "running" if self._running else idle, values)

    def parameter_changed(self, name: str, value: Any) -> None:
        """Take another goal for the episodes that follow."""
        if name != "goal":
            return
        try:
            tasks.make(self.param("task"), value)
        except ValueError as error:
            self.get_logger().warning(f"goal {self._goal!r} stays: {error}")
        else:
            self._goal = value

    # Requests from outside.

    def _on_goal(self, request: RunEpisode.Goal) -> GoalResponse:
        is_taken = self._running is not None or self.param("episodes") or self._is_paused
        if is_taken or not self.is_active:
            return GoalResponse.REJECT
        try:
            tasks.make(request.task, request.goal)
        except ValueError as error:
            self.get_logger().warning(f"episode refused: {error}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """End what runs and begin nothing, or go on. The robot holds meanwhile."""
        response.success = True
        response.message = PAUSED if request.data else "goes on"
        if request.data == self._is_paused:
            return response
        self._is_paused = request.data
        if request.data and self._running is not None:
            self._end(PAUSED)
        self._publish(
            EpisodeStatus(
                phase=EpisodeStatus.IDLE,
                index=self._index,
                total=self.param("episodes"),
                stop_reason=PAUSED if request.data else "",
            )
        )
        return response

    async def _execute(self, handle: ServerGoalHandle) -> RunEpisode.Result:
        request = handle.request
        running = self._begin(request.task, request.goal, request.steps, request.seed)
        running.handle, running.done = handle, Future()
        await running.done
        status = running.status
        if handle.is_cancel_requested:
            handle.canceled()
        elif status.stop_reason in ENDS:
            handle.succeed()
        else:
            handle.abort()
        return RunEpisode.Result(
            success=status.stop_reason in ENDS,
            episode_id=status.episode_id,
            steps=status.step,
            rotation_deg=status.rotation_deg,
            dropped=status.dropped,
            stop_reason=status.stop_reason,
        )

    # The course of an episode.

    def _poll(self) -> None:
        if not self.is_active:
            return
        running, now_s = self._running, time.monotonic()
        if running is None:
            if now_s >= self._wait_until_s:
                self._next()
            return
        phase, silent_s = running.status.phase, now_s - running.since_s
        if running.handle is not None and running.handle.is_cancel_requested:
            self._end("cancelled")
        elif phase == EpisodeStatus.RESETTING and silent_s > self.param("reset_timeout_s"):
            self._end(f"reset took longer than {self.param('reset_timeout_s'):g} s")
        elif phase == EpisodeStatus.RUNNING and silent_s > self.param("silence_s"):
            self._end(f"planner silent for {self.param('silence_s'):g} s")

    def _next(self) -> None:
        total = self.param("episodes")
        if total == 0 or self._is_paused:
            return
        if self._index >= total or self._failures > self.param("retries"):
            if self._waiting_for == "end":
                self.exit_code = 1 if self._failures > self.param("retries") else 0
                return
            self._waiting_for = "end"
            status = EpisodeStatus(
                phase=EpisodeStatus.FINISHED, index=self._index, total=total, percent=100.0
            )
            if self._failures > self.param("retries"):
                status.stop_reason = f"gave up after {self._failures} failed attempts"
            self._publish(status)
            self._wait_until_s = time.monotonic() + self.param("linger_s")
            return
        self._waiting_for = self._missing()
        if self._waiting_for:
            self._wait_until_s = time.monotonic() + _RETRY_S
            return
        seed = self.param("seed") + self._index
        self._begin(self.param("task"), self._goal, self.param("steps"), seed)

    def _missing(self) -> str:
        if not self._reset.server_is_ready():
            return f"a scene that can be reset (action {self.param('reset_action')})"
        if not self._start.service_is_ready():
            return "a planner (service start_planning)"
        return ""

    def _begin(self, task: str, goal: str, steps: int, seed: int) -> Running:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        status = EpisodeStatus(
            episode_id=f"{stamp}_{seed:06d}",
            index=self._index,
            total=self.param("episodes"),
            phase=EpisodeStatus.RESETTING,
            steps=steps,
            task=task,
            goal=goal,
            seed=seed,
        )
        chosen = tasks.make(task, goal)
        status.goal = chosen.goal
        size = contracts.load(task).observation_size
        self._complaint = ""
        running = Running(status, chosen.tracker(), size, chosen.goal)
        self._running = running
        self._publish(status)
        goal = ResetScene.Goal(start="cup", seed=seed, lockstep=self.param("lockstep"))
        self._then(self._reset.send_goal_async(goal), self._on_reset_accepted)
        return running

    def _then(self, future: Future, callback: Callable[[Any], None]) -> None:
        """Call back with the result, unless the episode has ended by then."""
        episode = self._running

        def call(done: Future) -> None:
            if episode is None or episode is not self._running:
                return
            error = done.exception()
            if error is not None:
                self._end(f"{type(error).__name__}: {error}")
            else:
                callback(done.result())

        future.add_done_callback(call)

    def _on_reset_accepted(self, handle: Any) -> None:
        if not handle.accepted:
            self._end("reset refused")
            return
        self._then(handle.get_result_async(), self._on_reset_done)

    def _on_reset_done(self, answer: Any) -> None:
        assert self._running is not None
        if not answer.result.success:
            self._end(f"reset failed: {answer.result.message}")
            return
        status = self._running.status
        status.phase = EpisodeStatus.RUNNING
        self._running.since_s = time.monotonic()
        self._publish(status)
        request = StartPlanning.Request(
            episode_id=status.episode_id,
            task=status.task,
            goal=status.goal,
            seed=status.seed,
            steps=status.steps,
        )
        self._then(self._start.call_async(request), self._on_started)

    def _on_started(self, answer: StartPlanning.Response) -> None:
        if not answer.success:
            self._end(f"planner did not start: {answer.message}")

    def _on_stats(self, stats: PlanStats) -> None:
        running = self._running
        if running is None or stats.episode_id != running.status.episode_id:
            return
        observation = np.asarray(stats.observation)
        expected = running.observation_size
        if observation.size not in (0, expected) or not np.isfinite(observation).all():
            self._complain(
                f"plan_stats: observation holds {observation.size} elements, expected {expected} "
                "and all of them finite"
            )
            return
        running.since_s = time.monotonic()
        status = running.status
        status.model_version = stats.model_version
        if observation.size:
            status.step = stats.step
            status.percent = 100.0 * stats.step / status.steps if status.steps else 0.0
            status.rotation_deg = running.progress.update(observation)
        if stats.stop_reason:
            self._end(stats.stop_reason)
        else:
            self._publish(status)

    def _on_task_goal(self, message: TaskGoal) -> None:
        """Follow what the planner is after now: progress counts from here."""
        running = self._running
        if running is None or message.episode_id != running.status.episode_id:
            return
        if message.goal == running.goal and not message.places:
            return
        try:
            task = tasks.make(running.status.task, message.goal, list(message.places))
        except ValueError as error:
            self._complain(f"task_goal: {error}")
            return
        running.goal = message.goal
        running.progress = task.tracker()
        running.status.goal = message.goal
        self._publish(running.status)

    def _complain(self, text: str) -> None:
        self._malformed += 1
        if text != self._complaint:
            self._complaint = text
            self.get_logger().warning(text)

    def _end(self, reason: str) -> None:
        running = self._running
        assert running is not None
        self._running = None
        status = running.status
        was_running = status.phase == EpisodeStatus.RUNNING
        status.phase, status.stop_reason = EpisodeStatus.ENDED, reason
        status.dropped = reason in (DROPPED, LOST)
        self._publish(status)
        if reason in ENDS:
            self._index += 1
            self._failures = 0
        else:
            self._failures += reason != PAUSED
            self.get_logger().warning(f"episode {status.episode_id} ended: {reason}")
            if was_running and self._stop.service_is_ready():
                self._stop.call_async(Trigger.Request())
        self._wait_until_s = time.monotonic() + self.param("pause_s")
        if running.done is not None:
            running.done.set_result(None)

    def _publish(self, status: EpisodeStatus) -> None:
        status.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(status)
        running = self._running
        if running is not None and running.handle is not None:
            running.handle.publish_feedback(RunEpisode.Feedback(status=status))


def main() -> None:
    run(EpisodeNode)
