# SPDX-License-Identifier: Apache-2.0
"""Set up everything that twinloop needs inside this folder: `.venv`, `build`, `install`.

Plain standard library, since it runs before anything is installed. Each step leaves a stamp with
the hash of its inputs, written after the step is done: a finished step is skipped, an interrupted
one is done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
INSTALL = ROOT / "install"
LOCK = ROOT / "requirements.lock"
LOG = ROOT / "log" / "setup.log"
WANTED_PYTHON = (3, 11)
NEEDED_GB = 4.0

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
    if sys.version_info[:2] != WANTED_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"Python {found} found at {sys.executable}, but the ROS 2 wheels need Python 3.11; "
            "install it and call make PYTHON=python3.11"
        )
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        raise SetupError("no C++ compiler found (c++, g++ or clang++); on Debian: apt install g++")
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if not (STAMPS / "packages").exists() and free_gb < NEEDED_GB:
        raise SetupError(
            f"only {free_gb:.1f} GB free on the disk of {ROOT}, {NEEDED_GB:.0f} GB are needed"
        )


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    with open(LOG.parent / "setup.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run_steps() -> None:
    interfaces = ROOT / "src" / "twinloop_interfaces"
    python_packages = [ROOT / "src" / "twinloop", ROOT / "sim" / "twinloop_sim"]
    bringup = ROOT / "src" / "twinloop_bringup"
    manifests = [p / f for p in python_packages for f in ("package.xml", "setup.py", "setup.cfg")]
    shared = [ROOT / name for name in ("launch", "config", "urdf", "models", "rviz")]

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
    stamp.unlink(missing_ok=True)
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
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(VENV)], "python3.11 cannot make a virtual environment")


def install_packages() -> None:
    # The lock names every package, so pip has nothing to resolve.
    command = [str(PYTHON), "-m", "pip", "install", "--no-deps", "--disable-pip-version-check"]
    run([*command, "--requirement", str(LOCK)], "pip could not install requirements.lock")


def mend_cmake_paths() -> None:
    query = (
        "import sysconfig, numpy; print(sysconfig.get_path('include')); print(numpy.get_include())"
    )
    include, numpy_include = subprocess.run(
        [str(PYTHON), "-c", query], check=True, capture_output=True, text=True
    ).stdout.split()
    if not (Path(include) / "Python.h").exists():
        raise SetupError(
            f"Python's C headers are missing ({include}/Python.h); on Debian: apt install "
            "python3.11-dev"
        )
    for path in (VENV / "share").glob("*/cmake/*.cmake"):
        text = path.read_text()
        mended = text.replace(FOREIGN_NUMPY, numpy_include).replace(FOREIGN_INCLUDE, include)
        if mended != text:
            path.write_text(mended)


def install_workspace_module() -> None:
    site_packages = VENV / "lib" / "python3.11" / "site-packages"
    shutil.copy(ROOT / "scripts" / "workspace.py", site_packages / "_twinloop_workspace.py")
    # Sorted before the wheels' own .pth, which starts Python again with the paths set here.
    (site_packages / "aa_twinloop_workspace.pth").write_text("import _twinloop_workspace\n")


def build_packages() -> None:
    build("twinloop", "twinloop_sim", "twinloop_bringup")
    command = VENV / "bin" / "twinloop"
    command.unlink(missing_ok=True)
    command.symlink_to(INSTALL / "lib" / "twinloop" / "twinloop")


def build(*packages: str, fresh: bool = False) -> None:
    if fresh:
        # A killed compiler may have left half an object file that looks up to date.
        for package in packages:
            shutil.rmtree(ROOT / "build" / package, ignore_errors=True)
    environment = dict(os.environ)
    for variable in ("PYTHONPATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH"):
        environment.pop(variable, None)
    prefixes = os.pathsep.join([str(INSTALL), str(VENV)])
    environment.update(
        AMENT_PREFIX_PATH=prefixes,
        CMAKE_PREFIX_PATH=prefixes,
        PATH=f"{VENV / 'bin'}{os.pathsep}{environment['PATH']}",
        VIRTUAL_ENV=str(VENV),
        PYTHONWARNINGS="ignore",
    )
    command = [str(PYTHON), "-m", "colcon", "--log-base", str(ROOT / "log"), "build"]
    command += ["--merge-install", "--symlink-install", "--event-handlers", "console_direct+"]
    command += ["--base-paths", "src", "sim", "--packages-select", *packages]
    command += ["--cmake-args", f"-DPython3_EXECUTABLE={PYTHON}", "-DBUILD_TESTING=OFF"]
    run(command, f"colcon could not build {', '.join(packages)}", environment)


def run(command: list[str], complaint: str, environment: dict[str, str] | None = None) -> None:
    """Run a command into the log; raise SetupError with one line if it fails."""
    with open(LOG, "ab") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        ).returncode
    if code == 0:
        return
    output = LOG.read_bytes()[start:].decode(errors="replace")
    if "No space left on device" in output:
        raise SetupError(f"the disk of {ROOT} is full; free some space and call make again")
    errors = [line.strip() for line in output.splitlines() if "error" in line.lower()]
    detail = f": {errors[-1][:200]}" if errors else ""
    raise SetupError(f"{complaint}{detail} (log: {LOG.relative_to(ROOT)})")


if __name__ == "__main__":
    sys.exit(main())
