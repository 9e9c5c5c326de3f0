# SPDX-License-Identifier: Apache-2.0
"""When a bag begins and ends, and what is in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from bag_samples import STRING, about, text_message
from twinloop.bags import EpisodeMetadata, complete_bags, metadata, read_messages, unfinished_bags
from twinloop.bags.recording import (
    ENDED,
    IDLE,
    RESETTING,
    RUNNING,
    EpisodeRecording,
    EpisodeState,
    RecordedTopic,
    RecordingSettings,
)

S = 10**9
TOPICS = [
    RecordedTopic("/samples", STRING),
    RecordedTopic("/steps", STRING, is_of_step=True),
    RecordedTopic("/model", STRING, is_latched=True),
    RecordedTopic("/images", STRING, is_image=True),
]


def recording(folder: Path, **settings: Any) -> EpisodeRecording:
    chosen = RecordingSettings(folder, **({"min_free_bytes": 0} | settings))
    return EpisodeRecording(chosen, TOPICS, lambda episode_id: about(episode_id), lambda topic: ())


def state(phase: int, episode_id: str = "a", **fields: Any) -> EpisodeState:
    plain = {"step": 0, "rotation_deg": 0.0, "dropped": False, "stop_reason": ""}
    return EpisodeState(episode_id=episode_id, phase=phase, **(plain | fields))


def contents(bag: Path) -> list[tuple[str, float, str]]:
    return [(m.topic, m.log_time_ns / S, m.decode().data) for m in read_messages(bag)]


def feed(target: EpisodeRecording, topic: str, start: float, end: float, step: float = 0.1) -> None:
    for i in range(round((end - start) / step)):
        now = start + i * step
        target.receive(topic, text_message(f"{now:.1f}"), round(now * S))


def only_bag(folder: Path) -> Path:
    (bag,) = complete_bags(folder)
    return bag


def test_a_bag_holds_what_came_shortly_before_and_after_the_episode(tmp_path: Path) -> None:
    target = recording(tmp_path, before_s=0.5, tail_s=0.3)
    feed(target, "/samples", 8.0, 10.0)
    target.update(state(RUNNING), 10 * S)
    feed(target, "/samples", 10.0, 12.0)
    ended = state(ENDED, step=20, rotation_deg=90.0, dropped=True, stop_reason="a ball dropped")
    target.update(ended, 12 * S)
    feed(target, "/samples", 12.0, 14.0)
    target.stop()
    times = [time for _, time, _ in contents(only_bag(tmp_path))]
    assert times[0] == pytest.approx(9.4)
    assert times[-1] == pytest.approx(12.3)
    assert len(times) == 30
    episode = metadata(only_bag(tmp_path)).episode
    assert episode is not None
    assert (episode.steps, episode.rotation_deg, episode.dropped) == (20, 90.0, True)
    assert episode.stop_reason == "a ball dropped"
    assert target.counts.episodes == 1


def test_images_take_no_more_of_a_bag_than_they_may(tmp_path: Path) -> None:
    size = len(text_message("10.0"))
    target = recording(tmp_path, before_s=0.5, tail_s=0.3, max_image_bytes=7 * size)
    for start, episode_id in ((10.0, "a"), (20.0, "b")):
        target.update(state(RUNNING, episode_id), round(start * S))
        for i in range(10):
            now = start + 0.1 * i
            for topic in ("/images", "/samples"):
                target.receive(topic, text_message(f"{now:.1f}"), round(now * S))
        target.update(state(RESETTING), round((start + 1) * S))
    target.stop()
    for bag in complete_bags(tmp_path):
        topics = [topic for topic, _, _ in contents(bag)]
        assert topics.count("/images") == 7
        assert topics.count("/samples") >= 10
    assert target.counts.images_left_out >= 6
    assert target.problem is None


def test_latched_state_is_in_every_bag_from_its_start(tmp_path: Path) -> None:
    target = recording(tmp_path, before_s=0.5)
    target.receive("/model", text_message("v7"), 1 * S)
    feed(target, "/samples", 98.0, 100.0)
    target.update(state(RUNNING), 100 * S)
    target.stop()
    first = contents(only_bag(tmp_path))[0]
    assert first == ("/model", pytest.approx(99.4), "v7")


def test_the_steps_of_an_episode_are_not_in_the_bag_of_the_next(tmp_path: Path) -> None:
    target = recording(tmp_path, before_s=5.0)
    for number, start in enumerate((10.0, 12.0)):
        target.update(state(RUNNING, f"e{number}"), round(start * S))
        feed(target, "/steps", start, start + 1.0)
        feed(target, "/samples", start + 1.0, start + 1.1)
        target.update(state(RESETTING, f"e{number}"), round((start + 1.2) * S))
    target.stop()
    first, second = complete_bags(tmp_path)
    assert next(t for n, t, _ in contents(first) if n == "/steps") == pytest.approx(10.0)
    assert next(t for n, t, _ in contents(second) if n == "/steps") == pytest.approx(12.0)
    assert contents(second)[0] == ("/samples", pytest.approx(11.0), "11.0")


def test_a_reset_ends_the_tail_at_once(tmp_path: Path) -> None:
    target = recording(tmp_path, tail_s=1.0)
    target.update(state(RUNNING), 10 * S)
    feed(target, "/samples", 10.0, 11.0)
    target.update(state(ENDED), 11 * S)
    feed(target, "/samples", 11.0, 11.2)
    target.update(state(RESETTING), round(11.2 * S))
    feed(target, "/samples", 11.2, 13.0)
    target.stop()
    assert contents(only_bag(tmp_path))[-1][1] == pytest.approx(11.1)


def test_an_episode_that_starts_ends_one_whose_end_was_not_told(tmp_path: Path) -> None:
    target = recording(tmp_path)
    for name in ("a", "b"):
        target.update(state(RUNNING, name), 10 * S)
        feed(target, "/samples", 10.0, 10.5)
    target.stop()
    reasons = [metadata(bag).episode.stop_reason for bag in complete_bags(tmp_path)]  # type: ignore[union-attr]
    assert reasons == ["its end was not announced", "the recorder was stopped"]


def test_an_episode_without_an_end_is_cut(tmp_path: Path) -> None:
    target = recording(tmp_path, longest_s=5.0)
    target.update(state(RUNNING), 10 * S)
    feed(target, "/samples", 10.0, 14.0)
    target.tick(14 * S)
    assert target.current_bag is not None
    target.tick(16 * S)
    target.stop()
    episode = metadata(only_bag(tmp_path)).episode
    assert episode is not None
    assert episode.stop_reason == "cut after 5 s without an end"


def test_two_parts_of_one_episode_get_names_of_their_own(tmp_path: Path) -> None:
    for _ in range(2):
        target = recording(tmp_path)
        target.update(state(RUNNING, "run/1: a"), 10 * S)
        feed(target, "/samples", 10.0, 10.5)
        target.stop()
    names = [bag.name for bag in complete_bags(tmp_path)]
    assert names == ["episode_000000_run-1-a", "episode_000000_run-1-a_part2"]


def test_no_bag_starts_on_a_nearly_full_disk(tmp_path: Path) -> None:
    target = recording(tmp_path, min_free_bytes=shutil.disk_usage(tmp_path).total * 2)
    target.update(state(RUNNING), 10 * S)
    feed(target, "/samples", 10.0, 10.5)
    target.update(state(RUNNING), 10 * S)
    assert target.problem is not None
    assert "MB are needed to record" in target.problem
    assert target.counts.failures == 1, "it is tried once an episode"
    assert list(tmp_path.iterdir()) == []
    target.update(state(IDLE), 11 * S)


def test_a_disk_that_fills_up_is_reported_and_the_next_episode_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    target = recording(tmp_path, chunk_age_s=0.5)
    target.update(state(RUNNING, "a"), 10 * S)
    feed(target, "/samples", 10.0, 12.0)

    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        feed(target, "/samples", 12.0, 14.0)
    assert target.problem is not None
    assert "No space left on device" in target.problem
    assert unfinished_bags(tmp_path) != [], "what was written stays"
    feed(target, "/samples", 14.0, 15.0)
    target.update(state(ENDED, "a"), 15 * S)
    target.update(state(RUNNING, "b"), 16 * S)
    assert target.problem is None
    target.stop()
    assert [bag.name for bag in complete_bags(tmp_path)] == ["episode_000000_b"]


def test_an_episode_that_cannot_be_described_is_refused(tmp_path: Path) -> None:
    def refuse(episode_id: str) -> EpisodeMetadata:
        raise ValueError("its task is 'chess'")

    target = EpisodeRecording(RecordingSettings(tmp_path), TOPICS, refuse, lambda topic: ())
    target.update(state(RUNNING), 10 * S)
    assert target.problem == "episode a is not recorded: its task is 'chess'"
    target.stop()


def test_a_clock_that_is_set_back_does_not_bring_old_samples_into_a_bag(tmp_path: Path) -> None:
    target = recording(tmp_path, before_s=5.0)
    feed(target, "/samples", 100.0, 101.0)
    feed(target, "/samples", 2.0, 3.0)
    target.update(state(RUNNING), 3 * S)
    target.stop()
    assert contents(only_bag(tmp_path))[0][1] == pytest.approx(2.0)
