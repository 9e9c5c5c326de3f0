# SPDX-License-Identifier: Apache-2.0
"""Kills the process of a node, after making sure that it is that node's."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path


class NotThatNode(Exception):
    """The process is gone, or cannot be shown to be the node's; it was left alone."""


def kill_node_process(full_name: str, host: str, pid: int) -> None:
    """Send SIGKILL to the process of a node.

    Args:
        full_name: fully qualified name, such as `/cell/planner_node`.
        host: name of the machine that the process runs on.
        pid: its process id there.

    Raises:
        NotThatNode: it runs on another machine or as another user, is gone, or its command line
            does not name the node.
    """
    here = socket.gethostname()
    if host != here:
        raise NotThatNode(f"process {pid} of {full_name} runs on {host}, not on {here}")
    try:
        # The descriptor holds on to the process: its id cannot pass to another one meanwhile.
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError, OverflowError) as error:
        raise NotThatNode(f"process {pid} of {full_name} is gone") from error
    try:
        folder = Path("/proc") / str(pid)
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        if not is_command_of(words, full_name):
            raise NotThatNode(f"process {pid} is not {full_name}: '{' '.join(words).strip()}'")
        if folder.stat().st_uid != os.getuid():
            raise NotThatNode(f"process {pid} of {full_name} belongs to another user")
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotThatNode(f"process {pid} of {full_name} is gone") from error
    finally:
        os.close(descriptor)


def is_command_of(words: Sequence[str], full_name: str) -> bool:
    """Whether a command line starts the node of this name.

    The name is the one remapped by `__node:=`, or else that of the executable (`planner` or
    `planner_node`); the namespace is the one remapped by `__ns:=`, or else the root.
    """
    namespace, _, name = full_name.rpartition("/")
    given = words[words.index("--ros-args") :] if "--ros-args" in words else []
    names = [word.removeprefix("__node:=") for word in given if word.startswith("__node:=")]
    spaces = [word.removeprefix("__ns:=") for word in given if word.startswith("__ns:=")]
    # An interpreter may stand before the executable.
    executables = [os.path.basename(word).removesuffix("_node") for word in words[:2]]
    is_named = name in names if names else name.removesuffix("_node") in executables
    return is_named and (spaces[-1] if spaces else "").rstrip("/") == namespace
