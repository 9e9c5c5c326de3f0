# SPDX-License-Identifier: Apache-2.0
"""The security policy: commands come from planners and people alone, viewers change nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sros2_policy import Permissions, read_policy

ROOT = Path(__file__).resolve().parents[2]
POLICY = read_policy()
COMMANDS = {"/command", "/arm/command", "/emergency_stop"}


def enclave(name: str) -> list[tuple[str, Permissions]]:
    found = [
        (node, permissions)
        for (path, node), permissions in POLICY.items()
        if path == f"/twinloop/{name}"
    ]
    assert found, name
    return found


def test_commands_come_from_planners_and_people_alone() -> None:
    may = {
        (path, topic)
        for (path, _), permissions in POLICY.items()
        for topic in permissions.of("publish") & COMMANDS
    }
    assert may == {
        ("/twinloop/planners", "/command"),
        ("/twinloop/operators", "/command"),
        ("/twinloop/supervisor", "/emergency_stop"),
    }


def test_viewers_ask_for_nothing() -> None:
    for node, permissions in enclave("viewers"):
        assert not permissions.of("request"), node
        assert not permissions.of("call"), node


def test_the_supervisor_alone_changes_the_states_of_nodes() -> None:
    for (path, node), permissions in POLICY.items():
        changed = {name for name in permissions.of("request") if name.endswith("/change_state")}
        assert bool(changed) == (path == "/twinloop/supervisor"), node


def test_everything_asked_for_is_answered_by_somebody() -> None:
    for asked, answered in (("request", "reply"), ("call", "execute")):
        wanted, there = set(), set()
        for permissions in POLICY.values():
            wanted |= permissions.of(asked)
            there |= permissions.of(answered)
        assert wanted <= there | {"/episode/set_parameters"}, wanted - there


@pytest.mark.parametrize("name", ["baoding", "robot", "teleop", "grasping"])
def test_launch_files_put_each_node_into_an_enclave_that_there_is(name: str) -> None:
    text = (ROOT / "launch" / f"{name}.launch.xml").read_text()
    nodes = re.findall(r'<node pkg="twinloop[^>]*?name="([^"]*)"[^>]*?>', text, re.S)
    enclaves = re.findall(r"--enclave (/twinloop/[^\"]*)\"", text)
    assert len(enclaves) == len(nodes) > 0
    for node, path in zip(nodes, enclaves, strict=True):
        if node == "$(var driver_name)":  # hand, arm, …
            assert path == "/twinloop/actuators"
            continue
        paths = [path]
        if "$(if" in path:
            paths = ["/twinloop/operators", "/twinloop/viewers"]
        for one in paths:
            assert (one, f"/{node}") in POLICY, (one, node)
