# SPDX-License-Identifier: Apache-2.0
"""Goals that are sent by another thread than the executor's."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import rclpy
import rclpy.action.client
from control_msgs.action import GripperCommand
from rclpy.action import ActionServer
from rclpy.context import Context
from rclpy.experimental import EventsExecutor
from rclpy.task import Future
from twinloop.dds import take_domain
from twinloop.nodes.action_client import AnyThreadActionClient


def test_an_answer_that_comes_at_once_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class LateFuture(Future):
        """What a thread that is interrupted before it has written its goal down would make."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.2)
            super().__init__(*args, **settings)

    context = Context()
    rclpy.init(context=context, domain_id=take_domain())
    nodes = [rclpy.create_node(name, context=context) for name in ("server", "client")]
    executor = EventsExecutor(context=context)

    def close(handle: Any) -> GripperCommand.Result:
        handle.succeed()
        return GripperCommand.Result(reached_goal=True)

    server = ActionServer(nodes[0], GripperCommand, "close", close)
    client = AnyThreadActionClient(nodes[1], GripperCommand, "close")
    for node in nodes:
        executor.add_node(node)
    accepted: list[bool] = []

    def send() -> None:
        sent = client.send_goal_async(GripperCommand.Goal())
        sent.add_done_callback(lambda future: accepted.append(future.result().accepted))

    def spin_until(is_true: Any) -> None:
        end_s = time.monotonic() + 30.0
        while not is_true():
            assert time.monotonic() < end_s, "the answer was lost"
            executor.spin_once(timeout_sec=0.02)

    try:
        spin_until(client.server_is_ready)
        monkeypatch.setattr(rclpy.action.client, "Future", LateFuture)
        for count in (1, 2, 3):
            thread = threading.Thread(target=send)
            thread.start()
            spin_until(lambda count=count: len(accepted) == count)
            thread.join()
        assert accepted == [True] * 3
    finally:
        executor.shutdown()
        client.destroy()
        server.destroy()
        for node in nodes:
            node.destroy_node()
        rclpy.shutdown(context=context)
