# SPDX-License-Identifier: Apache-2.0
"""Broken bags: killed writers, cut files, flipped bytes, files made to do harm."""

from __future__ import annotations

import os
import random
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from bag_samples import CONTRACT, STRING, about, random_rollout, rollout_bag, text_message
from hypothesis import given, settings
from hypothesis import strategies as st
from twinloop.bags import BagError, EpisodeWriter, metadata, read_messages
from twinloop.bags.check import check
from twinloop.bags.episodes import episode
from twinloop.bags.records import CHUNK, MAGIC, ChunkRecord, McapFile
from twinloop.bags.repair import NothingLeft, repair, repair_unfinished

_CHUNK_BYTES = 16 * 1024


def only_file(bag: Path) -> Path:
    return next(bag.glob("*.mcap"))


def chunks(path: Path) -> list[ChunkRecord]:
    with McapFile(path) as file:
        return [record for record in file.records() if isinstance(record, ChunkRecord)]


def broken_copy(bag: Path, target: Path, content: bytes) -> Path:
    """Copy a bag without its metadata and with other bytes in its file."""
    target.mkdir()
    (target / "bag.mcap").write_bytes(content)
    return target


def raw_messages(bag: Path) -> list[tuple[str, int, bytes]]:
    return [(m.topic, m.log_time_ns, m.cdr) for m in read_messages(bag)]


@pytest.fixture(scope="module")
def sound_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rollout_bag(tmp_path_factory.mktemp("sound") / "bag", steps=60)


def test_a_file_cut_anywhere_keeps_every_whole_chunk(sound_bag: Path, tmp_path: Path) -> None:
    content = only_file(sound_bag).read_bytes()
    found = chunks(only_file(sound_bag))
    everything = raw_messages(sound_bag)
    edges = [c.offset + d for c in found[:3] for d in (0, 1, 9, 40, c.length - 1, c.length)]
    inside = np.linspace(1, len(content) - 1, 20).astype(int).tolist()
    for number, cut in enumerate(sorted({*edges, *inside})):
        bag = broken_copy(sound_bag, tmp_path / f"cut{number}", content[:cut])
        whole = [c for c in found if c.offset + c.length <= cut]
        if not whole:
            with pytest.raises(NothingLeft, match="holds no readable message"):
                repair(bag)
            assert only_file(bag).read_bytes() == content[:cut], "nothing was touched"
            continue
        repair(bag, keep_original=False)
        expected = sum(len(c.contents) for c in whole) - len(metadata(sound_bag).topics) * 2
        assert raw_messages(bag) == everything[:expected]


def test_a_flipped_byte_costs_one_chunk_at_most(sound_bag: Path, tmp_path: Path) -> None:
    content = only_file(sound_bag).read_bytes()
    found = chunks(only_file(sound_bag))
    everything = raw_messages(sound_bag)
    most = max(len(c.contents) for c in found)
    generator = random.Random(0)
    # Every bit of a chunk's and of an index' beginning, and random bits anywhere.
    structure = [found[0].offset + d + e for d in (0, found[0].length) for e in (0, 1, 30)]
    places = [(place, bit) for place in structure for bit in range(8)]
    places += [(generator.randrange(len(content)), generator.randrange(8)) for _ in range(40)]
    for number, (place, bit) in enumerate(places):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        bag = broken_copy(sound_bag, tmp_path / f"flip{number}", bytes(flipped))
        repair(bag, keep_original=False)
        kept = raw_messages(bag)
        assert len(kept) >= len(everything) - most, f"byte {place}"
        # A flip in a description outside of chunks changes nothing, since each has a copy inside.
        assert set(kept) <= set(everything), f"byte {place}: a message was changed"


def test_damage_in_the_first_chunk_leaves_the_others_readable(
    sound_bag: Path, tmp_path: Path
) -> None:
    content = bytearray(only_file(sound_bag).read_bytes())
    found = chunks(only_file(sound_bag))
    content[found[0].offset + 5000 : found[0].offset + 5100] = bytes(100)
    # Without the summary too, which repeats the descriptions.
    bag = broken_copy(sound_bag, tmp_path / "bag", bytes(content[: found[-1].offset]))
    report = repair(bag)
    assert report.messages_kept == sum(len(c.contents) for c in found[1:-1])
    assert report.messages_dropped == 0
    assert report.episode == metadata(bag).episode


