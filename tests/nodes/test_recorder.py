# SPDX-License-Identifier: Apache-2.0
"""The recorder over real DDS: whole episodes, images, what it refuses, and replay.

Killed, or on a full disk: `tests/faults/test_recorder_faults.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bag_processes import Observer, Processes, interrupt, wait_for_line, wait_until
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from twin_station import start_node
from twinloop.bags import (
    BagError,
    EpisodeWriter,
    complete_bags,
    metadata,
    read_messages,
)
from twinloop.bags.check import check
from twinloop.bags.episodes import episode
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.types import message_class, serialize
from twinloop.dds import take_domain
from twinloop.nodes import qos
from twinloop.nodes.replay import replay
from twinloop.perception.images import to_array
from twinloop.perception.stereo_pairs import EYES

from twinloop import contract
from twinloop_interfaces.msg import EpisodeStatus

CONTRACT = contract.load("baoding")
DOMAIN = take_domain()


@pytest.fixture
def processes() -> Iterator[Processes]:
    with Processes(DOMAIN) as running:
        yield running


@pytest.fixture
def observer() -> Iterator[Observer]:
    with Observer(DOMAIN) as watching:
        yield watching


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Bags of two episodes of ten steps."""
    folder = tmp_path_factory.mktemp("recorded")
    gains = folder / "gains.yaml"
    gains.write_text("kp: 3.0\n")
    with Processes(DOMAIN) as processes:
        recorder = processes.recorder(folder / "bags", controller=gains, chunk_age_s=0.2)
        assert processes.cell(episodes=2, steps=10).wait(timeout=120) == 0
        assert interrupt(recorder) == 0
    return complete_bags(folder / "bags")


def test_each_episode_becomes_a_sound_bag(recorded: list[Path]) -> None:
    names = [bag.name for bag in recorded]
    assert names == ["episode_000000_synthetic-0", "episode_000001_synthetic-1"]
    for bag in recorded:
        report = check(bag, CONTRACT)
        assert report.is_sound, report.findings
        counts = {topic.topic: topic.messages for topic in report.topics}
        assert counts["/plan_stats"] == 10
        assert counts["/joint_states"] > 10 * 10
        assert {"/balls", "/truth", "/guard_status", "/model", "/emergency_stop"} <= set(counts)
        about = episode(bag, CONTRACT).meta
        assert len(episode(bag, CONTRACT)) == 10
        assert about["source"] == "synthetic"
        assert about["controller"] == {"kp": 3.0}
        assert about["seed"] == 7
        assert about["model_version"] == "v0001"
        assert about["stop_reason"] == "time is up"


def test_the_profiles_that_publishers_offer_are_recorded(recorded: list[Path]) -> None:
    topics = metadata(recorded[0]).topics
    profiles = {topic.name: topic.qos[0] for topic in topics if topic.qos}
    # Nobody steers here, so nobody offers anything.
    assert {topic.name for topic in topics} - set(profiles) == {"/control_status", "/pilot_command"}
    assert profiles["/command"]["deadline"] == {"sec": 0, "nsec": 500_000_000}
    assert profiles["/joint_states"]["reliability"] == "best_effort"
    assert profiles["/episode_status"]["durability"] == "transient_local"


def test_the_action_is_the_applied_goal_and_not_the_command(recorded: list[Path]) -> None:
    asked = [m.decode() for m in read_messages(recorded[0], ["/command"])]
    assert max(max(abs(p) for p in command.points[0].positions) for command in asked) > 0.5
    # The synthetic guard clips at 0.5 rad.
    assert abs(episode(recorded[0], CONTRACT).actions).max() == pytest.approx(0.5)


def test_recorded_bytes_are_what_ros_takes_them_for(recorded: list[Path]) -> None:
    for message in read_messages(recorded[0], ["/joint_states"]):
        ours, theirs = message.decode(), deserialize_message(message.cdr, JointState)
        assert list(ours.name) == list(theirs.name)
        assert ours.position.tolist() == theirs.position.tolist()


