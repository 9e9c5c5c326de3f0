# SPDX-License-Identifier: Apache-2.0
"""Nodes in this process whose callbacks are called by hand: nothing else moves meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from twinloop.dds import take_domain


@contextmanager
def running(make: Callable[[], Any], **parameters: Any) -> Iterator[Any]:
    """Yield an active node of its own domain."""
    domain = take_domain()
    settings = ["-p", "autostart:=false"]
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else value
        settings += ["-p", f"{name}:={text}"]
    rclpy.init(args=["--ros-args", "-r", f"__ns:=/fuzz_{domain}", *settings], domain_id=domain)
    try:
        node = make()
        try:
            activate(node)
            yield node
        finally:
            node.close()
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


def activate(node: Any) -> None:
    node.trigger_configure()
    node.trigger_activate()
    assert node.is_active, node._fault


def hear(node: Any, topic: str, message: Any) -> None:
    """Call a subscription's callback, as an executor would; the node must stay active."""
    full = node.resolve_topic_name(topic)
    found = [each for each in node.subscriptions if each.topic_name == full]
    assert found, f"{node.get_name()} does not subscribe to {full}"
    for subscription in found:
        subscription.callback(message)
    assert node.is_active, f"{topic} ended the node's work: {node._fault}"


def ask(node: Any, service: str, request: Any) -> Any:
    """Call a service's callback; the node must stay active."""
    full = node.resolve_service_name(service)
    (found,) = [each for each in node.services if node.resolve_service_name(each.srv_name) == full]
    response = found.callback(request, found.srv_type.Response())
    assert node.is_active, f"{service} ended the node's work: {node._fault}"
    return response
