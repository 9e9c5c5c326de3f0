# SPDX-License-Identifier: Apache-2.0
"""Policies learned in one process, and by a robot and a learner that do not wait for each other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gym_cell import Pendulum, pendulum
from twinloop.bags.episodes import episodes
from twinloop.bags.read import complete_bags, unfinished_bags
from twinloop.learning import checkpoint
from twinloop.learning.acting import POLICY, ActingSettings, NewestPolicy, act
from twinloop.learning.following_bags import STATE, FollowingSettings, follow
from twinloop.learning.off_policy import OffPolicyLearner, OffPolicySettings
from twinloop.learning.policy_run import PolicyRunSettings, learn_policy, try_policy
from twinloop.models.actor import Actor
from twinloop_sim import cells

from twinloop import tasks

torch.set_num_threads(1)
LEARNING = OffPolicySettings(hidden=(16, 16), batch=32, updates=0.2, first=40)
STEPS = 40


class Interrupted(Exception):
    pass


def weights(learner: OffPolicyLearner) -> list[torch.Tensor]:
    return list(learner.actor().state_tensors().values())


def test_an_interrupted_run_ends_in_the_same_policy(tmp_path: Path) -> None:
    run = PolicyRunSettings(transitions=5 * STEPS, steps=STEPS, save_every=2)

    def learn(folder: Path, give_up_after: int = 10**9) -> OffPolicyLearner:
        told = []

        def progress(*_: object) -> None:
            told.append(1)
            if len(told) == give_up_after:
                raise Interrupted

        task, cell = pendulum()
        return learn_policy(folder, task, cell, run, LEARNING, 0, progress)

    whole = learn(tmp_path / "whole")
    with pytest.raises(Interrupted):
        learn(tmp_path / "again", give_up_after=3)
    again = learn(tmp_path / "again")
    assert again.transitions == whole.transitions == 5 * STEPS
    assert again.updates == whole.updates == STEPS
    assert all(map(torch.equal, weights(whole), weights(again)))
    assert len(complete_bags(tmp_path / "again" / "bags")) == 5
    task, cell = pendulum()
    records = try_policy(task, cell, again.actor(), 10, 0, 2)
    assert [len(record.episode) for record in records] == [10, 10]


def test_robots_side_by_side_go_on_amid_a_round(tmp_path: Path) -> None:
    task = tasks.make("valve")
    learning = OffPolicySettings(
        hidden=(16,), batch=16, updates=0.2, first=30, about_pose=True, normalises=True
    )

    def learn(folder: Path) -> OffPolicyLearner:
        cell = cells.make("valve", 3)
        run = PolicyRunSettings(transitions=90, steps=10, save_every=2)
        made = learn_policy(folder, task, cell, run, learning, 0)
        cell.close()
        return made

    whole = learn(tmp_path / "whole")
    assert whole.updates == 18
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for state in (tmp_path / "again").glob("learner_*.pt"):
        state.unlink()
    for path in complete_bags(tmp_path / "again" / "bags")[-2:]:  # of a round of three
        shutil.rmtree(path)
    again = learn(tmp_path / "again")
    assert all(map(torch.equal, weights(whole), weights(again)))
    found = [
        episodes(path, task.contract)[0].observations
        for folder in ("whole", "again")
        for path in complete_bags(tmp_path / folder / "bags")[-2:]
    ]
    assert all(map(np.array_equal, found[:2], found[2:]))


def test_a_robot_takes_policies_of_a_learner_that_follows_it(tmp_path: Path) -> None:
    task, cell = pendulum()
    ended = threading.Event()
    acting = ActingSettings(steps=STEPS, period_s=0.004, first=40)
    found = []
    robot = threading.Thread(
        target=lambda: found.append(act(tmp_path, task, cell, acting, stop=ended.is_set))
    )
    robot.start()
    following = FollowingSettings(publish_s=0.2, save_s=1.0, transitions=4 * STEPS)
    try:
        followed = follow(tmp_path, Pendulum(), LEARNING, following)
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline and not checkpoint.load_model(tmp_path, POLICY):
            time.sleep(0.05)
        time.sleep(1.5)
    finally:
        ended.set()
        robot.join()
    assert followed.transitions >= 4 * STEPS
    assert followed.updates == int(0.2 * followed.transitions)
    assert found[0].swaps >= 1
    assert found[0].transitions == sum(1 for _ in found[0].periods_s) + len(found[0].returns)
    # Nothing is learned twice, and nothing forgotten.
    again = follow(tmp_path, Pendulum(), LEARNING, FollowingSettings(transitions=1))
    assert again.transitions == found[0].transitions
    assert again.updates == int(0.2 * again.transitions)
    newest = checkpoint.load_model(tmp_path, POLICY)
    assert newest is not None
    assert isinstance(newest[0], Actor)
    assert (tmp_path / STATE).exists()


ROBOT = """
import os, sys
from pathlib import Path
from gym_cell import pendulum
from twinloop.learning.acting import ActingSettings, act
task, cell = pendulum()
step, count = cell.step, 0
file = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
def counted(action):
    global count
    count += 1
    os.pwrite(file, b"%06d" % count, 0)
    return step(action)
cell.step = counted
act(Path(sys.argv[1]), task, cell, ActingSettings(steps=100_000, period_s=0.002, chunk_s=0.5))
"""


def test_a_robot_that_is_killed_loses_one_chunk_at_most(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": "benchmarks"}
    bag, count = tmp_path / "bags" / "episode_000000", tmp_path / "count"
    command = [sys.executable, "-c", ROBOT, str(tmp_path), str(count)]
    robot = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 200.0
        while time.monotonic() < deadline and int((count.exists() and count.read_text()) or 0) < 75:
            time.sleep(0.02)
    finally:
        robot.send_signal(signal.SIGKILL)
        robot.wait()
    assert unfinished_bags(tmp_path / "bags") == [bag]
    task, cell = pendulum()
    found = act(tmp_path, task, cell, ActingSettings(steps=5, transitions=1))
    assert complete_bags(tmp_path / "bags") == [bag]
    # A chunk holds 0.5 s at 20 Hz; the step that was interrupted comes on top.
    assert found.transitions >= int(count.read_text()) - 12
    learner = OffPolicyLearner(task, LEARNING)
    learner.add(episodes(bag, task.contract))
    assert learner.transitions >= found.transitions - 1


def test_a_policy_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    (tmp_path / f"{POLICY}.safetensors").write_bytes(b"nonsense")

    def watch() -> None:
        newest = NewestPolicy(tmp_path)
        time.sleep(1.0)
        newest.close()
        assert newest.take() is None

    with pytest.warns(UserWarning, match=r"the policy before goes on: .*policy\.safetensors"):
        watch()
