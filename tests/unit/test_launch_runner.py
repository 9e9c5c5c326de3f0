# SPDX-License-Identifier: Apache-2.0
"""Running a launch: output, respawning, exit codes, and stops that leave nothing behind."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from twinloop.launching import LaunchLine, LaunchResult, LaunchRunner, format_line, load_launch_file
from twinloop.launching.process_tree import MARK


class Lines(list):
    """Collects lines; `wait_for` returns when one of them holds a text."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def __call__(self, line: LaunchLine) -> None:
        with self._changed:
            self.append(line)
            self._changed.notify_all()

    def wait_for(self, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.text(), timeout=20), self.text()

    def text(self) -> str:
        return "\n".join(format_line(line) for line in self)


def runner(tmp_path: Path, body: str, **options: object) -> tuple[LaunchRunner, Lines]:
    path = tmp_path / "test.launch.xml"
    path.write_text(f"<launch>{body}</launch>")
    lines = Lines()
    return LaunchRunner(load_launch_file(path), on_line=lines, **options), lines


def script(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return f"bash {tmp_path / name}"


class Background:
    """Runs a launch in a thread."""

    def __init__(self, launch: LaunchRunner) -> None:
        self._results: list[LaunchResult] = []
        self._thread = threading.Thread(target=lambda: self._results.append(launch.run()))
        self._thread.start()

    def result(self) -> LaunchResult:
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()
        return self._results[0]


def marked_processes(launch: LaunchRunner) -> list[int]:
    """Return every live process that inherited the mark of one of the launch's processes."""
    marks = [f"{MARK}={process.mark}".encode() for process in launch.processes.values()]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_zombie = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            entries = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if not is_zombie and any(mark in entries for mark in marks):
            found.append(int(folder.name))
    return found


def test_lines_carry_the_label_of_their_process(tmp_path):
    say = script(tmp_path, "say.sh", "echo one; echo two >&2; printf three")
    launch, lines = runner(tmp_path, f'<executable cmd="{say}" name="talker" output="screen"/>')
    result = launch.run()
    assert result.exit_code == 0
    assert {"[talker-1] one", "[talker-1] two", "[talker-1] three"} <= set(
        lines.text().splitlines()
    )


@pytest.mark.parametrize(
    ("output", "shown"), [("screen", {"out", "err"}), ("log", {"err"}), ("own_log", set())]
)
def test_output_decides_what_is_shown_and_the_log_keeps_all(tmp_path, output, shown):
    say = script(tmp_path, "say.sh", "echo out; echo err >&2")
    log = tmp_path / "launch.log"
    launch, lines = runner(tmp_path, f'<executable cmd="{say}" output="{output}"/>', log_path=log)
    launch.run()
    assert {line.text for line in lines if line.source == "bash-1" and line.is_on_screen} == shown
    assert "[bash-1] out" in log.read_text()
    assert "[bash-1] err" in log.read_text()


def test_failed_process_is_respawned_as_often_as_allowed(tmp_path):
    fail = script(tmp_path, "fail.sh", "echo tried; exit 3")
    launch, lines = runner(
        tmp_path,
        f'<executable cmd="{fail}" respawn="true" respawn_delay="0.01" respawn_max_retries="2"/>',
    )
    result = launch.run()
    assert [line.text for line in lines].count("tried") == 3
    assert result.exit_code == 1
    assert result.failures == ("bash-1 failed: exit code 3",)
    assert "gave up: respawned 2 times already" in lines.text()


def test_respawned_process_that_ends_well_is_no_failure(tmp_path):
    once = script(tmp_path, "once.sh", f"rm {tmp_path}/flag || exit 0; exit 1")
    (tmp_path / "flag").touch()
    launch, _ = runner(
        tmp_path, f'<executable cmd="{once}" respawn="true" respawn_max_retries="1"/>'
    )
    assert launch.run().exit_code == 0


@pytest.mark.parametrize(("code", "reason"), [(0, "has finished"), (4, "failed: exit code 4")])
def test_exit_of_a_process_may_end_the_launch(tmp_path, code, reason):
    end = script(tmp_path, "end.sh", f"exit {code}")
    launch, _ = runner(
        tmp_path,
        f'<executable cmd="sleep 100"/><executable cmd="{end}" on_exit="shutdown"/>'
        '<timer period="60"><log message="never"/></timer>',
    )
    result = launch.run()
    assert result.exit_code == (1 if code else 0)
    assert result.reason == f"bash-2 {reason}"
    assert marked_processes(launch) == []


def test_stop_interrupts_and_waits_for_a_clean_end(tmp_path):
    careful = script(
        tmp_path,
        "careful.sh",
        "trap 'echo saved; exit 0' INT; echo ready; while :; do sleep .05; done",
    )
    launch, lines = runner(tmp_path, f'<executable cmd="{careful}"/>')
    background = Background(launch)
    lines.wait_for("ready")
    launch.stop("enough")
    result = background.result()
    assert (result.exit_code, result.reason) == (0, "enough")
    assert "[bash-1] saved" in lines.text()
    assert not launch.processes["bash-1"].was_killed


def test_stop_leaves_nothing_behind_not_even_stubborn_grandchildren(tmp_path):
    deaf = script(tmp_path, "deaf.sh", "trap '' INT TERM; echo ready; while :; do sleep .05; done")
    parent = script(tmp_path, "parent.sh", f"setsid {deaf} & {deaf} & {deaf}")
    launch, lines = runner(
        tmp_path, f'<executable cmd="{parent}" sigterm_timeout="0.3" sigkill_timeout="0.2"/>'
    )
    background = Background(launch)
    lines.wait_for("ready\n[bash-1] ready\n[bash-1] ready")
    assert len(marked_processes(launch)) >= 4
    launch.stop()
    background.result()
    assert launch.processes["bash-1"].was_killed
    assert marked_processes(launch) == []


def test_further_stops_escalate_at_once(tmp_path):
    deaf = script(tmp_path, "deaf.sh", "trap '' INT TERM; echo ready; while :; do sleep .05; done")
    launch, lines = runner(
        tmp_path, f'<executable cmd="{deaf}" sigterm_timeout="60" sigkill_timeout="60"/>'
    )
    background = Background(launch)
    lines.wait_for("ready")
    launch.stop()
    lines.wait_for("shutting down")
    launch.stop()
    lines.wait_for("SIGTERM")
    launch.stop()
    assert background.result().exit_code == 0


def test_what_a_killed_process_left_behind_is_ended_before_its_respawn(tmp_path):
    parent = script(tmp_path, "parent.sh", "setsid sleep 100 & sleep .1; kill -9 $$")
    check = f'<executable cmd="{parent}" respawn="true" respawn_max_retries="1"/>'
    launch, lines = runner(tmp_path, check)
    launch.run()
    assert lines.text().count("ending 1 process(es) that it left behind") == 2
    assert marked_processes(launch) == []


def test_stop_ends_the_wait_for_a_respawn(tmp_path):
    launch, lines = runner(tmp_path, '<executable cmd="false" respawn="true" respawn_delay="60"/>')
    background = Background(launch)
    lines.wait_for("respawning in 60 s")
    launch.stop()
    background.result()


def test_stop_before_run_starts_nothing(tmp_path):
    launch, _ = runner(tmp_path, '<executable cmd="sleep 100"/>')
    launch.stop()
    launch.run()
    assert launch.processes == {}


def test_process_that_cannot_start_is_a_failure(tmp_path):
    launch, lines = runner(tmp_path, '<executable cmd="true" cwd="/no/such/folder"/>')
    assert launch.run().exit_code == 1
    assert "cannot be started" in lines.text()


def test_display_that_fails_stops_everything_and_is_reported(tmp_path):
    path = tmp_path / "test.launch.xml"
    path.write_text('<launch><executable cmd="sleep 100"/></launch>')

    def broken(_line: LaunchLine) -> None:
        raise BrokenPipeError("no reader")

    launch = LaunchRunner(load_launch_file(path), on_line=broken)
    with pytest.raises(BrokenPipeError):
        launch.run()
    assert marked_processes(launch) == []


def test_timer_starts_its_process_later(tmp_path):
    launch, lines = runner(
        tmp_path, '<timer period="0.2"><executable cmd="true"/></timer><log message="first"/>'
    )
    start = time.monotonic()
    launch.run()
    assert time.monotonic() - start >= 0.2
    assert lines.text().index("first") < lines.text().index("[true-1]")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_processes_of_a_killed_launcher_end_too(tmp_path):
    path = tmp_path / "test.launch.xml"
    path.write_text('<launch><executable cmd="sleep 100" output="screen"/></launch>')
    launcher = "import sys; from twinloop.launching import *; "
    launcher += "LaunchRunner(load_launch_file(sys.argv[1])).run()"
    with subprocess.Popen(
        [sys.executable, "-c", launcher, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(re.search(r"pid \[(\d+)\]", process.stdout.readline()).group(1))
        descriptor = os.pidfd_open(pid)
        process.kill()
        ended, _, _ = select.select([descriptor], [], [], 20)
        os.close(descriptor)
        assert ended
