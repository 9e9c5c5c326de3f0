# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orbiting_bags as orbit
import pytest
import torch
from twinloop.contract import Contract
from twinloop.learning import online_job
from twinloop.learning.journal import Journal
from twinloop.learning.model_file import Candidate
from twinloop.learning.online import Event, OnlineLearner
from twinloop.learning.online_job import LearnerBusy, LearnerConfig, run_job
from twinloop.learning.registry import Registry

FORK = multiprocessing.get_context("fork")


class Cell:
    """A bag folder and a registry whose running model knows almost nothing."""

    def __init__(self, root: Path) -> None:
        self.bags, self.root = root / "bags", root
        self.bags.mkdir()
        self.registry = Registry(root / "registry", orbit.CONTRACT)
        self.registry.promote(self.registry.add(Candidate(orbit.untrained_model(), orbit.CONTRACT)))

    def config(self, **changes: Any) -> LearnerConfig:
        values = {
            "task": "baoding",
            "record_dir": str(self.bags),
            "registry": str(self.root / "registry"),
            "train_updates": 80,
            "learning_rate": 2e-3,
            "priority": "normal",
        }
        return LearnerConfig(**values | changes)

    def record(self, count: int, steps: int = 60) -> None:
        start = len(list(self.bags.iterdir()))
        for seed in range(start, start + count):
            orbit.write(self.bags, f"episode_{seed:03d}", seed, steps)

    def journal(self) -> Journal:
        journal = Journal(self.config().journal_folder)
        assert journal.load() is None
        return journal

    def outcomes(self) -> dict[str, str]:
        return {Path(path).name: e.outcome for path, e in self.journal().entries.items()}

    def work(self, **changes: Any) -> list[Event]:
        """Run one job in this process."""
        events: list[Event] = []
        run_job(
            self.config(**changes),
            lambda kind, message, **values: events.append(Event(kind, message, values)),
        )
        return events

    def work_and_die(self, owner: object, name: str, value: object = None) -> None:
        """Run one job in a process that is killed where it calls `owner.name`, or by `value`."""

        def run() -> None:
            setattr(owner, name, value or die)
            self.work()

        process = FORK.Process(target=run)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    torch.set_num_threads(1)
    return Cell(tmp_path)


@pytest.fixture
def learners() -> Iterator[list[OnlineLearner]]:
    started: list[OnlineLearner] = []
    yield started
    for learner in started:
        learner.stop()


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events if event.kind != "progress"]


