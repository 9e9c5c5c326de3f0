# SPDX-License-Identifier: Apache-2.0
"""The Baoding cell with a policy that acts: it learns from the bags of this very run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from twinloop.bags.episodes import episodes
from twinloop.bags.errors import BagError
from twinloop.bags.read import complete_bags
from twinloop.dds import own_domain
from twinloop.learning.model_file import Candidate, write_model
from twinloop.learning.registry import Registry
from twinloop.models.actor import Actor
from twinloop.models.ensemble import Ensemble, EnsembleConfig

from twinloop import contract as contracts

COMMAND = [sys.executable, "-c", "from twinloop.cli.main import main; main()", "launch", "baoding"]
CONTRACT = contracts.load("baoding")
PATIENCE_S = 240.0
# What is to be seen, in this order.
EXPECTED = (
    r"planner\]: plans baoding with model v0001",
    r"learner\]: promoted: v0002: its actions are finite",
    r"planner\]: plans with model v0002 from now on",
    r"learner\]: promoted: v0003: its actions are finite",
    r"planner\]: plans with model v0003 from now on",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that is no policy: with it the robot moves at random."""
    config = EnsembleConfig(
        observation_size=CONTRACT.observation_size,
        action_size=CONTRACT.action_size,
        hidden=(8,),
    )
    folder = tmp_path / "v0001"
    folder.mkdir()
    write_model(folder, Candidate(Ensemble(config), CONTRACT))
    return folder


def test_policies_learned_from_the_bags_of_a_run_take_over_between_its_steps(
    tmp_path: Path, model: Path
) -> None:
    words = [
        "planner:=policy", "eyes:=standin", "lockstep:=true", "busy:=true", "steps:=10",
        "episodes:=1000", "episodes_per_candidate:=2", "first_transitions:=20", "web:=false",
        "markers:=false", "robot_state:=none", f"model:={model}", "record_dir:=bags",
        "registry:=registry",
    ]  # fmt: skip
    running = subprocess.Popen(
        [*COMMAND, *words],
        cwd=tmp_path,
        env={**os.environ, **own_domain(), "ROS_LOG_DIR": str(tmp_path / "log")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    guard = threading.Timer(PATIENCE_S, running.kill)
    guard.start()
    assert running.stdout is not None
    said, left = [], list(EXPECTED)
    try:
        for line in running.stdout:
            said.append(line)
            if left and re.search(left[0], line):
                left.pop(0)
            # One more episode, so that the newest policy has acted in a bag.
            if not left and re.search(r"planner\]: episode \S+ ends: ", line):
                running.send_signal(signal.SIGINT)
                break
        rest, _ = running.communicate()
    finally:
        guard.cancel()
        if running.poll() is None:
            running.kill()
            running.wait()
    assert not left, "".join(said)
    assert running.returncode == 0, rest

    registry = Registry(tmp_path / "registry", CONTRACT)
    planned_by: set[str] = set()
    names = set()
    for bag in complete_bags(tmp_path / "bags"):
        try:
            runs = episodes(bag, CONTRACT)
        except BagError:  # one that Ctrl-C cut off before its second step
            continue
        names.add(str(runs[0].meta["episode_id"]))
        planned_by |= {version for one in runs for version in one.meta["planned_by"]}
    assert {"v0001", "v0002", "v0003"} <= planned_by
    first = registry.load("v0002")
    assert isinstance(first.model, Actor)
    assert set(first.manifest.lineage.episodes) <= names
    updates = first.manifest.metrics["updates"]
    assert updates is not None
    # The ratio of config/training/baoding.yaml is one.
    assert 0 < updates <= first.manifest.lineage.total_transitions
    assert (tmp_path / "registry" / "baoding" / "learner" / "learner.pt").is_file()
