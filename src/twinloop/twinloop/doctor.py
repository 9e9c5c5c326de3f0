# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine and the installation: what is present, what is missing, what to do.

Whatever may crash or hang when it is imported is imported in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from twinloop import paths
from twinloop.dds import own_domain

Status = Literal["ok", "warning", "missing"]
_PATIENCE_S = 60.0
_SETUP = "run 'make setup' in the repository"
_PYTHONS = ((3, 11), (3, 12))
_LEAST_DISK_GB, _GOOD_DISK_GB = 0.5, 5.0
_GOOD_MEMORY_GB = 4.0
_PLANNER_NICE = -10


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    """`missing` where something needed is absent; `warning` where things work, but worse."""
    found: str
    advice: str = ""


def examine(model_folder: Path | None = None) -> list[Check]:
    """Run all checks; takes some seconds.

    Args:
        model_folder: model to check instead of the one that ships.
    """
    checks: tuple[Callable[[], Check], ...] = (
        _python,
        _cores,
        _memory,
        _disk,
        _priority,
        _compiler,
        _cmake,
        _ros,
        _interfaces,
        _lock,
        _torch,
        lambda: _library("mujoco", "the MuJoCo twin"),
        lambda: _library("pybullet", "the PyBullet twin and pictures"),
        _gpu,
        lambda: _model(model_folder),
        _talk,
    )
    # First, because the other checks keep the machine busy.
    clocks = _clocks()
    with ThreadPoolExecutor(2, "doctor") as pool:
        return [clocks, *pool.map(lambda check: check(), checks)]


def is_healthy(checks: list[Check]) -> bool:
    """Tell whether nothing that is needed is missing."""
    return all(check.status != "missing" for check in checks)


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] not in _PYTHONS:
        return Check("Python", "warning", found, "tested with 3.11 and 3.12")
    return Check("Python", "ok", found)


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0))
    advice = "" if cores >= 2 else "planner and learner will be in each other's way; use 2 or more"
    return Check("CPU cores", "ok" if cores >= 2 else "warning", str(cores), advice)


def _memory() -> Check:
    total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    is_good = total_gb >= _GOOD_MEMORY_GB
    advice = "" if is_good else f"{_GOOD_MEMORY_GB:g} GB are what the whole cell needs"
    return Check("memory", "ok" if is_good else "warning", f"{total_gb:.1f} GB", advice)


def _disk() -> Check:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    found = f"{free_gb:.1f} GB free in {Path.cwd()}"
    if free_gb < _LEAST_DISK_GB:
        return Check("disk", "missing", found, "nothing is recorded with so little; free some")
    if free_gb < _GOOD_DISK_GB:
        return Check("disk", "warning", found, "enough for some hours of bags; free some")
    return Check("disk", "ok", found)


def _clocks() -> Check:
    if time.time() < 1.7e9:
        return Check("clocks", "missing", time.ctime(), "set the date: bags are named by it")
    late_ms = []
    for _ in range(40):
        started = time.monotonic()
        time.sleep(0.005)
        late_ms.append(1e3 * (time.monotonic() - started) - 5.0)
    median, worst = sorted(late_ms)[20], max(late_ms)
    found = f"a sleep of 5 ms ends {median:.2f} ms late, {worst:.1f} ms at worst"
    if median > 2.0:
        return Check("clocks", "warning", found, "the machine is busy or its timer coarse")
    return Check("clocks", "ok", found)


def _priority() -> Check:
    # RLIMIT_NICE counts from 20 - niceness.
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    if os.geteuid() == 0 or soft == resource.RLIM_INFINITY or soft >= 20 - _PLANNER_NICE:
        return Check("priority", "ok", "the planner may go before other programs")
    advice = f"'@{os.environ.get('USER', 'you')} - nice {_PLANNER_NICE}' in limits.conf lets it"
    return Check("priority", "warning", "the planner may not go before other programs", advice)


def _compiler() -> Check:
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path:
            return Check("C++ compiler", "ok", f"{path} {_first_line([path, '-dumpversion'])}")
    return Check("C++ compiler", _unless_built(), "none", "on Debian: apt install g++")


def _cmake() -> Check:
    beside = Path(sys.executable).with_name("cmake")
    path = str(beside) if beside.exists() else shutil.which("cmake")
    if path is None:
        return Check("CMake", _unless_built(), "none", f"{_SETUP}, or on Debian: apt install cmake")
    return Check("CMake", "ok", f"{_first_line([path, '--version']).split()[-1]} at {path}")


def _ros() -> Check:
    probe = "import rclpy; print(rclpy.__file__); print(rclpy.get_rmw_implementation_identifier())"
    lines, problem = _python_says(probe)
    if problem:
        return Check("ROS 2", "missing", problem, f"{_SETUP}, or source a ROS 2 installation")
    where = Path(lines[0])
    from_wheels = where.is_relative_to(sys.prefix)
    distro = os.environ.get("ROS_DISTRO", "jazzy" if from_wheels else "unknown")
    kind = "wheels" if from_wheels else f"installation {where.parents[4]}"
    found = f"{distro} from {kind}, {lines[1]}"
    if distro != "jazzy":
        return Check("ROS 2", "warning", found, "tested with jazzy")
    return Check("ROS 2", "ok", found)


