# SPDX-License-Identifier: Apache-2.0
"""A planner that shares the hand with a pilot who speaks on `pilot_command`."""

from __future__ import annotations

import numpy as np
from bag_processes import Observer, Processes, interrupt, wait_until
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.clock import Clock, ClockType
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from twinloop.dds import take_domain
from twinloop.nodes import qos

from twinloop import contract as contracts

DOMAIN = take_domain()
CONTRACT = contracts.load("baoding")
LARGEST = CONTRACT.action.rate * CONTRACT.period_s


class Pilot:
    """Says fifty times a second that the hand shall be where it was at first, and a bit aside."""

    def __init__(self, observer: Observer) -> None:
        self.speaks = False
        self.commands: list[np.ndarray] = []
        self.wish: np.ndarray | None = None
        node = observer.node
        self._publisher = node.create_publisher(JointTrajectory, "pilot_command", qos.HEARTBEAT)
        self._set = node.create_client(SetParameters, "/planner/set_parameters")
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(0.02, self._speak, clock=clock)
        node.create_subscription(JointTrajectory, "command", self._hear, qos.EVENT)
        node.create_subscription(JointTrajectory, "applied_command", self._applied, qos.EVENT)

    def _applied(self, message: JointTrajectory) -> None:
        if self.wish is None:
            middle = (np.array(CONTRACT.action.lower) + np.array(CONTRACT.action.upper)) / 2
            first = np.array(message.points[0].positions)
            self.wish = first + 0.5 * LARGEST * np.sign(middle - first)

    def _speak(self) -> None:
        if self.wish is None or not self.speaks:
            return
        point = JointTrajectoryPoint(positions=self.wish[::-1].tolist())
        names = list(CONTRACT.action.elements)[::-1]
        self._publisher.publish(JointTrajectory(joint_names=names, points=[point]))

    def _hear(self, message: JointTrajectory) -> None:
        self.commands.append(np.array(message.points[0].positions))

    @property
    def is_obeyed(self) -> bool:
        """Whether the newest command is the wish, to the last bit that a plan's floats have."""
        return bool(self.commands) and bool(
            (self.commands[-1] == np.float32(self.wish).astype(np.float64)).all()
        )

    def set_alpha(self, alpha: float) -> str:
        """Set the parameter as a page does; returns why it was refused, or nothing."""
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=alpha)
        request = SetParameters.Request(parameters=[Parameter(name="alpha", value=value)])
        wait_until(self._set.service_is_ready)
        future = self._set.call_async(request)
        wait_until(future.done)
        return str(future.result().results[0].reason)


def test_alpha_gives_the_hand_to_the_pilot_or_to_autonomy_while_it_moves() -> None:
    with Processes(DOMAIN) as processes, Observer(DOMAIN) as observer:
        pilot = Pilot(observer)
        nodes = [
            processes.node("twinloop_sim.nodes.twin", lockstep=True, rtf=1.0),
            processes.node("twinloop.nodes.planner", rtf=1.0, nice=0, shared=True, alpha=0.0),
        ]
        for name in ("/twin", "/planner"):
            wait_until(lambda name=name: observer.values(name).get("state") == "active", 120.0)
        assert observer.values("/planner")["pilot"] == "absent"
        processes.node(
            "twinloop.nodes.episode", episodes=1, steps=3000, lockstep=True, use_sim_time=True
        )
        # Alone with α = 0 there is nobody who may move the hand.
        wait_until(lambda: len(pilot.commands) >= 3, 120.0)
        assert all((one == pilot.commands[0]).all() for one in pilot.commands)
        pilot.speaks = True
        wait_until(lambda: pilot.is_obeyed)
        wait_until(lambda: observer.values("/planner")["pilot"] == "commands")
        assert pilot.set_alpha(1.0) == ""
        wait_until(lambda: not pilot.is_obeyed)
        wait_until(lambda: observer.values("/planner")["alpha"] == "1")
        assert "alpha" in pilot.set_alpha(1.5)
        assert "alpha" in pilot.set_alpha(float("nan"))
        # What autonomy does goes on from where the hand was left.
        steps = np.abs(np.diff(np.array(pilot.commands), axis=0))
        assert steps.max() <= LARGEST + 1e-6
        for node in nodes:
            assert interrupt(node) == 0


def test_a_planner_that_cannot_be_shared_does_not_start() -> None:
    with Processes(DOMAIN) as processes:
        node = processes.node("twinloop.nodes.planner", shared=True, planner="icem")
        assert node.wait(timeout=120) == 2
        assert "'icem', expected 'mppi' to share" in processes.said(node)
