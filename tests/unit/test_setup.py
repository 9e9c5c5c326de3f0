# SPDX-License-Identifier: Apache-2.0
"""The set-up refuses with one line, and completes what was interrupted. No network in here."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from setup_tree import SOURCE, load, make_tree

STEPS = (
    *("make_environment", "install_packages", "mend_cmake_paths", "install_workspace_module"),
    *("build", "build_packages"),
)


@pytest.fixture
def bootstrap(tmp_path: Path) -> ModuleType:
    module = load(make_tree(tmp_path / "tree"))
    module.LOG.parent.mkdir()
    return module


@pytest.fixture
def calls(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace what the steps do by a list of who was called."""
    called: list[str] = []

    def stand_in(name: str) -> Callable[..., None]:
        def action(*_: Any, **__: Any) -> None:
            called.append(name)
            if name == "make_environment":
                shutil.rmtree(bootstrap.VENV, ignore_errors=True)
                bootstrap.PYTHON.parent.mkdir(parents=True)
                bootstrap.PYTHON.symlink_to(sys.executable)

        return action

    for name in STEPS:
        monkeypatch.setattr(bootstrap, name, stand_in(name))
    return called


def refusal(bootstrap: ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    """Run `main` and return the one line with which it refuses."""
    assert bootstrap.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("set-up: ")
    return line


def with_tools(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Leave only these programs on the PATH."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)


def test_another_python_is_refused_by_its_version(
    bootstrap: ModuleType,
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = SimpleNamespace(
        version_info=(3, 12, 4), executable="/opt/py/python3", stderr=sys.stderr
    )
    monkeypatch.setattr(bootstrap, "sys", other)
    line = refusal(bootstrap, capsys)
    assert "Python 3.12.4 found at /opt/py/python3" in line
    assert "make PYTHON=python3.11" in line
    assert calls == []


def test_an_old_python_can_read_the_file_to_refuse_it() -> None:
    text = (SOURCE / "scripts" / "bootstrap.py").read_text()
    ast.parse(text, feature_version=(3, 8))


def test_no_python_at_all_is_one_line(tmp_path: Path) -> None:
    result = subprocess.run(
        ["make", "setup", "PYTHON="],
        cwd=make_tree(tmp_path / "tree"),
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert result.stderr.startswith("set-up: Python 3.11 was not found")


@pytest.mark.parametrize(
    ("machine", "library", "expected"),
    [
        ("aarch64", ("glibc", "2.36"), "linux on aarch64 found"),
        ("x86_64", ("glibc", "2.17"), "glibc 2.17 found"),
        ("x86_64", ("", ""), "other than glibc"),
    ],
)
def test_a_machine_without_wheels_is_refused(
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    machine: str,
    library: tuple[str, str],
    expected: str,
) -> None:
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: machine)
    monkeypatch.setattr(bootstrap.platform, "libc_ver", lambda: library)
    assert expected in refusal(bootstrap, capsys)


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (("make", "c++"), "no C compiler found (cc, gcc, clang)"),
        (("make", "cc"), "no C++ compiler found (c++, g++, clang++)"),
        (("cc", "c++"), "make was not found"),
    ],
)
def test_a_missing_tool_is_named_before_anything_is_downloaded(
    bootstrap: ModuleType,
    calls: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tools: tuple[str, ...],
    expected: str,
) -> None:
    with_tools(tmp_path / "bin", monkeypatch, *tools)
    assert expected in refusal(bootstrap, capsys)
    assert calls == []


def test_a_chosen_compiler_must_be_there(
    bootstrap: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_tools(tmp_path / "bin", monkeypatch, "make", "gcc", "g++", "ccache")
    monkeypatch.setenv("CC", "ccache gcc")
    monkeypatch.setenv("CXX", "g++-99 -O1")
    assert "CXX is 'g++-99 -O1', and there is no such C++ compiler" in refusal(bootstrap, capsys)


def test_a_python_without_venv_is_refused(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        bootstrap.importlib.util, "find_spec", lambda n: None if n == "ensurepip" else found(n)
    )
    assert "apt install python3.11-venv" in refusal(bootstrap, capsys)


def test_a_python_without_headers_is_refused(
    bootstrap: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bootstrap.sysconfig, "get_path", lambda _: str(tmp_path))
    line = refusal(bootstrap, capsys)
    assert str(tmp_path / "Python.h") in line
    assert "apt install python3.11-dev" in line


def test_a_path_that_search_paths_cannot_hold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(make_tree(tmp_path / "a:b"))
    assert "has ':' in it" in refusal(module, capsys)


def test_too_little_disk_is_refused_with_both_figures(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: SimpleNamespace(free=1.2e9))
    line = refusal(bootstrap, capsys)
    assert f"only 1.2 GB free on the disk of {bootstrap.ROOT}, 4 GB are needed" in line


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", "is full; free some space"),
        ("gcc: error writing to a.o: Disk quota exceeded", "is full; free some space"),
        ("Retrying: Temporary failure in name resolution\nERROR: No match", "check the network"),
        ("error: first\nCMake Error: the last one\nbye", "it failed: CMake Error: the last one"),
        ("CMake Error at a:1 (message):\n\n  no such folder\n", "(message): no such folder (log"),
        ("nothing of note", "it failed (log: log/setup.log)"),
    ],
)
def test_a_failed_command_is_explained_by_what_it_printed(
    bootstrap: ModuleType, printed: str, expected: str
) -> None:
    command = [sys.executable, "-c", f"print({printed!r}); raise SystemExit(1)"]
    with pytest.raises(bootstrap.SetupError) as refused:
        bootstrap.run(command, "it failed")
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_the_one_that_is_full(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.tempfile, "gettempdir", lambda: "/some/tmp")
    free = {bootstrap.ROOT: 5e9, Path("/some/tmp"): 0.0}
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda p: SimpleNamespace(free=free[p]))
    assert "the disk of /some/tmp is full" in bootstrap.explain("No space left on device", "")
    assert "the disk of /some/tmp is full" in bootstrap.explain("", "the log could not say so")