def test_a_recorder_that_opens_its_bag_late_keeps_the_goal_that_the_episode_began_with(
    processes: Processes, observer: Observer, tmp_path: Path
) -> None:
    recorder = processes.recorder(tmp_path)
    wait_until(lambda: observer.values("/recorder").get("state") == "active", 60.0)
    publisher = observer.node.create_publisher(EpisodeStatus, "episode_status", qos.latched())
    wait_until(lambda: publisher.get_subscription_count() > 0, 60.0)
    status = EpisodeStatus(episode_id="one", task="baoding", goal="ccw", steps=20)
    for phase, goal in ((EpisodeStatus.RESETTING, "ccw"), (EpisodeStatus.RUNNING, "move")):
        status.phase, status.goal = phase, goal
        publisher.publish(status)
        # Only the newest is kept for those who have not heard it yet.
        wait_until(lambda: observer.values("/recorder").get("episode") == "one", 30.0)
    wait_until(lambda: observer.values("/recorder").get("bag", "") not in ("", "none"), 30.0)
    assert interrupt(recorder) == 0
    (bag,) = complete_bags(tmp_path)
    about = metadata(bag).episode
    assert about is not None
    assert about.goal == "ccw"


def test_images_are_recorded_where_that_is_asked_for_and_bounded(
    processes: Processes, tmp_path: Path
) -> None:
    camera = start_node("fake_stereo_camera", DOMAIN)
    recorder = processes.recorder(tmp_path, images="compressed", max_image_mb=0.03)
    cell = processes.cell(episodes=1, steps=25)
    wait_for_line(cell, "ended")
    assert cell.wait(timeout=120) == 0
    assert interrupt(recorder) == 0
    camera.kill()
    camera.wait()
    (bag,) = complete_bags(tmp_path)
    report = check(bag, CONTRACT)
    assert report.is_sound, report.findings
    counts = {topic.topic: topic.messages for topic in report.topics}
    images = list(read_messages(bag, [f"/stereo/{eye}/image_raw/compressed" for eye in EYES]))
    assert len(images) >= 10
    assert 20_000 < sum(len(message.cdr) for message in images) <= 30_000
    assert to_array(images[0].decode()).shape == (18, 28, 3)
    for eye in EYES:
        assert counts[f"/stereo/{eye}/camera_info"] > counts[f"/stereo/{eye}/image_raw/compressed"]
    assert f"/stereo/{EYES[0]}/image_raw" not in counts


def test_too_little_free_disk_is_an_error_before_a_bag_starts(
    processes: Processes, observer: Observer, tmp_path: Path
) -> None:
    recorder = processes.recorder(tmp_path, min_free_mb=1e8)
    assert processes.cell(episodes=1, steps=5).wait(timeout=120) == 0
    wait_until(lambda: "MB are needed" in observer.statuses["/recorder"].message)
    assert observer.statuses["/recorder"].level == DiagnosticStatus.ERROR
    assert interrupt(recorder) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_record_dir_that_cannot_be_made_ends_the_node_with_a_reason(
    processes: Processes, tmp_path: Path
) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    recorder = processes.recorder(taken)
    assert recorder.wait(timeout=120) == 2
    assert "could not configure" in processes.said(recorder)


def test_replay_publishes_a_bag_again(
    observer: Observer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_type = "std_msgs/msg/String"
    texts = [f"message {i}" for i in range(20)]
    with EpisodeWriter(tmp_path / "bag", EpisodeMetadata(episode_id="a", task="none")) as writer:
        for i, text in enumerate(texts):
            cdr = serialize(message_class(text_type)(data=text), text_type)
            writer.write_raw("/left/text", text_type, cdr, i * 10_000_000)
    heard: list[str] = []
    observer.node.create_subscription(String, "/left/text", lambda m: heard.append(m.data), 50)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    assert replay(tmp_path / "bag", rate=2.0, clock=True) == 20
    wait_until(lambda: len(heard) == 20)
    assert heard == texts


def test_replay_names_topics_that_are_not_in_the_bag(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "bag", EpisodeMetadata(episode_id="a", task="none")) as writer:
        writer.add_topic("/text", "std_msgs/msg/String")
    with pytest.raises(BagError, match="has no topic /speech; it has /text"):
        replay(tmp_path / "bag", topics=["/speech"])
    with pytest.raises(ValueError, match="rate is 0, expected more than 0"):
        replay(tmp_path / "bag", rate=0.0)
