# SPDX-License-Identifier: Apache-2.0
"""The picker node over DDS: a simulated arm clears its bin, is cancelled, and stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from bag_processes import Observer, wait_until
from rclpy.action import ActionClient
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from twin_station import start_node
from twinloop.dds import take_domain
from twinloop.nodes import qos

from twinloop_interfaces.action import ClearBin

DOMAIN = take_domain()
LONG_S = 240.0  # of a busy machine; robot time is the simulation's
BRICK_SEED = 40  # a heap of one brick


class Client:
    """Asks for a bin to be cleared, and keeps what it is told."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.phases: list[str] = []
        self.joints: list[JointState] = []
        node = observer.node
        node.create_subscription(JointState, "arm/joint_states", self.joints.append, qos.SENSOR)
        self._action = ActionClient(node, ClearBin, "clear_bin")

    def ask(self, **goal: Any) -> Any:
        """Send a goal; returns its handle."""
        assert self._action.wait_for_server(LONG_S)
        self.phases.clear()
        sent = self._action.send_goal_async(
            ClearBin.Goal(**goal), lambda told: self.phases.append(told.feedback.phase)
        )
        wait_until(sent.done, LONG_S)
        assert sent.result().accepted
        return sent.result()

    def end(self, handle: Any) -> Any:
        """Wait for a goal's end; returns status and result."""
        ended = handle.get_result_async()
        wait_until(ended.done, LONG_S)
        return ended.result()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    nodes = [
        start_node(
            "twinloop_sim.nodes.bin", DOMAIN, arm=True, count=1, seed=BRICK_SEED, rate_hz=5.0
        ),
        start_node("twinloop.nodes.picker", DOMAIN, patience_s=60.0),
    ]
    with Observer(DOMAIN) as observer:
        yield Client(observer)
    for node in nodes:
        node.send_signal(signal.SIGINT)
    for node in nodes:
        assert node.wait(60.0) == 0


def test_a_cancelled_goal_leaves_the_arm_standing(client: Client) -> None:
    handle = client.ask()
    wait_until(lambda: "approach" in client.phases, LONG_S)
    wait_until(handle.cancel_goal_async().done, LONG_S)
    answer = client.end(handle)
    assert answer.status == GoalStatus.STATUS_CANCELED
    assert (answer.result.success, answer.result.reason) == (False, "cancelled")
    wait_until(lambda: max(abs(v) for v in client.joints[-1].velocity) < 0.01, LONG_S)


def test_an_emergency_stop_ends_it_by_name_and_the_arm_stands(client: Client) -> None:
    button = client.observer.node.create_publisher(Bool, "emergency_stop", qos.HEARTBEAT)
    wait_until(lambda: button.get_subscription_count() > 0, LONG_S)
    handle = client.ask()
    wait_until(lambda: "approach" in client.phases, LONG_S)
    button.publish(Bool(data=True))
    answer = client.end(handle)
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert (answer.result.reason, answer.result.picked) == ("stopped", 0)
    assert answer.result.message.endswith("emergency stop pressed")
    wait_until(lambda: max(abs(v) for v in client.joints[-1].velocity) < 0.01, LONG_S)
    stood = np.array(client.joints[-1].position)
    refused = client.end(client.ask())
    assert (refused.result.success, refused.result.reason) == (False, "stopped")
    assert np.abs(np.array(client.joints[-1].position) - stood).max() < 0.01
    button.publish(Bool(data=False))


def test_a_bin_is_cleared(client: Client) -> None:
    answer = client.end(client.ask())
    assert answer.status == GoalStatus.STATUS_SUCCEEDED, answer.result.message
    assert (answer.result.picked, answer.result.reason) == (1, "")
    assert answer.result.message == "the bin is empty"
    for phase in ("look", "plan", "approach", "lower", "close", "lift", "weigh", "carry"):
        assert phase in client.phases
    assert 3.0 < answer.result.seconds < 120.0
    again = client.end(client.ask())
    assert (again.result.success, again.result.picked, again.result.attempts) == (True, 0, 0)
