# SPDX-License-Identifier: Apache-2.0
"""`twinloop demo` end to end: real nodes over DDS, a learner, bags, report and plots."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from twinloop.bags.check import check
from twinloop.bags.episodes import episodes
from twinloop.bags.read import complete_bags, metadata, unfinished_bags
from twinloop.cli.monitor import Monitor
from twinloop.dds import own_domain
from twinloop.launching.process_tree import MARK
from twinloop.learning.model_file import Candidate, write_model
from twinloop.learning.registry import Registry
from twinloop.models.ensemble import Ensemble, EnsembleConfig
from twinloop.reporting.live import CellState, LiveDisplay

from twinloop import contract as contracts

COMMAND = [sys.executable, "-c", "from twinloop.cli.main import main; main()", "demo"]
CONTRACT = contracts.load("baoding")
PATIENCE_S = 200.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that nobody trained: it predicts almost no change."""
    where = CONTRACT.slices["command"]
    config = EnsembleConfig(
        observation_size=CONTRACT.observation_size,
        action_size=CONTRACT.action_size,
        hidden=(32,),
        known=(where.start, where.stop),
    )
    ensemble = Ensemble(config)
    ensemble.difference_scale.mul_(1e-3)
    folder = tmp_path / "v0001"
    folder.mkdir()
    write_model(folder, Candidate(ensemble, CONTRACT))
    return folder


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """A domain of the test's own; nothing that was launched in it may be left at the end."""
    domain = own_domain()
    yield {**os.environ, **domain}
    entry = f"ROS_DOMAIN_ID={domain['ROS_DOMAIN_ID']}".encode()
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            entries = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if entry in entries and any(one.startswith(MARK.encode()) for one in entries):
            left.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    assert left == []


def test_a_short_demo_leaves_bags_a_report_and_plots(
    tmp_path: Path, model: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "run"
    words = ["--episodes", "2", "--steps", "20", "--seed", "3", "--model", str(model)]
    done = subprocess.run(
        [*COMMAND, *words, "--out", str(out), "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((out / "report.json").read_text())
    # Progress in plain lines, as the output is no terminal.
    assert "\x1b" not in done.stderr
    assert re.search(r"^episode 2/2, running, step 0/20, ", done.stderr, re.MULTILINE)
    assert len(re.findall(r"^episode \d: -?\d+ deg in \d+ steps, ", done.stderr, re.MULTILINE)) >= 2

    bags = complete_bags(out / "bags")
    assert unfinished_bags(out / "bags") == []
    reports = {bag.name: check(bag, CONTRACT) for bag in bags}
    assert all(one.is_sound for one in reports.values()), reports
    told = [metadata(bag).episode for bag in bags]
    assert {one["id"] for one in report["episodes"]} == {about.episode_id for about in told}
    ended = [about for about in told if about.stop_reason in ("complete", "dropped")]
    assert [about.seed for about in ended] == [3, 4]

    summary = report["summary"]
    assert summary["episodes"] == len(bags)
    assert summary["model_versions"] == ["v0001"]
    assert summary["late_steps_pct"] is not None
    assert 0.0 < summary["plan_ms"]["p50"] <= summary["plan_ms"]["p99"]
    learnable = sum(len(run) for bag in bags for run in episodes(bag, CONTRACT))
    assert summary["transitions"] == learnable
    by_id = {about.episode_id: about for about in told}
    for one in report["episodes"]:
        about = by_id[one["id"]]
        assert (one["steps"], one["dropped"]) == (about.steps, about.dropped)
        # What the episode node counted live from the planner's observations.
        assert one["rotation_deg"] == pytest.approx(about.rotation_deg, abs=0.01)

    assert Registry(out / "registry", CONTRACT).current() == "v0001"
    log = (out / "log.txt").read_text()
    assert "[learner]: learns baoding from bags in" in log
    for name in ("rotation", "plan_time", "frames"):
        assert (out / f"{name}.png").stat().st_size > 10_000


def test_ctrl_c_ends_the_demo_and_reports_what_is_there(
    tmp_path: Path, model: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "run"
    words = ["--episodes", "1000", "--steps", "10", "--no-learn", "--model", str(model)]
    words += ["--eyes", "standin"]
    running = subprocess.Popen(
        [*COMMAND, *words, "--out", str(out)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(PATIENCE_S, running.kill)
    guard.start()
    assert running.stdout is not None
    try:
        for line in running.stdout:
            if line.startswith("episode 2/1000, running"):
                running.send_signal(signal.SIGINT)
                break
        shown, complaints = running.communicate()
    finally:
        guard.cancel()
    assert running.returncode == 1
    assert "of 1000 episodes ran; stopped by SIGINT; see" in complaints
    report = json.loads((out / "report.json").read_text())
    # An episode that is interrupted may have two bags.
    assert 2 <= report["summary"]["episodes"] <= len(complete_bags(out / "bags"))
    assert report["episodes"][0]["stop_reason"] in ("complete", "dropped")
    assert str(out / "report.json") in shown


def test_a_graph_that_plans_no_step_is_ended() -> None:
    reasons: list[str] = []
    stopped = threading.Event()

    def stop(reason: str) -> None:
        reasons.append(reason)
        stopped.set()

    state = CellState(episodes=1, steps=10)
    console = Console(file=io.StringIO())
    os.environ |= own_domain()
    with (
        LiveDisplay(console, state) as display,
        Monitor(state, display, stop, stall_s=0.5) as monitor,
    ):
        assert stopped.wait(30.0)
    assert reasons == ["no control step for 1 s (starting)"]
    assert monitor.fault == reasons[0]