def until(learner: OnlineLearner, done: Callable[[list[Event]], bool]) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + 60
    while not done(events):
        assert time.monotonic() < deadline, f"only {events} within 60 s"
        events += learner.poll()
        time.sleep(0.02)
    return events


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_new_bags_become_a_promoted_model_in_a_process_of_the_lowest_priority(
    cell: Cell, learners: list[OnlineLearner]
):
    cell.record(3)
    (cell.bags / "still_recording").mkdir()
    shutil.copytree(cell.bags / "episode_000", cell.bags / "corrupt")
    for file in (cell.bags / "corrupt").glob("*.mcap"):
        os.truncate(file, file.stat().st_size // 2)
    learner = OnlineLearner(cell.config(priority="idle"))
    learners.append(learner)
    started = until(learner, lambda events: "bag_read" in kinds(events))
    pid = learner.child_pid
    assert pid is not None
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    events = started + until(learner, lambda events: "finished" in kinds(events))

    assert kinds(events)[-2:] == ["promoted", "finished"]
    refused = next(event for event in events if event.kind == "bag_refused")
    assert str(cell.bags / "corrupt") in refused.message
    assert cell.registry.current() == "v0002"
    about = cell.registry.manifest("v0002")
    assert about.decision is not None
    assert about.decision.running is not None
    assert about.decision.candidate.seven_step_mm < about.decision.running.seven_step_mm
    assert about.lineage.parent == "v0001"
    assert set(about.lineage.episodes) | set(about.lineage.held_out) == {
        "episode_000",
        "episode_001",
        "episode_002",
    }
    assert not set(about.lineage.episodes) & set(about.lineage.held_out)
    assert learner.refused == 1
    assert learner.transitions == 180
    assert not is_alive(pid)


def test_a_learner_killed_while_it_trains_takes_its_child_along_and_the_next_goes_on(
    cell: Cell, learners: list[OnlineLearner]
):
    cell.record(2)
    endless = cell.config(train_updates=10**8, train_seconds=1e6)
    code = """
import sys, time
from twinloop.learning.online import OnlineLearner
from twinloop.learning.online_job import LearnerConfig
learner = OnlineLearner(LearnerConfig.model_validate_json(sys.argv[1]))
while True:
    for event in learner.poll():
        print(event.kind, learner.child_pid, flush=True)
    time.sleep(0.02)
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, endless.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout is not None
    line = next(line for line in holder.stdout if line.startswith("progress"))
    child = int(line.split()[1])
    assert is_alive(child)
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline, "the training process outlived its learner"
        time.sleep(0.02)
    assert cell.registry.versions() == ["v0001"]

    learner = OnlineLearner(cell.config())
    learners.append(learner)
    events = until(learner, lambda events: "finished" in kinds(events))
    # The bags were read by the one that was killed; they are not read again.
    assert kinds(events) == ["started", "training", "candidate", "promoted", "finished"]
    assert cell.registry.current() == "v0002"


FAILS_ONCE = """
import json, os, sys
if os.path.exists(sys.argv[1]):
    print(json.dumps({"kind": "waiting", "message": "nothing to do"}), flush=True)
else:
    open(sys.argv[1], "w").close()
    os.abort()
"""


def test_a_child_that_crashes_is_reported_and_started_again(
    cell: Cell, learners: list[OnlineLearner]
):
    command = (sys.executable, "-c", FAILS_ONCE, str(cell.root / "failed"))
    learner = OnlineLearner(cell.config(), command=command)
    learners.append(learner)
    events = until(learner, lambda events: "crashed" in kinds(events))
    assert "signal 6" in events[-1].message
    assert learner.failures == 1
    events = until(learner, lambda events: "finished" in kinds(events))
    assert kinds(events) == ["started", "waiting", "finished"]
    assert learner.failures == 0


def test_a_child_that_hangs_is_ended_after_its_time(cell: Cell, learners: list[OnlineLearner]):
    command = (sys.executable, "-c", "import time; time.sleep(1000)")
    learner = OnlineLearner(cell.config(), job_timeout_s=0.2, command=command)
    learners.append(learner)
    events = until(learner, lambda events: "crashed" in kinds(events))
    assert "longer than 0.2 s" in events[-1].message
    assert not is_alive(events[0].values["pid"])


def test_stop_ends_the_child_at_once(cell: Cell):
    command = (sys.executable, "-c", "import time; time.sleep(1000)")
    learner = OnlineLearner(cell.config(), command=command)
    events = until(learner, lambda events: "started" in kinds(events))
    learner.stop()
    assert not learner.is_training
    assert not is_alive(events[0].values["pid"])


def test_a_job_waits_until_enough_episodes_are_there(cell: Cell):
    cell.record(1)
    assert kinds(cell.work()) == ["bag_read", "waiting"]
    assert kinds(cell.work()) == ["waiting"]
    cell.record(1)
    assert kinds(cell.work()) == ["bag_read", "training", "candidate", "promoted"]
    assert kinds(cell.work()) == ["waiting"]


def test_held_out_episodes_stay_held_out_and_are_never_trained_on(cell: Cell):
    held_out: set[str] = set()
    for _ in range(3):
        cell.record(2)
        cell.work()
        now = {name for name, outcome in cell.outcomes().items() if outcome == "held_out"}
        assert held_out <= now
        held_out = now
    assert held_out
    for version in cell.registry.versions():
        assert not set(cell.registry.manifest(version).lineage.episodes) & held_out
    # A journal that is lost is made again from the bags, with the same split.
    (cell.config().journal_folder / "journal.json").unlink()
    cell.work()
    assert {name for name, outcome in cell.outcomes().items() if outcome == "held_out"} <= held_out


def test_older_episodes_are_mixed_in_up_to_the_limit(cell: Cell):
    older: set[str] = set()
    for count, room, mixed_in in ((2, 0, 0), (4, 0, 0), (4, 119, 1), (4, 10_000, None)):
        cell.record(count)
        cell.work(replay_transitions=room, train_updates=5)
        lineage = cell.registry.manifest(cell.registry.versions()[-1]).lineage
        used = set(lineage.episodes)
        assert len(used & older) == (len(older) if mixed_in is None else mixed_in)
        assert lineage.transitions == 60 * len(used)
        older |= {name for name, outcome in cell.outcomes().items() if outcome == "training"}
        assert used - older == set()


def test_a_worse_candidate_is_rejected_and_the_running_model_stays(cell: Cell):
    cell.record(2)
    cell.work()
    cell.record(2)
    events = cell.work(learning_rate=3.0)
    assert kinds(events)[-1] == "rejected"
    assert cell.registry.current() == "v0002"
    assert cell.registry.manifest("v0003").status == "rejected"


def test_without_a_usable_model_a_new_one_is_trained_from_scratch(cell: Cell):
    cell.record(2)
    os.truncate(cell.registry.path("v0001") / "weights.safetensors", 100)
    events = cell.work(train_updates=3)
    assert "running_invalid" in kinds(events)
    assert "from scratch" in next(e.message for e in events if e.kind == "training")
    decision = cell.registry.manifest("v0002").decision
    assert decision is not None
    assert decision.compared_with is None


def test_where_the_running_model_is_broken_the_one_before_is_trained_on(cell: Cell):
    cell.record(2)
    cell.work()
    os.truncate(cell.registry.path("v0002") / "weights.safetensors", 100)
    cell.record(2)
    cell.work()
    assert cell.registry.manifest("v0003").lineage.parent == "v0001"
    assert cell.registry.current() == "v0003"


@pytest.mark.parametrize("name", ["add", "decide", "_point_to", "prune"])
def test_a_job_killed_at_any_point_is_finished_by_the_next(cell: Cell, name: str):
    cell.record(2)
    cell.work_and_die(Registry, name)
    cell.work()
    current = cell.registry.current()
    assert current in ("v0002", "v0003")
    decided = [cell.registry.manifest(version).status for version in cell.registry.versions()]
    assert "candidate" not in decided[1:]
    assert cell.journal().unused() == 0


def test_a_bag_that_kills_its_reader_is_given_up_and_the_others_are_learned_from(cell: Cell):
    cell.record(3)
    read = online_job.read_bag

    def deadly(bag: Path, contract: Contract) -> object:
        return die() if bag.name == "episode_001" else read(bag, contract)

    for _ in range(2):
        cell.work_and_die(online_job, "read_bag", deadly)
    events = cell.work()
    assert "died on it 2 times" in next(e.message for e in events if e.kind == "bag_refused")
    assert kinds(events)[-1] == "promoted"
    assert cell.outcomes()["episode_001"] == "refused"


def test_a_refused_bag_is_read_again_once_it_is_mended(cell: Cell):
    cell.record(2)
    metadata = cell.bags / "episode_001" / "metadata.yaml"
    good = metadata.read_text()
    metadata.write_text("half a li")
    assert "bag_refused" in kinds(cell.work())
    assert kinds(cell.work()) == ["waiting"]
    metadata.write_text(good)
    assert "promoted" in kinds(cell.work())


def test_a_bag_of_another_contract_is_refused(cell: Cell):
    cell.record(1)
    metadata = cell.bags / "episode_000" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(orbit.CONTRACT.hash(), "0" * 16))
    events = cell.work()
    assert "contract" in next(e.message for e in events if e.kind == "bag_refused")


def test_a_broken_journal_or_cache_is_made_again_from_the_bags(cell: Cell):
    cell.record(2)
    cell.work()
    folder = cell.config().journal_folder
    (folder / "journal.json").write_text('{"bags": ')
    for arrays in (folder / "episodes").iterdir():
        os.truncate(arrays, 100)
    cell.record(2)
    events = cell.work()
    assert kinds(events)[0] == "journal"
    assert kinds(events).count("bag_read") == 4
    assert kinds(events)[-1] in ("promoted", "rejected")


def test_only_one_learner_works_on_a_registry(cell: Cell):
    cell.work()
    with (cell.config().journal_folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LearnerBusy, match="another learner"):
            cell.work()


def test_replayed_folders_are_trained_on_but_not_waited_for(cell: Cell, tmp_path: Path):
    other = tmp_path / "demonstrations"
    other.mkdir()
    for seed in range(3):
        orbit.write(other, f"demonstration_{seed}", 100 + seed)
    assert kinds(cell.work(replay_dirs=(str(other),)))[-1] == "waiting"
    cell.record(2)
    assert "promoted" in kinds(cell.work(replay_dirs=(str(other),)))
    about = cell.registry.manifest("v0002").lineage
    seen = {*about.episodes, *about.held_out}
    assert {f"demonstration_{seed}" for seed in range(3)} <= seen


def test_a_child_ends_in_the_middle_of_training_when_its_input_closes(cell: Cell):
    cell.record(2)
    child = subprocess.Popen(
        [sys.executable, "-m", "twinloop.learning.online_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    endless = cell.config(train_updates=10**8, train_seconds=1e6)
    child.stdin.write(endless.model_dump_json() + "\n")
    child.stdin.flush()
    said = []
    for line in child.stdout:
        said.append(json.loads(line))
        if said[-1]["kind"] == "progress":
            break
    assert [event["kind"] for event in said][:3] == ["bag_read", "bag_read", "training"]
    child.stdin.close()
    # Its output is still open, so that nothing but the end of its input tells it.
    for _ in child.stdout:
        continue
    assert child.wait(10) == 0
    child.stdout.close()
