# SPDX-License-Identifier: Apache-2.0
"""Set-ups that run at once, or are killed, as real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from setup_tree import make_tree

# A set-up with one step, which writes to a journal and runs a child that waits for its input.
DRIVER = """
import sys
sys.path.insert(0, "scripts")
import bootstrap
CHILD = "open('gate').read(); open('journal', 'a').write('done ')"
def action():
    open("journal", "a").write("begun ")
    print("at work", flush=True)
    bootstrap.run([sys.executable, "-c", CHILD], "the child failed")
bootstrap.check_machine = lambda: None
bootstrap.run_steps = lambda: bootstrap.step("only", "the step", "key", action)
sys.exit(bootstrap.main())
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = make_tree(tmp_path / "tree")
    os.mkfifo(root / "gate")  # the child waits until the test has opened and closed it
    return root


@pytest.fixture
def start(tree: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def run() -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", DRIVER], cwd=tree, stdout=subprocess.PIPE, text=True
            )
        )
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


def open_gate(tree: Path) -> None:
    """Let the child go on; waits until there is one."""
    (tree / "gate").write_text("go")


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"the set-up ended without saying {words!r}")


def test_concurrent_calls_take_turns_and_do_each_step_once(
    tree: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    first = start()
    read_until(first, "at work")
    second = start()
    read_until(second, "another one is at work; waiting for it")
    open_gate(tree)
    assert [first.wait(), second.wait()] == [0, 0]
    assert (tree / "journal").read_text() == "begun done "


def test_a_killed_set_up_is_completed_after_its_orphan_has_ended(
    tree: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    first = start()
    read_until(first, "at work")
    with open(tree / "gate", "w"):  # opens once the child is there to read
        first.kill()
        first.wait()
        second = start()
        read_until(second, "another one is at work; waiting for it")
        assert (tree / "journal").read_text() == "begun "
    read_until(second, "at work")
    open_gate(tree)
    assert second.wait() == 0
    assert (tree / "journal").read_text() == "begun done begun done "