def test_a_repaired_episode_holds_the_steps_that_are_left(tmp_path: Path) -> None:
    bag = rollout_bag(tmp_path / "bag", steps=60)
    rollout = random_rollout(steps=60)
    content = only_file(bag).read_bytes()
    (bag / "metadata.yaml").unlink()
    only_file(bag).write_bytes(content[: len(content) // 2])
    repair(bag)
    part = episode(bag, CONTRACT)
    assert 15 < len(part) < 40
    np.testing.assert_array_equal(part.observations, rollout.observations[: len(part) + 1])
    np.testing.assert_array_equal(part.actions, rollout.actions[: len(part)])
    assert part.meta["repair"]["bytes_lost"] > 0


def test_the_original_is_kept_aside_unless_told_otherwise(sound_bag: Path, tmp_path: Path) -> None:
    content = only_file(sound_bag).read_bytes()[:100_000]
    kept = broken_copy(sound_bag, tmp_path / "kept", content)
    assert repair(kept).original == tmp_path / "kept.broken"
    assert (tmp_path / "kept.broken" / "bag.mcap").read_bytes() == content
    gone = broken_copy(sound_bag, tmp_path / "gone", content)
    assert repair(gone, keep_original=False).original is None
    assert not (tmp_path / "gone.broken").exists()
    beside = broken_copy(sound_bag, tmp_path / "beside", content)
    report = repair(beside, output=tmp_path / "out")
    assert report.path == tmp_path / "out"
    assert (beside / "bag.mcap").read_bytes() == content
    with pytest.raises(BagError, match="exists already"):
        repair(beside, output=tmp_path / "out")


def test_a_full_disk_during_repair_leaves_the_original_alone(
    sound_bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = only_file(sound_bag).read_bytes()[:100_000]
    bag = broken_copy(sound_bag, tmp_path / "bag", content)

    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(BagError, match="No space left"):
            repair(bag)
    assert (bag / "bag.mcap").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_all_unfinished_bags_of_a_folder_are_repaired(sound_bag: Path, tmp_path: Path) -> None:
    content = only_file(sound_bag).read_bytes()
    shutil.copytree(sound_bag, tmp_path / "complete")
    broken_copy(sound_bag, tmp_path / "cut", content[:100_000])
    broken_copy(sound_bag, tmp_path / "empty", b"")
    writer = EpisodeWriter(tmp_path / "open", about())
    # As a repair leaves it that was killed between its last two renames.
    half_done = tmp_path / "late.repairing"
    half_done.mkdir()
    shutil.copytree(sound_bag, half_done / "late")
    shutil.copytree(sound_bag, tmp_path / "late.broken")
    results = repair_unfinished(tmp_path)
    assert [type(result).__name__ for result in results] == ["RepairReport", "NothingLeft"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "complete",
        "cut",
        "cut.broken",
        "empty.broken",
        "late",
        "late.broken",
        "open",
    ]
    assert repair_unfinished(tmp_path) == []
    with pytest.raises(BagError, match="is being written"):
        repair(tmp_path / "open")
    writer.close()


def test_how_an_episode_ended_is_taken_from_its_last_status(tmp_path: Path) -> None:
    from twinloop.bags.types import message_class, serialize

    status_type = "twinloop_interfaces/msg/EpisodeStatus"
    header = message_class("std_msgs/msg/Header")(
        stamp=message_class("builtin_interfaces/msg/Time")(sec=0, nanosec=0), frame_id=""
    )
    status = message_class(status_type)(
        header=header,
        episode_id="one",
        index=0,
        total=1,
        phase=3,
        step=17,
        steps=100,
        percent=17.0,
        task="baoding",
        goal="ccw",
        seed=3,
        model_version="v0001",
        rotation_deg=-4.5,
        dropped=True,
        stop_reason="a ball dropped",
    )
    writer = EpisodeWriter(tmp_path / "bag", about())
    writer.write_raw("/episode_status", status_type, serialize(status, status_type), 1)
    writer.abort()
    repaired = repair(tmp_path / "bag").episode
    assert repaired is not None
    assert (repaired.steps, repaired.rotation_deg, repaired.dropped) == (17, -4.5, True)
    assert repaired.stop_reason == "a ball dropped"


def chunk_record(size: int, data_size: int, body: bytes, compression: bytes = b"") -> bytes:
    fixed = struct.pack("<QQQI", 0, 0, size, 0)
    content = fixed + struct.pack("<I", len(compression)) + compression
    content += struct.pack("<Q", data_size) + body
    return struct.pack("<BQ", CHUNK, len(content)) + content


HOSTILE = {
    "empty": b"",
    "one_byte": b"\x89",
    "magic_only": MAGIC,
    "not_mcap": b"PK\x03\x04" * 1000,
    "zeros": bytes(100_000),
    "huge_record": MAGIC + struct.pack("<BQ", CHUNK, 2**63) + b"x" * 100,
    "huge_chunk": MAGIC + chunk_record(2**62, 10, b"x" * 10),
    "huge_inner_data": MAGIC + chunk_record(10, 2**62, b"x" * 10),
    "zstd_bomb": MAGIC + chunk_record(2**40, 13, b"\x28\xb5\x2f\xfd" + b"x" * 9, b"zstd"),
    "lz4_noise": MAGIC + chunk_record(100, 50, b"\x04\x22\x4d\x18" + b"x" * 46, b"lz4"),
    "many_false_chunks": MAGIC + b"\x06\x40" + (b"\x06" + bytes(8)) * 50_000,
    # Beginnings of chunks, each claiming all bytes up to the end of the file.
    "nested_chunks": MAGIC
    + b"".join(
        struct.pack("<BQQQQIIQ", CHUNK, 49 * n - 9, 0, 0, 49 * n - 49, 1, 0, 49 * n - 49)
        for n in range(20_000, 0, -1)
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name_and_in_time(tmp_path: Path, name: str) -> None:
    bag = broken_copy(tmp_path, tmp_path / "bag", HOSTILE[name])
    with pytest.raises(BagError, match="bag"):
        repair(bag)
    report = check(bag)
    assert not report.is_sound
    assert {finding.what for finding in report.findings} & {"damage", "file"}


def test_a_chunk_with_a_right_checksum_and_nonsense_inside_is_damage(tmp_path: Path) -> None:
    body = b"\x05" + struct.pack("<Q", 2**40) + b"x" * 20
    fixed = struct.pack("<QQQI", 0, 0, len(body), zlib.crc32(body))
    content = fixed + struct.pack("<IQ", 0, len(body)) + body
    record = struct.pack("<BQ", CHUNK, len(content)) + content
    bag = broken_copy(tmp_path, tmp_path / "bag", MAGIC + record)
    with pytest.raises(NothingLeft):
        repair(bag)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_damage_ends_in_a_repair_or_a_named_error(sound_bag: Path, data: st.DataObject) -> None:
    content = bytearray(only_file(sound_bag).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 3000))
        content[start : start + length] = data.draw(st.binary(max_size=64))
    work = sound_bag.parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    bag = broken_copy(sound_bag, work, bytes(content))
    try:
        repair(bag, keep_original=False)
    except NothingLeft:
        return
    assert set(raw_messages(bag)) <= set(raw_messages(sound_bag))


def test_check_finds_what_metadata_gets_wrong(sound_bag: Path, tmp_path: Path) -> None:
    def changed(name: str, old: str, new: str) -> Path:
        bag = tmp_path / name
        shutil.copytree(sound_bag, bag)
        path = bag / "metadata.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        return bag

    assert check(sound_bag, CONTRACT).findings == ()
    errors = {
        name: [f.what for f in check(changed(name, old, new)).findings if f.severity == "error"]
        for name, old, new in [
            ("count", "    message_count: 61", "    message_count: 60"),
            ("type", "type: sensor_msgs/msg/JointState", "type: sensor_msgs/msg/Imu"),
            ("start", "epoch: 0", "epoch: 1"),
            ("file", "- bag.mcap", "- gab.mcap"),
            ("hash", CONTRACT.hash(), "0123456789abcdef"),
            ("contract", '"period_s":0.1', '"period_s":0.2'),
        ]
    }
    assert set(errors["count"]) == {"metadata"}
    assert errors["type"] == ["metadata"]
    assert errors["start"] == ["metadata"]
    assert errors["file"] == ["metadata"]
    assert errors["hash"] == ["contract"]
    assert errors["contract"] == ["contract"]


def test_check_finds_bad_data(tmp_path: Path) -> None:
    rollout = random_rollout(steps=40)
    bag = rollout_bag(tmp_path / "bag", steps=40)
    assert rollout.observations.shape[0] == 41
    with EpisodeWriter(tmp_path / "bad", metadata(bag).episode) as writer:
        for number, message in enumerate(read_messages(bag)):
            cdr, time = message.cdr, message.log_time_ns
            if message.topic == "/joint_states" and number > 100:
                # The last velocity, which ends the message but for an empty list of efforts.
                cdr = cdr[:-12] + struct.pack("<d", float("nan")) + cdr[-4:]
            if message.topic == "/plan_stats" and message.decode().step == 12:
                cdr = cdr[:40]
            if number == 30:
                time = 0
            if message.topic == "/balls" and 60 < number < 110:
                continue
            writer.write_raw(message.topic, message.type, cdr, time)
    findings = {f.what: f for f in check(tmp_path / "bad").findings}
    assert findings["not_finite"].severity == "error"
    assert "/joint_states" in findings["not_finite"].message
    assert "velocity" in findings["not_finite"].message
    assert "/plan_stats: 1 messages are no" in findings["decode"].message
    assert findings["order"].severity == "warning"
    assert findings["gap"].message.startswith("/balls: nothing for 1.")


def test_check_reports_real_cadence(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "bag", about()) as writer:
        for i in range(101):
            writer.write_raw("/text", STRING, text_message(str(i)), i * 20_000_000)
    (cadence,) = check(tmp_path / "bag").topics
    assert cadence.messages == 101
    assert cadence.rate_hz == pytest.approx(50.0)
    assert cadence.max_gap_s == pytest.approx(0.02)
