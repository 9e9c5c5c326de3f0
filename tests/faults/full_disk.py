# SPDX-License-Identifier: Apache-2.0
"""A small disk for one process alone."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14


def small_disk(folder: Path, size_kib: int) -> Callable[[], None]:
    """Return what a process runs before all else to have a disk of a few KiB at a folder.

    Where the machine lets nobody mount one, no file of the process grows beyond that size.
    """
    mount = _mount(folder, size_kib)
    probe = subprocess.run(
        [sys.executable, "-c", "pass"], preexec_fn=_quiet(mount), capture_output=True
    )
    if probe.returncode == 0:
        return mount
    size = size_kib * 1024
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _mount(folder: Path, size_kib: int) -> Callable[[], None]:
    library = ctypes.CDLL(None, use_errno=True)
    flags = _NEW_MOUNTS if os.getuid() == 0 else _NEW_MOUNTS | _NEW_USER
    target, options = os.fsencode(folder), f"size={size_kib}k".encode()

    def run() -> None:
        for code in (
            library.unshare(flags),
            library.mount(None, b"/", None, _PRIVATE | _RECURSIVE, None),
            library.mount(b"tmpfs", target, b"tmpfs", 0, options),
        ):
            if code:
                raise OSError(ctypes.get_errno(), f"no disk of its own at {folder}")

    return run


def _quiet(run: Callable[[], None]) -> Callable[[], None]:
    def attempt() -> None:
        try:
            run()
        except OSError:
            os._exit(1)

    return attempt
