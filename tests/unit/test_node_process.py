# SPDX-License-Identifier: Apache-2.0
"""Killing the process of a node, and no other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from twinloop.safety.node_process import NotThatNode, is_command_of, kill_node_process


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["python", "/x/twin_node", "--ros-args", "-r", "__node:=twin"], "/twin", True),
        (["python", "/x/twin_node", "--ros-args", "-r", "__ns:=/"], "/twin_node", True),
        (["python", "/x/twin_node"], "/twin_node", True),
        (["python", "/x/twin_node"], "/twin", True),
        (["twin_node", "--ros-args", "-r", "__ns:=/a"], "/a/twin_node", True),
        (["twin_node", "--ros-args", "-r", "__ns:=/a"], "/b/twin_node", False),
        (["twin_node", "--ros-args", "-r", "__node:=other"], "/twin_node", False),
        (["vim", "notes.txt", "twin_node"], "/twin_node", False),
        ([""], "/twin_node", False),
    ],
)
def test_command_line_tells_whose_process_it_is(words, name, expected):
    assert is_command_of(words, name) is expected


@pytest.fixture
def sleeper():
    """A process whose command line names the node /cell/sleeper."""
    command = [sys.executable, "-S", "-c", "import time; print(1, flush=True); time.sleep(60)"]
    command += ["--ros-args", "-r", "__node:=sleeper", "-r", "__ns:=/cell"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_the_process_of_a_node_is_killed_even_when_it_is_stopped(sleeper):
    os.kill(sleeper.pid, signal.SIGSTOP)
    kill_node_process("/cell/sleeper", socket.gethostname(), sleeper.pid)
    assert sleeper.wait(timeout=10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "host", "complaint"),
    [
        ("/cell/sleeper", "elsewhere", "runs on elsewhere"),
        ("/other/sleeper", None, "is not /other/sleeper"),
        ("/cell/planner", None, "is not /cell/planner"),
    ],
)
def test_any_other_process_is_left_alone(sleeper, name, host, complaint):
    with pytest.raises(NotThatNode, match=complaint):
        kill_node_process(name, host or socket.gethostname(), sleeper.pid)
    assert sleeper.poll() is None


def test_a_process_that_is_gone_is_left_alone(sleeper):
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(NotThatNode, match="is gone"):
        kill_node_process("/cell/sleeper", socket.gethostname(), sleeper.pid)
