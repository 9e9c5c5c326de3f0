# SPDX-License-Identifier: Apache-2.0
"""Fault rows 27 and 28: a recorder that is killed, and one whose disk is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bag_processes import Observer, Processes, interrupt, wait_for_line, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from full_disk import small_disk
from rows import Row
from twin_station import CUP, Station
from twinloop.bags import check, complete_bags, metadata, read_messages, unfinished_bags
from twinloop.bags.episodes import episode
from twinloop.bags.repair import repair
from twinloop.dds import leave_domain, take_domain
from twinloop.nodes import qos

from twinloop import contract
from twinloop_interfaces.msg import EpisodeStatus, GuardStatus

CHUNK_BYTES = 16 * 1024
MESSAGE_BYTES = 500
VICTIM = Path(__file__).parents[1] / "unit" / "bag_victim.py"
CONTRACT = contract.load("baoding")


@pytest.fixture
def domain() -> Iterator[int]:
    taken = take_domain()
    yield taken
    leave_domain(taken)


@pytest.mark.fault(27, "a writer")
@pytest.mark.parametrize("before_the_kill", [30, 700, 2500])
def test_row_27_a_killed_writer_loses_at_most_one_chunk(
    row: Row, tmp_path: Path, before_the_kill: int
) -> None:
    bag = tmp_path / "bag"
    process = subprocess.Popen(
        [sys.executable, str(VICTIM), str(bag), str(CHUNK_BYTES)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(VICTIM.parent), *sys.path])},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= before_the_kill:
            break
    process.send_signal(signal.SIGKILL)
    taken = int((line + process.stdout.read()).split()[-1]) + 1
    process.wait()
    report = repair(bag)
    kept = [int(m.decode().data) for m in read_messages(bag)]
    assert kept == list(range(len(kept))), "the kept messages are the first ones, in order"
    assert report.messages_kept == len(kept)
    assert report.episode is not None
    assert report.episode.episode_id == "one"
    assert check.check(bag).is_sound
    lost = (taken - len(kept)) * MESSAGE_BYTES
    row.measured(
        "lost, of messages taken by a writer of 16 KiB chunks", lost, "bytes", at_most=CHUNK_BYTES
    )


@pytest.mark.fault(27, "the recorder")
def test_row_27_a_killed_recorder_leaves_a_bag_that_the_next_one_repairs(
    row: Row, domain: int, tmp_path: Path
) -> None:
    def is_long(folder: Path) -> bool:
        return any(file.stat().st_size > 200_000 for file in folder.glob("*.mcap"))

    first_part = tmp_path / "episode_000000_synthetic-0"
    with Processes(domain) as processes, Observer(domain) as observer:
        first = processes.recorder(tmp_path, chunk_kib=16)
        cell = processes.cell(episodes=1, steps=1000)
        wait_for_line(cell, "started")
        wait_until(lambda: is_long(first_part))
        first.send_signal(signal.SIGKILL)
        first.wait()
        written = next(first_part.glob("*.mcap")).stat().st_size
        assert unfinished_bags(tmp_path) != []
        second = processes.recorder(tmp_path)
        part = tmp_path / "episode_000000_synthetic-0_part2"
        wait_until(lambda: is_long(part))
        wait_until(lambda: observer.values("/recorder").get("repaired") == "1")
        assert interrupt(second) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "episode_000000_synthetic-0",
        "episode_000000_synthetic-0.broken",
        "episode_000000_synthetic-0_part2",
    ]
    repaired, rest = complete_bags(tmp_path)
    about = metadata(repaired).episode
    assert about is not None
    assert about.repair is not None
    kept = sum(len(m.cdr) for m in read_messages(repaired))
    assert kept > 0.7 * written
    for bag in (repaired, rest):
        assert check.check(bag, CONTRACT).is_sound
        assert len(episode(bag, CONTRACT)) > 0
    row.measured("lost of what was on the disk", about.repair["bytes_lost"], "bytes", at_most=0)


@pytest.mark.fault(28, "twin and recorder")
def test_row_28_a_full_disk_is_an_error_of_the_recorder_alone(
    row: Row, is_kept: bool, tmp_path: Path
) -> None:
    # A busy machine's own silences are no stops.
    station = Station(command_timeout_s=5.0, lease_s=5.0)
    said: dict[str, DiagnosticStatus] = {}

    def hear(array: DiagnosticArray) -> None:
        said.update({status.name.rpartition("/")[2]: status for status in array.status})

    def recorder(key: str) -> str:
        values = said["recorder"].values if "recorder" in said else []
        return {value.key: value.value for value in values}.get(key, "")

    try:
        node = station.node
        node.create_subscription(DiagnosticArray, "/diagnostics", hear, qos.DIAGNOSTICS)
        episodes = node.create_publisher(EpisodeStatus, "episode_status", qos.latched())
        process = station.start(
            "twinloop.nodes.recorder",
            before=small_disk(tmp_path, 200),
            record_dir=tmp_path,
            source="mujoco",
            min_free_mb=0.0,
        )
        station.spin_until(lambda: recorder("state") == "active", 90.0)
        assert station.reset().success
        station.drive(lambda k: CUP + 0.05 * np.sin(0.5 * k))
        station.spin_until(lambda: station.state == GuardStatus.ACTIVE)
        seen, applied = len(station.record.statuses), len(station.record.applied)
        commanded = len(station.commanded)
        episodes.publish(EpisodeStatus(episode_id="one", phase=EpisodeStatus.RUNNING))
        station.spin_until(lambda: recorder("failures") == "1", 60.0)
        station.spin_until(lambda: said["recorder"].level == DiagnosticStatus.ERROR)
        told = said["recorder"].message
        assert "No space left" in told or "File too large" in told
        station.spin(1.0)
        station.driver = None
        station.spin(0.2)
        assert recorder("state") == "active"
        assert process.poll() is None
        lost = len(station.commanded) - commanded - len(station.record.applied) + applied
        stops = [s.reason for s in station.record.statuses[seen:] if s.state != GuardStatus.ACTIVE]
        # A busy machine keeps this process, which commands, from being alive for long enough.
        stops = [reason for reason in stops if is_kept or reason != "command source lost"]
        assert interrupt(process) == 0
    finally:
        station.close()
    row.measured("stops of the control loop", len(stops), at_most=0)
    row.measured("commands that were not applied", max(lost, 0), at_most=0)
