# SPDX-License-Identifier: Apache-2.0
"""What a figure depends on beside the code's settings: machine, commit and versions."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import twinloop

_PACKAGES = ("torch", "numpy", "mujoco", "pybullet", "rclpy", "rosbags", "mcap", "safetensors")


def machine() -> dict[str, Any]:
    """Return processor, cores this process may use, memory and operating system."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of twinloop, Python, ROS and the packages that figures depend on."""
    found = {"twinloop": twinloop.__version__, "python": platform.python_version()}
    found |= _installed()
    found["ros"] = os.environ.get("ROS_DISTRO", "jazzy" if "rclpy" in found else "absent")
    return found


@functools.cache
def _installed() -> dict[str, str]:
    """Return the versions of packages; reading them takes as long as a short bag."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def commit() -> str | None:
    """Return the commit that the code is of, with `-dirty` where it was changed since.

    None where the code is not in a git repository.
    """
    folder = Path(twinloop.__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "unknown")
