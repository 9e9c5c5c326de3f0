# SPDX-License-Identifier: Apache-2.0
"""Finds every live process that a launched process left behind, through /proc.

A process belongs to a launched one if it is in its process group, or if it inherited the mark in
its environment: children that moved to a group or session of their own are found too.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

MARK = "TWINLOOP_LAUNCH_PROCESS"


def members(group: int, mark: str) -> list[int]:
    """Return the live processes of a process group, or with this value of the mark."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for folder in os.scandir("/proc"):
        if not folder.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            state, process_group = _state(Path(folder.path))
            if state in "ZX":
                continue
            if process_group == group or _has_entry(Path(folder.path), entry):
                found.append(int(folder.name))
    return found


def send(pids: list[int], sent: signal.Signals) -> None:
    """Send a signal to processes; those that are gone by now are passed over."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, sent)


def _state(folder: Path) -> tuple[str, int]:
    # The command's name stands in parentheses and may hold anything, parentheses included.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[2])


def _has_entry(folder: Path, entry: bytes) -> bool:
    try:
        return entry in (folder / "environ").read_bytes().split(b"\0")
    except PermissionError:
        return False
