# SPDX-License-Identifier: Apache-2.0
"""A planner node that shares: both ends of alpha are exact, and alpha is changed while it runs.

The node is run by hand, sample by sample, with a guard for a robot, so no machine is too busy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from trajectory_msgs.msg import JointTrajectory
from twinloop.contract.baoding import PALM_FRAME
from twinloop.learning.swap import ModelSlot
from twinloop.nodes.ball_messages import tracked_balls
from twinloop.nodes.joint_messages import joint_state, time_message, trajectory
from twinloop.nodes.planner import PlannerNode, shipped_model
from twinloop.robots.hand24 import HAND24
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardSettings

from twinloop import contract as contracts
from twinloop import planners, tasks
from twinloop_interfaces.msg import PlanStats
from twinloop_interfaces.srv import StartPlanning

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from graph import ask, hear, running

CONTRACT = contracts.load("baoding")
NAMES = list(HAND24.joint_names)
CUP = HAND24.poses["cup"]
GOAL, SEED = "ccw", 7
STEP_NS = 100_000_000


def balls_in_the_palm(stamp_ns: int) -> Any:
    places = np.array([[0.03, -0.045, 0.09], [-0.03, -0.045, 0.09]])
    covariance = np.zeros((2, 6, 6))
    message = tracked_balls(
        PALM_FRAME, places, np.zeros((2, 3)), covariance, np.ones(2), np.zeros(2, np.bool_)
    )
    message.header.stamp = time_message(stamp_ns)
    return message


class Sent:
    """What a node publishes, in place of its publisher."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        self.messages.append(message)


class Robot:
    """Plays the samples of a robot to a planner node, and a guard to its commands.

    Attributes:
        wish: of the pilot, who speaks before each step [24], rad; None: he is silent.
        clock: the steady clock of the pilot's freshness.
        commands: of the planner, step by step.
        stats: likewise.
    """

    def __init__(self, node: PlannerNode, clock: Any) -> None:
        self.node, self.clock = node, clock
        self.now_ns = 1_000 * 10**9
        self.guard = CommandGuard(HAND24, GuardSettings(), CUP)
        self.wish: np.ndarray | None = None
        self._sent = node._command = Sent()
        self._told = node._stats = Sent()
        request = StartPlanning.Request(episode_id="x", task="baoding", goal=GOAL, seed=SEED)
        assert ask(node, "start_planning", request).success

    @property
    def commands(self) -> list[np.ndarray]:
        return [np.array(one.points[0].positions) for one in self._sent.messages]

    @property
    def stats(self) -> list[PlanStats]:
        return self._told.messages

    def step(self, count: int = 1) -> None:
        """Let a control step be due, and its command be applied."""
        for _ in range(count):
            self.now_ns += STEP_NS
            stamp_ns, goal = self.now_ns, self.guard.goal
            hear(self.node, "balls", balls_in_the_palm(stamp_ns))
            applied = trajectory(NAMES, stamp_ns - STEP_NS // 2, "guard", goal)
            hear(self.node, "applied_command", applied)
            if self.wish is not None:
                hear(self.node, "pilot_command", trajectory(NAMES, stamp_ns, "pilot", self.wish))
            hear(self.node, "joint_states", joint_state(NAMES, stamp_ns, goal, np.zeros(24)))
            command: JointTrajectory = self._sent.messages[-1]
            positions, source = command.points[0].positions, command.header.frame_id
            verdict = self.guard.submit(
                command.joint_names, positions, stamp_ns, source, stamp_ns, stamp_ns * 1e-9
            )
            # The guard lets it through as it is.
            assert verdict.is_accepted
            assert verdict.clamped == verdict.limited == ()
            for tick in range(10):
                at_ns = stamp_ns + tick * STEP_NS // 10
                self.guard.tick(at_ns, at_ns * 1e-9)

    def set_alpha(self, alpha: float) -> bool:
        """Set the parameter as the page and the joystick do; returns whether it was taken."""
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=alpha)
        request = SetParameters.Request(parameters=[Parameter(name="alpha", value=value)])
        answer = ask(self.node, f"{self.node.get_name()}/set_parameters", request)
        return bool(answer.results[0].successful)


@pytest.fixture
def robot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Robot]:
    # The pilot is fresh at every step, however long a plan takes on a busy machine.
    clock = SimpleNamespace(now_s=100.0)
    steady = SimpleNamespace(monotonic=lambda: clock.now_s)
    monkeypatch.setattr("twinloop.nodes.sharing.time", steady)
    with running(PlannerNode, shared=True, alpha=0.0, nice=0, rtf=0.0) as node:
        yield Robot(node, clock)


def autonomy_alone(steps: list[PlanStats]) -> list[np.ndarray]:
    """Return what MPPI without a pilot makes of the same observations, step by step."""
    model, _ = ModelSlot(CONTRACT).load(shipped_model("baoding"))
    task = tasks.make("baoding", GOAL)
    planner = planners.make("mppi", model, task, 0)
    planner.reset(SEED)
    found = []
    for index, step in enumerate(steps):
        seen = torch.tensor(step.observation)
        if index == 0:
            task = planner.task = task.begin(seen, SEED)
        action, _ = planner.plan(seen, task.targets(seen, planner.horizon))
        found.append(action.double().numpy())
    return found


def test_both_ends_of_alpha_are_exact_while_it_changes(robot: Robot) -> None:
    # Half of what a step may do; in the numbers that a plan has.
    change = 0.05 * np.sign((HAND24.lower + HAND24.upper) / 2 - CUP)
    wish = np.float32(CUP + change).astype(np.float64)
    robot.wish = wish
    robot.step(3)
    assert robot.set_alpha(1.0)
    robot.step(3)
    assert not robot.set_alpha(1.5)
    assert not robot.set_alpha(float("nan"))
    robot.step()
    assert robot.set_alpha(0.0)
    robot.wish = np.float32(robot.guard.goal + change / 2).astype(np.float64)
    robot.step(2)
    robot.wish = None  # alone with α = 0 nobody may move the hand
    robot.clock.now_s += 1.0
    robot.step()

    commands, alone = robot.commands, autonomy_alone(robot.stats)
    for index in (0, 1, 2):
        np.testing.assert_array_equal(commands[index], wish)
    for index in (3, 4, 5, 6):
        np.testing.assert_array_equal(commands[index], alone[index])
        assert np.abs(commands[index] - wish).max() > 1e-3
    for index in (7, 8):
        assert np.abs(commands[index] - alone[index]).max() > 1e-3
    np.testing.assert_array_equal(commands[7], commands[8])
    np.testing.assert_array_equal(commands[9], commands[8])


def test_between_its_ends_alpha_leaves_some_of_each(robot: Robot) -> None:
    assert robot.set_alpha(0.5)
    robot.wish = CUP + 0.1 * np.sign((HAND24.lower + HAND24.upper) / 2 - CUP)
    robot.step(3)
    values = robot.node.health().values
    assert values["pilot"] == "commands"
    assert 0.0 <= float(values["pilot_share"]) <= 1.0
    assert values["alpha"] == "0.5"