def test_a_sourced_installation_does_not_reach_the_commands(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in bootstrap.FOREIGN_VARIABLES:
        monkeypatch.setenv(name, "/opt/ros/jazzy")
    printed = bootstrap.run(["env"], "", {"PYTHONPATH": "/ours"})
    names = {line.partition("=")[0] for line in printed.splitlines()}
    assert names & set(bootstrap.FOREIGN_VARIABLES) == {"PYTHONPATH"}
    assert "HOME" in names


def test_a_second_set_up_does_nothing(bootstrap: ModuleType, calls: list[str]) -> None:
    bootstrap.run_steps()
    assert calls == list(STEPS)
    calls.clear()
    bootstrap.run_steps()
    assert calls == []


def test_a_failed_step_is_done_again_and_those_before_it_are_not(
    bootstrap: ModuleType, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bootstrap.run_steps()
    calls.clear()
    bootstrap.run_steps()
    assert calls == ["build", "build_packages"]


def test_an_interrupted_pip_begins_with_a_new_environment(
    bootstrap: ModuleType, calls: list[str]
) -> None:
    bootstrap.run_steps()
    (bootstrap.STAMPS / "packages").write_text(bootstrap.BEGUN)
    calls.clear()
    bootstrap.run_steps()
    assert calls == list(STEPS)


def test_an_environment_whose_python_has_gone_is_made_anew(
    bootstrap: ModuleType, calls: list[str]
) -> None:
    bootstrap.run_steps()
    bootstrap.PYTHON.unlink()
    bootstrap.PYTHON.symlink_to("/nowhere/python3.11")
    calls.clear()
    bootstrap.run_steps()
    assert calls == list(STEPS)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("requirements.lock", [*STEPS[1:3], *STEPS[4:]]),
        ("scripts/workspace.py", ["install_workspace_module"]),
        ("src/twinloop_interfaces/package.xml", ["build"]),
        ("wheels/tf2_msgs/package.xml", ["build"]),
        ("src/twinloop/package.xml", ["build_packages"]),
        ("launch/new.launch.xml", ["build_packages"]),
        ("src/twinloop/twinloop/node.py", []),
    ],
)
def test_changed_inputs_redo_their_steps(
    bootstrap: ModuleType, calls: list[str], changed: str, expected: list[str]
) -> None:
    bootstrap.run_steps()
    calls.clear()
    path = bootstrap.ROOT / changed
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write("\n# changed\n")
    bootstrap.run_steps()
    assert calls == expected


def test_cmake_paths_of_the_wheels_are_mended(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bootstrap.VENV / "share" / "std_msgs" / "cmake"
    folder.mkdir(parents=True)
    path = folder / "export.cmake"
    path.write_text(f'"{bootstrap.FOREIGN_INCLUDE};{bootstrap.FOREIGN_NUMPY};keep"')
    monkeypatch.setattr(bootstrap, "run", lambda *_: "/usr/include/python3.11\n/a b/numpy\n")
    bootstrap.mend_cmake_paths()
    assert path.read_text() == '"/usr/include/python3.11;/a b/numpy;keep"'
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("folder", ["with a blank", "long" * 40])
def test_scripts_start_in_folders_that_a_first_line_cannot_name(
    tmp_path: Path, folder: str
) -> None:
    module = load(make_tree(tmp_path / folder))
    module.PYTHON.parent.mkdir(parents=True)
    module.PYTHON.symlink_to(sys.executable)
    script = module.ROOT / "node"
    script.write_text(f'#!"{module.PYTHON}"\nimport sys\nprint(sys.argv[1:], __file__)\n')
    script.chmod(0o755)
    module.mend_first_line(script)
    result = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=True)
    assert result.stdout == f"['a b', 'c'] {script}\n"
