# SPDX-License-Identifier: Apache-2.0
"""`twinloop launch` as its user meets it: mistakes, Ctrl-C, and the Baoding cell itself."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from twinloop.dds import own_domain
from twinloop.launching import load_launch_file, read_arguments
from twinloop.launching.description import ParameterSet
from twinloop.launching.process_tree import MARK
from twinloop.learning.model_file import Candidate, Lineage, write_model
from twinloop.models import Ensemble
from twinloop.models.ensemble import EnsembleConfig
from twinloop.nodes.base import Node
from twinloop.nodes.parameters import ParameterSpec
from twinloop.paths import share

from twinloop import contract

COMMAND = [sys.executable, "-c", "from twinloop.cli.main import main; main()", "launch"]
PATIENCE_S = 120.0


class Launch:
    """A running `twinloop launch`, and what it prints."""

    def __init__(self, *words: str, cwd: Path) -> None:
        self.domain = own_domain()
        self._process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=cwd,
            env={**os.environ, **self.domain, "ROS_LOG_DIR": str(cwd / "log")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()

    def wait_for(self, pattern: str, after: int = 0) -> re.Match:
        """Return the first match in the lines from `after` on."""

        def found() -> re.Match | None:
            matches = (re.search(pattern, line) for line in self.lines[after:])
            return next((match for match in matches if match), None)

        with self._changed:
            match = self._changed.wait_for(found, timeout=PATIENCE_S)
        assert match, "\n".join(self.lines)
        return match

    def interrupt(self) -> float:
        """Send what Ctrl-C sends; return the seconds until the end."""
        start = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=PATIENCE_S)
        return time.monotonic() - start

    def wait(self) -> int:
        return self._process.wait(timeout=PATIENCE_S)

    def left(self) -> list[str]:
        """Return the command lines of all that runs and was started by this launch."""
        entry = f"ROS_DOMAIN_ID={self.domain['ROS_DOMAIN_ID']}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                entries = (folder / "environ").read_bytes().split(b"\0")
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if words and entry in entries and any(e.startswith(MARK.encode()) for e in entries):
                found.append(words)
        return found

    def close(self) -> None:
        if self._process.poll() is None:
            self.interrupt()
        self._reader.join()


@pytest.fixture
def launch(tmp_path) -> Iterator[type]:
    """Start launches in a folder of their own; what still runs at the end is stopped."""
    started: list[Launch] = []

    def start(*words: str) -> Launch:
        started.append(Launch(*words, cwd=tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.close()


def refused(*words: str) -> str:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_mistakes_end_with_one_line_that_names_them(tmp_path):
    broken = tmp_path / "broken.launch.xml"
    broken.write_text("<launch>\n  <arg name='speed'/>\n  <nodes/>\n</launch>")
    assert refused(str(broken)) == (
        f"error: {broken}:3: unsupported tag <nodes> inside <launch>; supported: arg, executable, "
        "group, include, let, log, node, push-ros-namespace, push_ros_namespace, set_env, timer, "
        "unset_env"
    )
    broken.write_text("<launch>\n  <arg name='speed'/>\n</launch>")
    assert f"{broken}:2: the argument 'speed' is required" in refused(str(broken))
    assert "there is no launch file 'bading'; known: baoding" in refused("bading")
    assert "unknown argument 'epsiodes'" in refused("baoding", "epsiodes:=3")
    assert "the argument 'twin' is 'gazebo'; expected one of" in refused("baoding", "twin:=gazebo")
    assert "malformed argument 'episodes=3'" in refused("baoding", "episodes=3")


def test_arguments_are_listed():
    done = subprocess.run(
        [*COMMAND, "baoding", "--show-args"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    for name in ("twin", "model", "episodes", "rtf", "record_dir", "learn", "namespace"):
        assert re.search(rf"^  {name}$", done.stdout, re.MULTILINE), done.stdout


def test_ctrl_c_leaves_nothing_after_five_seconds(launch, tmp_path):
    deaf = "trap '' INT TERM; echo ready; while :; do sleep .1; done"
    (tmp_path / "deaf.sh").write_text(f'setsid bash -c "{deaf}" & {deaf}')
    (tmp_path / "deaf.launch.xml").write_text(
        '<launch><executable cmd="bash $(dirname)/deaf.sh" output="screen"/></launch>'
    )
    running = launch("deaf.launch.xml")
    running.wait_for("ready")
    assert running.left()
    assert running.interrupt() <= 5.0
    assert running.left() == []


@pytest.mark.parametrize(
    ("twin", "eyes", "learn", "record"),
    list(
        itertools.product(
            ("mujoco", "pybullet", "none"),
            ("cameras", "standin", "none"),
            ("true", "false"),
            ("true", "false"),
        )
    ),
)
def test_every_parameter_of_the_baoding_cell_is_one_that_its_node_has(twin, eyes, learn, record):
    description = load_launch_file(
        share("launch", "baoding.launch.xml"),
        {
            "twin": twin,
            "eyes": eyes,
            "camera": "0",
            "learn": learn,
            "record": record,
            "namespace": "cell",
        },
    )
    nodes = {}
    for process in description.processes:
        executable = process.label.rpartition("-")[0]
        specs = parameters_of(executable)
        given = [word for word in process.command if isinstance(word, ParameterSet)]
        if not given:
            continue
        (values,) = given
        for name, value in values.values.items():
            if name != "use_sim_time":
                assert name in specs, f"{executable} has no parameter {name}"
                specs[name].check(value)
        nodes[values.node] = values.values
    supervised = nodes.pop("/cell/supervisor")["nodes"]
    # Nothing waits for those that only show: they start by themselves.
    for viewer in ("robot_state", "web"):
        assert "autostart" not in nodes.pop(f"/cell/{viewer}")
    assert {f"/cell/{name}" for name in supervised} == set(nodes)
    assert not any(values["autostart"] for values in nodes.values())
    assert ("/cell/twin" in nodes) == (twin != "none")
    assert ("/cell/tracker" in nodes) == (eyes == "cameras")
    assert ("/cell/cameras" in nodes) == (eyes == "cameras")
    assert ("/cell/learner" in nodes) == (learn == "true")
    assert ("/cell/recorder" in nodes) == (record == "true")


def parameters_of(executable: str) -> dict[str, ParameterSpec]:
    (script,) = entry_points(group="console_scripts", name=executable)
    module = importlib.import_module(script.module)
    (node,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Node) and value.__module__ == script.module
    ]
    autostart = ParameterSpec("autostart", True, "")
    return {spec.name: spec for spec in (autostart, *node.parameters)}


def test_the_baoding_launch_file_describes_each_argument():
    for argument in read_arguments(share("launch", "baoding.launch.xml")):
        assert argument.description, argument.name
        assert argument.default is not None, argument.name


@pytest.fixture
def model(tmp_path) -> Path:
    """A model that nobody trained: it predicts almost no change."""
    baoding = contract.load("baoding")
    where = baoding.slices["command"]
    config = EnsembleConfig(
        observation_size=baoding.observation_size,
        action_size=baoding.action_size,
        hidden=(32,),
        known=(where.start, where.stop),
    )
    ensemble = Ensemble(config)
    ensemble.difference_scale.mul_(1e-3)
    folder = tmp_path / "v0001"
    folder.mkdir()
    write_model(folder, Candidate(ensemble, baoding, Lineage(command="none")))
    return folder


def test_the_cell_runs_survives_its_supervisor_and_ends_on_ctrl_c(launch, model, tmp_path):
    cell = launch(
        "baoding", f"model:={model}", "episodes:=1000", "steps:=10", "lockstep:=true",
        "learn:=false", "namespace:=cell", "record_dir:=bags", "registry:=models",
    )  # fmt: skip
    ends = r"episode \S+ ends: (complete|dropped)"
    cell.wait_for(ends)
    pid = int(cell.wait_for(r"supervisor_node-\d+\]: process started with pid \[(\d+)\]").group(1))
    at = len(cell.lines)
    os.kill(pid, signal.SIGKILL)
    cell.wait_for("re-armed the guard", after=at)
    cell.wait_for(ends, after=len(cell.lines))
    assert cell.interrupt() <= 5.0
    assert cell.wait() == 0
    assert cell.left() == []
    assert not any("SIGKILL" in line for line in cell.lines[at + 1 :]), "\n".join(cell.lines[at:])
    assert list((tmp_path / "bags").glob("*/metadata.yaml"))
