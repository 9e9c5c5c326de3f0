# SPDX-License-Identifier: Apache-2.0
"""The learner node over real DDS: bags in, announcements out, kills in between."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bag_processes import Observer, Processes, interrupt, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from twinloop.dds import take_domain
from twinloop.learning.model_file import Candidate
from twinloop.learning.registry import Registry
from twinloop.nodes import qos

from twinloop_interfaces.msg import ModelAnnouncement

sys.path.append(str(Path(__file__).parents[1] / "unit"))
import orbiting_bags as orbit

DOMAIN = take_domain()
PROMOTED, REJECTED = ModelAnnouncement.PROMOTED, ModelAnnouncement.REJECTED


class Listener(Observer):
    """Keeps every announcement, and counts the learner's beats while a job runs."""

    def __init__(self, domain: int) -> None:
        self.announced: list[ModelAnnouncement] = []
        self.beats_in_training = 0
        super().__init__(domain)
        self.node.create_subscription(
            ModelAnnouncement, "model", self.announced.append, qos.latched(10)
        )

    def _take(self, array: DiagnosticArray) -> None:
        super()._take(array)
        self.beats_in_training += self.values("/learner").get("training") == "true"

    def versions(self) -> list[tuple[str, int]]:
        return [(message.version, message.status) for message in self.announced]


@pytest.fixture
def processes() -> Iterator[Processes]:
    with Processes(DOMAIN) as running:
        yield running


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(DOMAIN) as listening:
        yield listening


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry", orbit.CONTRACT)
    registry.promote(registry.add(Candidate(orbit.untrained_model(), orbit.CONTRACT)))
    return registry


def learner(processes: Processes, folder: Path, **parameters: object):
    given = {
        "registry": folder / "registry",
        "record_dir": folder / "bags",
        "model": "none",
        "train_updates": 80,
        "learning_rate": 0.002,
        "priority": "normal",
    }
    return processes.node("twinloop.nodes.learner", **given | parameters)


def child_of(pid: int) -> int | None:
    """Return the training process of a learner, None where none runs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_bags_become_an_announced_promotion_and_the_heart_goes_on_beating(
    processes: Processes, listener: Listener, registry: Registry, tmp_path: Path
):
    for seed in range(2):
        orbit.write(tmp_path / "bags", f"episode_{seed}", seed)
    corrupt = orbit.write(tmp_path / "bags", "corrupt", 9)
    for file in corrupt.glob("*.mcap"):
        os.truncate(file, file.stat().st_size // 2)
    first = learner(processes, tmp_path)
    wait_until(lambda: listener.versions() == [("v0001", PROMOTED)])
    wait_until(lambda: len(listener.announced) == 2, 120.0)
    news = listener.announced[1]
    assert (news.version, news.status, news.task) == ("v0002", PROMOTED, "baoding")
    assert news.path == str(registry.path("v0002"))
    assert registry.current() == "v0002"
    assert 0 < news.error_one_step_mm < news.error_seven_step_mm < 20
    assert (news.episodes, news.transitions) == (1, 60)
    assert "seven-step error over bands" in news.reason
    assert listener.beats_in_training > 3
    wait_until(lambda: listener.values("/learner").get("refused_bags") == "1")

    registry.promote("v0001")
    wait_until(lambda: listener.versions()[2:] == [("v0001", PROMOTED)])
    assert listener.announced[2].reason == "by hand"
    assert interrupt(first) == 0


def test_after_a_kill_in_the_middle_of_training_the_next_learner_goes_on(
    processes: Processes, listener: Listener, registry: Registry, tmp_path: Path
):
    for seed in range(2):
        orbit.write(tmp_path / "bags", f"episode_{seed}", seed)
    first = learner(processes, tmp_path, train_updates=10**8, train_seconds=100000.0)
    wait_until(lambda: "epoch" in listener.values("/learner").get("last", ""), 120.0)
    child = child_of(first.pid)
    assert child is not None
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_until(lambda: not is_alive(child))
    assert registry.versions() == ["v0001"]

    second = learner(processes, tmp_path)
    wait_until(lambda: ("v0002", PROMOTED) in listener.versions(), 120.0)
    assert registry.current() == "v0002"
    assert interrupt(second) == 0


def test_a_model_to_begin_with_that_is_broken_is_an_error_at_start(
    processes: Processes, listener: Listener, registry: Registry, tmp_path: Path
):
    model = registry.path("v0001")
    os.truncate(model / "weights.safetensors", 100)
    node = learner(processes, tmp_path, model=model)
    assert node.wait(timeout=120) == 2
    assert "is 100 bytes long, expected" in processes.said(node)
    assert listener.announced == []


def test_rejections_are_announced_and_the_running_model_stays_known(
    processes: Processes, listener: Listener, registry: Registry, tmp_path: Path
):
    orbit.write(tmp_path / "bags", "episode_0", 0)
    orbit.write(tmp_path / "bags", "episode_1", 1)
    node = learner(processes, tmp_path, learning_rate=9.0)
    wait_until(lambda: ("v0002", REJECTED) in listener.versions(), 120.0)
    assert registry.current() == "v0001"
    wait_until(lambda: listener.values("/learner").get("rejections") == "1")
    status = listener.statuses["/learner"]
    assert status.level == DiagnosticStatus.OK
    assert interrupt(node) == 0
