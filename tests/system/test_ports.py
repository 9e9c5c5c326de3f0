# SPDX-License-Identifier: Apache-2.0
"""What the running demo listens on, nothing that another machine could reach; and what it says."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import psutil
import pytest
import rclpy
from rclpy.action import (
    get_action_client_names_and_types_by_node,
    get_action_server_names_and_types_by_node,
)
from sros2_policy import Permissions, read_policy
from twinloop.dds import leave_domain, take_domain

# A busy machine takes minutes to start all nodes; the fixture's time counts with its first test.
pytestmark = pytest.mark.timeout(900)
COMMAND = [sys.executable, "-c", "from twinloop.cli.main import main; main()", "demo"]
PATIENCE_S = 400.0
# Participants of the demo, each with sockets: the nodes, and the display.
LEAST_PROCESSES = LEAST_NODES = 8


def open_ports(process: psutil.Process) -> dict[tuple[str, str, int], str]:
    """Return who has which port open, by kind, address and port, of a process and its children."""
    found = {}
    for one in (process, *process.children(recursive=True)):
        try:
            connections, name = one.net_connections("inet"), " ".join(one.cmdline()[:3])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        for each in connections:
            # An answer to somebody who listens is no listener.
            if each.laddr and (each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)):
                found[(each.type.name, each.laddr.ip, each.laddr.port)] = f"{one.pid} {name}"
    return found


def reachable(ports: dict[tuple[str, str, int], str]) -> dict[tuple[str, str, int], str]:
    """Return those of some ports that are not on loopback."""
    return {
        port: who for port, who in ports.items() if not ipaddress.ip_address(port[1]).is_loopback
    }


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What a newcomer's shell has: nothing that says where DDS is to be."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ROS_AUTOMATIC", "ROS_STATIC", "FASTRTPS", "FASTDDS"))
    }
    domain = take_domain()
    yield {**kept, "ROS_DOMAIN_ID": str(domain)}
    leave_domain(domain)


@dataclass
class Demo:
    """What was seen of a demo while it ran."""

    ports: dict[tuple[str, str, int], str]
    graph: dict[str, Permissions]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Demo:
    out = tmp_path_factory.mktemp("demo") / "run"
    words = ["--episodes", "1000", "--steps", "10", "--out", str(out)]
    running = subprocess.Popen(
        [*COMMAND, *words], env=environment, stdout=subprocess.PIPE, text=True
    )
    guard = threading.Timer(PATIENCE_S, running.kill)
    guard.start()
    seen, is_running = Demo({}, {}), False
    assert running.stdout is not None
    try:
        for line in running.stdout:
            seen.ports |= open_ports(psutil.Process(running.pid))
            is_running = line.startswith("episode 1/1000, running")
            if is_running:
                break
        assert is_running, f"no episode began within {PATIENCE_S} s"
        seen.graph = graph(int(environment["ROS_DOMAIN_ID"]))
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate()
        guard.cancel()
    return seen


def graph(domain: int) -> dict[str, Permissions]:
    """Return what each node of a domain says, hears and asks for, by its full name."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("witness", context=context)
    ways = {
        "publish": node.get_publisher_names_and_types_by_node,
        "subscribe": node.get_subscriber_names_and_types_by_node,
        "reply": node.get_service_names_and_types_by_node,
        "request": node.get_client_names_and_types_by_node,
        "execute": partial(get_action_server_names_and_types_by_node, node),
        "call": partial(get_action_client_names_and_types_by_node, node),
    }
    try:
        end_s = time.monotonic() + PATIENCE_S
        while len(node.get_node_names()) <= LEAST_NODES:
            assert time.monotonic() < end_s, node.get_node_names()
            time.sleep(0.1)
        time.sleep(2.0)  # what is asked for last is told last
        found = {}
        for name, namespace in node.get_node_names_and_namespaces():
            if name == "witness":
                continue
            names = {
                way: {topic for topic, _ in ask(name, namespace) if "/_action/" not in topic}
                for way, ask in ways.items()
            }
            found[f"{namespace.rstrip('/')}/{name}"] = Permissions(names)
        return found
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_the_demo_listens_on_loopback_alone(demo: Demo) -> None:
    print(f"\n{len(demo.ports)} sockets of {len(set(demo.ports.values()))} processes")
    assert len(set(demo.ports.values())) >= LEAST_PROCESSES
    assert reachable(demo.ports) == {}


def test_the_security_policy_allows_what_the_demos_nodes_do(demo: Demo) -> None:
    policy = read_policy()
    for node, uses in demo.graph.items():
        permissions = [each for (_, name), each in policy.items() if name == node]
        assert permissions, f"config/sros2/policy.xml has no profile of {node}"
        for way in uses.allowed:
            # A page that may not steer is a viewer; the one with more is another enclave.
            beyond = min((uses.of(way) - each.of(way) for each in permissions), key=len)
            assert not beyond, f"{node} may not {way} {sorted(beyond)}: config/sros2/policy.xml"


def test_a_reachable_port_is_seen(environment: dict[str, str]) -> None:
    """Fast DDS that is merely told to look for nobody elsewhere listens everywhere."""
    code = (
        "import rclpy; rclpy.init(); node = rclpy.create_node('heard'); print(flush=True); input()"
    )
    node = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert node.stdout is not None
    node.stdout.readline()
    found = open_ports(psutil.Process(node.pid))
    node.communicate(b"\n")
    assert reachable(found)
