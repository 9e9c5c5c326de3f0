# SPDX-License-Identifier: Apache-2.0
"""Writing and reading bags: round trips, other readers, bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_samples import CONTRACT, STRING, about, random_rollout, rollout_bag, text_message
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from twinloop.bags import BagError, BagWriteError, EpisodeWriter, metadata, read_messages
from twinloop.bags.episodes import episode, episodes, recorded_steps
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.qos import qos_profile
from twinloop.bags.read import complete_bags, unfinished_bags
from twinloop.bags.rollouts import write_rollout
from twinloop.bags.types import UnknownType, definition, deserialize
from twinloop.learning.episode import Episode


def only_file(bag: Path) -> Path:
    return next(bag.glob("*.mcap"))


def test_messages_come_back_in_order_with_their_times(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "bag", about()) as writer:
        for i in range(50):
            writer.write_raw(f"/topic{i % 2}", STRING, text_message(str(i)), 1000 + i, 900 + i)
    messages = list(read_messages(tmp_path / "bag"))
    assert [m.decode().data for m in messages] == [str(i) for i in range(50)]
    assert [m.log_time_ns for m in messages] == [1000 + i for i in range(50)]
    assert [m.publish_time_ns for m in messages] == [900 + i for i in range(50)]
    odd = list(read_messages(tmp_path / "bag", ["/topic1"]))
    assert [m.decode().data for m in odd] == [str(i) for i in range(1, 50, 2)]


def test_a_rollout_comes_back_exactly(tmp_path: Path) -> None:
    rollout = random_rollout(steps=25)
    write_rollout(tmp_path / "bag", rollout, CONTRACT, about(dropped=True), start_ns=10**18)
    back = episode(tmp_path / "bag", CONTRACT)
    np.testing.assert_array_equal(back.observations, rollout.observations)
    np.testing.assert_array_equal(back.actions, rollout.actions)
    assert back.meta["episode_id"] == "one"
    assert back.meta["dropped"] is True
    assert back.meta["steps"] == 25


def test_bags_below_a_namespace_are_read_by_relative_names(tmp_path: Path) -> None:
    rollout = random_rollout(steps=3)
    write_rollout(tmp_path / "bag", rollout, CONTRACT, about(namespace="/left"))
    assert "/left/joint_states" in {t.name for t in metadata(tmp_path / "bag").topics}
    np.testing.assert_array_equal(
        episode(tmp_path / "bag", CONTRACT).observations, rollout.observations
    )


def test_a_rollout_whose_command_channel_is_not_its_action_is_refused(tmp_path: Path) -> None:
    rollout = random_rollout(steps=5)
    actions = rollout.actions + 1.0
    with pytest.raises(ValueError, match="channel command differs"):
        write_rollout(tmp_path / "bag", Episode(rollout.observations, actions), CONTRACT, about())
    assert not (tmp_path / "bag").exists()


def test_a_missing_step_splits_the_episode(tmp_path: Path) -> None:
    rollout = random_rollout(steps=12)
    whole = write_rollout(tmp_path / "whole", rollout, CONTRACT, about())
    told = metadata(whole).episode.model_copy(update={"stop_reason": "dropped"})
    with EpisodeWriter(tmp_path / "gap", told) as writer:
        for message in read_messages(whole):
            is_stats = message.topic == "/plan_stats"
            if not (is_stats and message.decode().step == 4):
                writer.write_raw(message.topic, message.type, message.cdr, message.log_time_ns)
    parts = episodes(tmp_path / "gap", CONTRACT)
    assert [(p.meta["first_step"], len(p)) for p in parts] == [(0, 4), (5, 7)]
    # What ended the episode did not end its first run.
    assert [p.meta["stop_reason"] for p in parts] == [None, "dropped"]
    np.testing.assert_array_equal(parts[0].observations, rollout.observations[:5])
    np.testing.assert_array_equal(parts[1].observations, rollout.observations[5:])
    assert len(episode(tmp_path / "gap", CONTRACT)) == 7


def test_a_step_without_its_samples_is_left_out(tmp_path: Path) -> None:
    whole = write_rollout(tmp_path / "whole", random_rollout(steps=10), CONTRACT, about())
    balls = 0
    with EpisodeWriter(tmp_path / "lossy", metadata(whole).episode) as writer:
        for message in read_messages(whole):
            balls += message.topic == "/balls"
            if not (message.topic == "/balls" and balls == 4):
                writer.write_raw(message.topic, message.type, message.cdr, message.log_time_ns)
    steps = recorded_steps(tmp_path / "lossy", CONTRACT)
    assert [s.step for s in steps if s.observation is None] == [3]
    parts = episodes(tmp_path / "lossy", CONTRACT)
    assert [(p.meta["first_step"], len(p)) for p in parts] == [(0, 2), (4, 6)]


def test_a_refused_command_leaves_the_goal_in_force_as_the_action(tmp_path: Path) -> None:
    rollout = random_rollout(steps=6)
    whole = write_rollout(tmp_path / "whole", rollout, CONTRACT, about())
    goals = 0
    with EpisodeWriter(tmp_path / "refused", metadata(whole).episode) as writer:
        for message in read_messages(whole):
            goals += message.topic == "/applied_command"
            # The goal before the episode, then one for each step: leave out that of the last.
            if not (message.topic == "/applied_command" and goals == 7):
                writer.write_raw(message.topic, message.type, message.cdr, message.log_time_ns)
    actions = episode(tmp_path / "refused", CONTRACT).actions
    np.testing.assert_array_equal(actions[5], rollout.actions[4])


def test_steps_before_the_first_recorded_goal_are_left_out(tmp_path: Path) -> None:
    """As in a bag that a restarted recorder began in the middle of an episode."""
    whole = write_rollout(tmp_path / "whole", random_rollout(steps=10), CONTRACT, about())
    with EpisodeWriter(tmp_path / "late", metadata(whole).episode) as writer:
        for message in read_messages(whole):
            stamp_ns = message.log_time_ns
            if not (message.topic == "/applied_command" and stamp_ns < 300_000_000):
                writer.write_raw(message.topic, message.type, message.cdr, stamp_ns)
    # The goal of the third step is the first; the step after it was planned from it.
    (part,) = episodes(tmp_path / "late", CONTRACT)
    assert (part.meta["first_step"], len(part)) == (3, 7)


def test_a_bag_of_another_contract_is_refused(tmp_path: Path) -> None:
    bag = rollout_bag(tmp_path / "bag")
    other = CONTRACT.model_copy(update={"period_s": 0.2})
    with pytest.raises(BagError, match=f"contract {CONTRACT.hash()}, expected baoding"):
        episode(bag, other)


def test_rosbags_reads_what_we_write(tmp_path: Path) -> None:
    bag = rollout_bag(tmp_path / "bag", steps=20)
    store = get_typestore(Stores.ROS2_JAZZY)
    with Reader(bag) as reader:
        assert reader.message_count == metadata(bag).message_count
        counts = {c.topic: c.msgcount for c in reader.connections}
        digests = {c.topic: c.digest for c in reader.connections}
        joints = [c for c in reader.connections if c.topic == "/joint_states"]
        decoded = [store.deserialize_cdr(raw, c.msgtype) for c, _, raw in reader.messages(joints)]
        assert reader.start_time == metadata(bag).start_ns
    assert counts == {"/joint_states": 21, "/balls": 21, "/applied_command": 21, "/plan_stats": 20}
    assert digests["/joint_states"] == store.hash_rihs01("sensor_msgs/msg/JointState")
    assert [len(m.position) for m in decoded] == [24] * 21


def test_the_indexed_mcap_reader_reads_what_we_write(tmp_path: Path) -> None:
    bag = rollout_bag(tmp_path / "bag", steps=100)
    with only_file(bag).open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert reader.get_header().profile == "ros2"
        assert max(index.uncompressed_size for index in summary.chunk_indexes) <= 64 * 1024
        times = [m.log_time for _, _, m in reader.iter_messages(topics=["/balls"])]
        records = {record.name: record.metadata for record in reader.iter_metadata()}
    assert len(times) == 101
    assert json.loads(records["twinloop"]["episode"])["contract_hash"] == CONTRACT.hash()
    assert "serialized_metadata" in records["rosbag2"]


def test_metadata_has_the_fields_of_rosbag2(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "ours", about()) as ours:
        ours.add_topic("/text", STRING, qos=(qos_profile(durability="transient_local"),))
        ours.write_raw("/text", STRING, text_message("hello"), 5)
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / "theirs", version=9, storage_plugin=StoragePlugin.MCAP) as theirs:
        with Reader(tmp_path / "ours") as reader:
            profiles = reader.connections[0].ext.offered_qos_profiles
        connection = theirs.add_connection(
            "/text", STRING, typestore=store, offered_qos_profiles=profiles
        )
        theirs.write(connection, 5, text_message("hello"))
        theirs.set_custom_data("twinloop", "x")

    def content(name: str) -> dict[str, object]:
        text = (tmp_path / name / "metadata.yaml").read_text()
        found = yaml.safe_load(text)["rosbag2_bagfile_information"]
        for key in ("custom_data", "ros_distro", "relative_file_paths"):
            assert key in found
            found[key] = type(found[key])
        for file in found["files"]:
            file["path"] = str
        return found

    assert content("ours") == content("theirs")


def test_bags_of_rosbags_are_read(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/text", STRING, typestore=store)
        for i in range(10):
            writer.write(connection, i, text_message(str(i)))
    assert [m.decode().data for m in read_messages(tmp_path / "bag")] == [str(i) for i in range(10)]
    assert metadata(tmp_path / "bag").episode is None


def test_our_types_have_the_hashes_of_the_built_package() -> None:
    share = pytest.importorskip("ament_index_python.packages").get_package_share_path
    try:
        folder = share("twinloop_interfaces") / "msg"
    except LookupError:
        pytest.skip("twinloop_interfaces is not built here")
    built = sorted(folder.glob("*.json"))
    assert built
    for path in built:
        first = json.loads(path.read_text())["type_hashes"][0]
        assert definition(first["type_name"]).digest == first["hash_string"]


def test_unknown_types_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownType, match="no definition of nowhere_msgs/msg/Thing"):
        definition("nowhere_msgs/msg/Thing")
    with pytest.raises(UnknownType, match="does not read like package/msg/Name"):
        definition("../../etc/passwd")
    with pytest.raises(ValueError, match="not a valid std_msgs/msg/String"):
        deserialize(b"\x00\x01\x00\x00\xff\xff\xff\xffabc", STRING)


def test_metadata_appears_only_when_the_bag_is_complete(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path / "bag", about())
    writer.write_raw("/text", STRING, text_message("a"), 1)
    writer.flush()
    assert not (tmp_path / "bag" / "metadata.yaml").exists()
    assert complete_bags(tmp_path) == []
    assert unfinished_bags(tmp_path) == [], "a bag that is being written is not abandoned"
    with pytest.raises(BagError, match=r"has no metadata.yaml: the bag is incomplete"):
        list(read_messages(tmp_path / "bag"))
    writer.close(steps=1, stop_reason="done")
    assert complete_bags(tmp_path) == [tmp_path / "bag"]
    about_it = metadata(tmp_path / "bag").episode
    assert about_it is not None
    assert (about_it.steps, about_it.stop_reason) == (1, "done")


def test_an_error_inside_the_writer_leaves_an_incomplete_bag(tmp_path: Path) -> None:
    def fail() -> None:
        with EpisodeWriter(tmp_path / "bag", about()) as writer:
            writer.write_raw("/text", STRING, text_message("a"), 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert unfinished_bags(tmp_path) == [tmp_path / "bag"]


def test_a_full_disk_is_a_named_error_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = EpisodeWriter(tmp_path / "bag", about(), chunk_bytes=1024)
    real_write, left = os.write, 4000

    def write(descriptor: int, data: bytes | memoryview) -> int:
        nonlocal left
        if left == 0:
            raise OSError(28, "No space left on device")
        written = real_write(descriptor, memoryview(data)[:left])
        left -= written
        return written

    monkeypatch.setattr(os, "write", write)

    def fill() -> None:
        for i in range(1000):
            writer.write_raw("/text", STRING, text_message("x" * 50), i)

    with pytest.raises(BagWriteError, match=r"bag\.mcap: cannot be written: No space left"):
        fill()
    with pytest.raises(BagWriteError, match="takes no more messages"):
        fill()
    writer.abort()
    monkeypatch.undo()
    from twinloop.bags.repair import repair

    report = repair(tmp_path / "bag")
    assert report.messages_kept > 5
    assert report.messages_kept == len(list(read_messages(tmp_path / "bag")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "is not the metadata of a bag"),
        (lambda text: "a: [1, 2", "is not YAML"),
        (lambda text: "\0", "is not YAML"),
        (lambda text: text.replace("version: 9", "version: 99"), "format version 99, expected 5"),
        (lambda text: text.replace("identifier: mcap", "identifier: sqlite3"), "'sqlite3'"),
        (lambda text: text.replace("message_count", "count"), "lacks the field 'message_count'"),
        (lambda text: text.replace("- bag.mcap", "- ../../secret.mcap"), "names of files beside"),
        (lambda text: text.replace("nanoseconds: ", "nanoseconds: -"), "duration is -"),
        (lambda text: text.replace('"seed":3', '"seed":-3'), "episode metadata: seed"),
        (lambda text: text.replace("twinloop: '{", "twinloop: '["), "episode metadata"),
        (lambda text: "a: &x [1]\nb: *x\n" + text, "it holds an alias"),
        (lambda text: "[" * 100_000, "nested deeper than 32 levels"),
        (lambda text: "x" * (5 * 2**20), "bytes long, expected at most"),
    ],
)
def test_wrong_metadata_is_refused_by_name(tmp_path: Path, change, message: str) -> None:
    bag = rollout_bag(tmp_path / "bag", steps=2)
    path = bag / "metadata.yaml"
    path.write_text(change(path.read_text()))
    with pytest.raises(BagError, match=message) as caught:
        metadata(bag)
    assert str(path) in str(caught.value)


def test_relative_topics_wrong_types_and_negative_times_are_refused(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "bag", about()) as writer:
        with pytest.raises(BagError, match="'text' is relative"):
            writer.write_raw("text", STRING, text_message("a"), 1)
        writer.write_raw("/text", STRING, text_message("a"), 1)
        with pytest.raises(BagError, match="/text is std_msgs/msg/Bool, but was"):
            writer.write_raw("/text", "std_msgs/msg/Bool", b"\0\1\0\0\1", 2)
        with pytest.raises(BagError, match="log time is -1 ns"):
            writer.write_raw("/text", STRING, text_message("a"), -1)
    assert len(list(read_messages(tmp_path / "bag"))) == 1
    with pytest.raises(BagError, match="exists already"):
        EpisodeWriter(tmp_path / "bag", about())


def test_episode_metadata_refuses_values_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        EpisodeMetadata(episode_id="a", task="baoding", rotation_deg=float("nan"))


def test_the_direction_of_older_bags_is_read_as_the_goal() -> None:
    older = '{"episode_id": "one", "task": "baoding", "direction": "cw"}'
    assert EpisodeMetadata.model_validate_json(older).goal == "cw"