def _interfaces() -> Check:
    probe = "from twinloop_interfaces.msg import PlanStats; from twinloop_interfaces.srv import "
    probe += "StartPlanning; PlanStats(); import twinloop_interfaces as t; print(t.__path__[0])"
    lines, problem = _python_says(probe)
    if problem:
        return Check("interfaces", "missing", problem, f"{_SETUP}, or build with colcon")
    return Check("interfaces", "ok", lines[0])


def _lock() -> Check:
    try:
        path = paths.share("requirements.lock")
    except FileNotFoundError:
        return Check("packages", "ok", "no requirements.lock here, versions are the system's")
    if not Path(sys.prefix).is_relative_to(path.parent):
        return Check("packages", "ok", "not those of the repository's .venv, versions not compared")
    wrong = list(_differences(path.read_text().splitlines()))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return Check("packages", "warning", f"not as locked: {', '.join(wrong[:3])}{more}", _SETUP)
    return Check("packages", "ok", f"as in {path.name}")


def _differences(lines: list[str]) -> Iterator[str]:
    """Yield every package of a lock file that is absent or of another version."""
    for line in lines:
        name, is_pinned, wanted = line.partition("==")
        if not is_pinned or line.startswith("#"):
            continue
        try:
            found = version(name)
        except PackageNotFoundError:
            yield f"{name} is absent"
            continue
        # Local parts, such as +cpu, name a build of the same version.
        if found.partition("+")[0] != wanted.strip():
            yield f"{name} is {found} instead of {wanted.strip()}"


def _torch() -> Check:
    lines, problem = _python_says(
        "import torch; print(torch.__version__); print(float(torch.ones(2) @ torch.ones(2)))"
    )
    if problem:
        return Check("torch", "missing", problem, _SETUP)
    return Check("torch", "ok", lines[0])


def _library(name: str, purpose: str) -> Check:
    lines, problem = _python_says(
        f"import {name}; from importlib.metadata import version; print(version('{name}'))"
    )
    if problem:
        return Check(name, "missing", problem, f"{purpose} needs it; {_SETUP}")
    return Check(name, "ok", lines[-1])


def _gpu() -> Check:
    path = shutil.which("nvidia-smi")
    if path is None:
        return Check("GPU", "ok", "none; none is needed")
    names = _first_line([path, "--query-gpu=name", "--format=csv,noheader"])
    return Check("GPU", "ok", names or "none that answers; none is needed")


def _model(folder: Path | None) -> Check:
    probe = "import sys; from twinloop import contract; from twinloop.learning.model_file import "
    probe += "load_model; m = load_model(sys.argv[1], contract.load('baoding')); "
    probe += "print(m.version, m.manifest.lineage.total_transitions or "
    probe += "m.manifest.lineage.transitions)"
    try:
        if folder is None:
            current = paths.share("models", "baoding", "current").read_text().strip()
            folder = paths.share("models", "baoding", current)
    except OSError as error:
        return Check("shipped model", "missing", str(error), "check the repository out again")
    lines, problem = _python_says(probe, str(folder))
    if problem:
        return Check("shipped model", "missing", problem, "check the repository out again")
    name, _, transitions = lines[-1].partition(" ")
    found = f"{name} in {folder}, trained on {transitions} transitions"
    return Check("shipped model", "ok", found)


def _talk() -> Check:
    command = [sys.executable, "-m", "twinloop.dds"]
    output, problem = _run(command, os.environ | own_domain())
    advice = "let UDP pass on the loopback interface, multicast included"
    if problem:
        return Check("DDS", "missing", problem, advice)
    answer = json.loads(output.splitlines()[-1])
    if "problem" in answer:
        return Check("DDS", "missing", f"only {answer['problem']} came back", advice)
    found = f"{answer['rmw']}, round trip between two processes {answer['median_ms']:.2f} ms"
    return Check("DDS", "ok", found)


def _unless_built() -> Status:
    """Return how bad it is to lack a tool that only building needs."""
    return "missing" if _interfaces().status == "missing" else "warning"


def _python_says(code: str, *words: str) -> tuple[list[str], str]:
    """Run Python code in a process of its own; returns its lines, and its problem or nothing."""
    output, problem = _run([sys.executable, "-c", code, *words])
    return output.splitlines(), problem


def _run(command: list[str], environment: dict[str, str] | None = None) -> tuple[str, str]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {_PATIENCE_S:g} s"
    except OSError as error:
        return "", str(error)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return "", lines[-1]
    return done.stdout, ""


def _first_line(command: list[str]) -> str:
    output, _ = _run(command)
    return output.partition("\n")[0].strip()
