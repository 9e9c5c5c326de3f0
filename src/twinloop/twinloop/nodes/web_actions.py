# SPDX-License-Identifier: Apache-2.0
"""What the page asks of the cell, as calls of services and actions."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.duration import Duration
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from twinloop.contract import Contract
from twinloop.nodes import qos
from twinloop.nodes.base import Node
from twinloop.nodes.web_pilot import WebPilot
from twinloop.web.state import CellState
from twinloop_interfaces.action import ResetScene, RunEpisode
from twinloop_interfaces.srv import SetGoal

_SAID_S = 1.0  # how long a slider's target is repeated
_TRIGGERS = {
    "press_emergency_stop": "emergency stop",
    "release_emergency_stop": "release of the emergency stop",
    "rearm": "re-arm",
    "roll_back_model": "roll-back",
    "resume_autonomy": "autonomy",
}


class WebActions:
    """Carries out what is asked in the page's threads, in the node's own: see `work`.

    Args:
        node: that the clients belong to.
        state: gets what came of it, and tells what is going on.
        contract: of the task.
        steps: of an episode that is started on request.
        limits: of each joint, lower and upper, rad.
    """

    def __init__(
        self,
        node: Node,
        state: CellState,
        contract: Contract,
        steps: int,
        limits: dict[str, tuple[float, float]],
    ) -> None:
        self._node, self._state, self._contract, self._steps = node, state, contract, steps
        self._limits = limits
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._triggers = {name: node.create_client(Trigger, name) for name in _TRIGGERS}
        self._pause = node.create_client(SetBool, "pause_episodes")
        self._goal = node.create_client(SetGoal, "set_goal")
        self._parameters = node.create_client(SetParameters, "episode/set_parameters")
        self._shares = {
            name: node.create_client(SetParameters, f"{name}/set_parameters")
            for name in ("planner", "steering")
        }
        self._pilot: WebPilot | None = None
        self._run = ActionClient(node, RunEpisode, "run_episode")
        self._reset = ActionClient(node, ResetScene, "reset_scene")
        self._command = node.create_publisher(JointTrajectory, contract.action.topic, qos.COMMAND)
        self._targets: dict[str, float] = {}
        self._moved_s = -1e9
        self._sent_s = -1e9

    # What the page asks, from any thread.

    def start(self, goal: str) -> None:
        self._asked.put(partial(self._start, goal))

    def pause(self) -> None:
        self._asked.put(partial(self._say_pause, True, self._told("pause")))

    def reset(self) -> None:
        self._asked.put(self._begin_reset)

    def set_goal(self, goal: str) -> None:
        self._asked.put(partial(self._say_goal, goal))

    def press_stop(self) -> None:
        self._asked.put(partial(self._trigger, "press_emergency_stop"))

    def release_stop(self) -> None:
        self._asked.put(partial(self._trigger, "release_emergency_stop"))

    def rearm(self) -> None:
        self._asked.put(partial(self._trigger, "rearm"))

    def roll_back(self) -> None:
        self._asked.put(partial(self._trigger, "roll_back_model"))

    def move_joint(self, name: str, position: float) -> None:
        self._asked.put(partial(self._move, name, position))

    def hold(self, motion: str, value: float) -> None:
        if self._pilot is not None:
            self._pilot.press(motion, value)

    def set_alpha(self, alpha: float) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=float(alpha))
        self._asked.put(partial(self._say_share, "planner", "alpha", value))

    def set_sharing(self, is_shared: bool) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=is_shared)
        self._asked.put(partial(self._say_share, "steering", "sharing", value))

    def resume_autonomy(self) -> None:
        self._asked.put(partial(self._trigger, "resume_autonomy"))

    # In the node's thread.

    def steer_by(self, pilot: WebPilot) -> None:
        """Hand buttons that are held to a pilot's device."""
        self._pilot = pilot

    def work(self) -> None:
        """Carry out what was asked since the last call; call it often."""
        while not self._asked.empty():
            self._asked.get()()
        now_s = time.monotonic()
        if not self._state.is_paused:
            self._targets = {}
        elif now_s - self._moved_s < _SAID_S and now_s - self._sent_s >= self._contract.period_s:
            self._sent_s = now_s
            self._publish()

    def _told(self, what: str) -> Callable[[Any], None]:
        """Return what puts the answer of a service into words."""

        def tell(answer: Any) -> None:
            accepted = getattr(answer, "success", getattr(answer, "accepted", True))
            message = getattr(answer, "message", "")
            self._say(f"{what}: {message or 'done'}" if accepted else f"{what} refused: {message}")

        return tell

    def _say(self, text: str) -> None:
        self._state.notice = text
        self._node.get_logger().info(f"page: {text}")

    def _call(self, client: Any, request: Any, what: str, then: Callable[[Any], None]) -> None:
        if not client.service_is_ready():
            self._say(f"{what}: nobody serves {client.srv_name}")
            return
        future = client.call_async(request)

        def answered(done: Any) -> None:
            error = done.exception()
            if error is not None:
                self._say(f"{what}: {error}")
            else:
                then(done.result())

        future.add_done_callback(answered)

    def _trigger(self, name: str) -> None:
        what = _TRIGGERS[name]
        self._call(self._triggers[name], Trigger.Request(), what, self._told(what))

    def _say_pause(self, is_pause: bool, then: Callable[[Any], None]) -> None:
        what = "pause" if is_pause else "start"
        self._call(self._pause, SetBool.Request(data=is_pause), what, then)

    def _start(self, goal: str) -> None:
        if not self._is_goal(goal):
            return
        self._choose(goal)
        is_on_request = self._state.episode.total == 0
        then = partial(self._run_one, goal) if is_on_request else self._told("start")
        self._say_pause(False, then)

    def _run_one(self, goal: str, _answer: Any) -> None:
        if not self._run.server_is_ready():
            self._say("start: nobody serves run_episode")
            return
        seed = int(time.time()) % 2**31
        request = RunEpisode.Goal(task=self._state.task, goal=goal, steps=self._steps, seed=seed)
        future = self._run.send_goal_async(request)
        future.add_done_callback(
            lambda done: self._say(
                f"start: {goal or 'an episode'}" if done.result().accepted
                else "start refused: an episode is running already"
            )
        )  # fmt: skip

    def _begin_reset(self) -> None:
        if self._state.episode.phase in ("resetting", "running"):
            self._say("reset refused: an episode is running; pause first")
            return
        if not self._reset.server_is_ready():
            self._say("reset: nobody serves reset_scene")
            return
        future = self._reset.send_goal_async(ResetScene.Goal(start="cup", seed=0))
        future.add_done_callback(
            lambda done: self._say("reset: begun" if done.result().accepted else "reset refused")
        )

    def _is_goal(self, goal: object) -> bool:
        """Whoever speaks the page's protocol can ask for what it does not offer."""
        is_one = goal in self._state.goals or goal == ""
        if not is_one:
            offered = ", ".join(self._state.goals)
            self._say(f"goal refused: {goal!r:.60} is none, expected {offered}")
        return is_one

    def _say_goal(self, goal: str) -> None:
        if not self._is_goal(goal):
            return
        self._choose(goal)
        if self._state.episode.phase == "running":
            self._call(self._goal, SetGoal.Request(goal=goal), "goal", self._told(f"goal {goal}"))

    def _choose(self, goal: str) -> None:
        """Let the episodes that follow pursue a goal."""
        if not goal:
            return
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=goal)
        request = SetParameters.Request(parameters=[Parameter(name="goal", value=value)])
        self._call(self._parameters, request, "goal", lambda _answer: None)

    def _say_share(self, node: str, name: str, value: ParameterValue) -> None:
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])

        def answered(answer: SetParameters.Response) -> None:
            refused = [one.reason for one in answer.results if not one.successful]
            if refused:
                self._say(f"{name} refused: {refused[0]}")

        self._call(self._shares[node], request, name, answered)

    def _move(self, name: str, position: float) -> None:
        joints = self._contract.action.elements
        if not self._state.is_paused or name not in joints:
            self._say(f"{name!r:.60} stays: pause first, and name a joint of the task")
            return
        low, high = self._limits[name]
        if type(position) not in (int, float) or not low <= position <= high:
            self._say(f"{name} stays: {position!r:.60} is asked for, expected {low:g} to {high:g}")
            return
        if not self._targets:
            missing = [one for one in joints if one not in self._state.joints]
            if missing:
                self._say(f"{name} stays: nobody tells where {missing[0]} is")
                return
            self._targets = {one: self._state.joints[one] for one in joints}
        self._targets[name] = float(position)
        self._moved_s = time.monotonic()

    def _publish(self) -> None:
        names = self._contract.action.elements
        message = JointTrajectory(joint_names=list(names))
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = self._node.get_fully_qualified_name()
        point = JointTrajectoryPoint(positions=[self._targets[name] for name in names])
        point.time_from_start = Duration(seconds=self._contract.period_s).to_msg()
        message.points = [point]
        self._command.publish(message)
