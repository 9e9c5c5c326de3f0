# SPDX-License-Identifier: Apache-2.0
"""What the running demo listens on: nothing that another machine could reach."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from twinloop.dds import leave_domain, take_domain

COMMAND = [sys.executable, "-c", "from twinloop.cli.main import main; main()", "demo"]
PATIENCE_S = 200.0
# Participants of the demo, each with sockets: the nodes, and the display.
LEAST_PROCESSES = 8


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


@pytest.fixture
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


def test_the_demo_listens_on_loopback_alone(tmp_path: Path, environment: dict[str, str]) -> None:
    words = ["--episodes", "1000", "--steps", "10", "--out", str(tmp_path / "run")]
    running = subprocess.Popen(
        [*COMMAND, *words], env=environment, stdout=subprocess.PIPE, text=True
    )
    guard = threading.Timer(PATIENCE_S, running.kill)
    guard.start()
    found: dict[tuple[str, str, int], str] = {}
    assert running.stdout is not None
    try:
        for line in running.stdout:
            found |= open_ports(psutil.Process(running.pid))
            if line.startswith("episode 1/1000, running"):
                break
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate()
        guard.cancel()
    print(f"\n{len(found)} sockets of {len(set(found.values()))} processes")
    assert len(set(found.values())) >= LEAST_PROCESSES
    assert reachable(found) == {}


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
