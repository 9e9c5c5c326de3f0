# SPDX-License-Identifier: Apache-2.0
"""Bad bags to everything that reads bags: cut, flipped, lying, or full of odd messages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bag_samples import CONTRACT, rollout_bag
from hypothesis import given
from hypothesis import strategies as st
from image_bags import ImageBag, NumberTracker, as_stored
from messages import TEXTS, broken
from rclpy.serialization import deserialize_message
from tally import TALLY, examples
from twinloop.bags import BagError, EpisodeWriter, metadata, read_messages
from twinloop.bags.check import check
from twinloop.bags.episodes import episodes
from twinloop.bags.read import BagMessage
from twinloop.bags.repair import repair
from twinloop.bags.types import serialize
from twinloop.nodes.messages import message_class
from twinloop.nodes.replay import _wanted
from twinloop.perception.bag_tracking import track_bag
from twinloop.reporting.episodes import read_run

KB = 1024
_numbers = count()


def _decode(bag: Path) -> None:
    for message in read_messages(bag):
        try:
            message.decode()
        except ValueError as error:
            raise BagError(bag, str(error)) from error


def _check(bag: Path) -> None:
    report = check(bag)
    if not report.is_sound:
        first = next(finding for finding in report.findings if finding.severity == "error")
        raise BagError(bag, f"{first.what}: {first.message}")


def _learn(bag: Path) -> None:
    episodes(bag, CONTRACT)


def _report(bag: Path) -> None:
    for one in read_run(bag.parent, CONTRACT):
        if one.stop_reason.startswith("unreadable: "):
            raise BagError(bag, one.stop_reason)


def _track(bag: Path) -> None:
    track_bag(bag, bag.with_name("out.tracks"), NumberTracker)


def _replay(bag: Path) -> None:
    for topic in _wanted(bag, None):
        try:
            message_class(topic.type)
        except ValueError as error:
            raise BagError(bag, str(error)) from error


def _repair(bag: Path) -> None:
    repair(bag, keep_original=False)


# Repair changes a bag and comes last.
READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "episode": (metadata, _decode, _check, _learn, _report, _replay, _repair),
    "images": (metadata, _decode, _check, _track, _replay, _repair),
}


def tried(kind: str, bag: Path, sound: Path) -> None:
    """Hand a bag to every reader of the sound one; each reads it or refuses it."""

    def reasons() -> str:
        target = bag.with_name("again") / bag.name
        shutil.copytree(bag, target)
        found = []
        for reader in READERS[sound.name]:
            try:
                reader(target)
            except BagError as error:
                found.append(str(error))
        shutil.rmtree(target.parent)
        return "\n".join(found)

    TALLY.ask(kind, reasons, (str(bag.parent),))
    shutil.rmtree(bag.parent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bags")


@pytest.fixture(scope="module")
def episode_bag(folder: Path) -> Path:
    return rollout_bag(folder / "sound" / "episode", steps=12)


@pytest.fixture(scope="module")
def image_bag(folder: Path) -> Path:
    bag = ImageBag(folder / "sound" / "images")
    bag.infos()
    bag.pairs(range(6))
    bag.balls(bag.now_ns, 0.01)
    return bag.close()


def with_content(bag: Path, content: bytes, keeps_metadata: bool = True) -> Path:
    """Copy a bag with other bytes in its file."""
    target = bag.parents[1] / f"try{next(_numbers)}" / "bag"
    target.mkdir(parents=True)
    (target / only_file(bag).name).write_bytes(content)
    if keeps_metadata:
        shutil.copy(bag / "metadata.yaml", target)
    return target


def only_file(bag: Path) -> Path:
    return next(bag.glob("*.mcap"))


def test_sound_bags_are_refused_by_none_of_their_readers(
    episode_bag: Path, image_bag: Path
) -> None:
    for bag in (episode_bag, image_bag):
        copy = with_content(bag, only_file(bag).read_bytes())
        for reader in READERS[bag.name]:
            reader(copy)


def test_bags_cut_at_every_kilobyte(episode_bag: Path, image_bag: Path) -> None:
    for bag in (episode_bag, image_bag):
        content = only_file(bag).read_bytes()
        assert len(content) > 8 * KB
        for end in range(0, len(content), KB):
            tried("bag cut short", with_content(bag, content[:end], bool(end // KB % 2)), bag)


@examples(100)
@given(data=st.data())
def test_bags_with_flipped_bytes(episode_bag: Path, image_bag: Path, data: st.DataObject) -> None:
    bag = data.draw(st.sampled_from([episode_bag, image_bag]))
    content = bytearray(only_file(bag).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    tried(
        "bag with flipped bytes", with_content(bag, bytes(content), data.draw(st.booleans())), bag
    )


@examples(80)
@given(data=st.data())
def test_bags_with_lying_metadata(episode_bag: Path, image_bag: Path, data: st.DataObject) -> None:
    bag = data.draw(st.sampled_from([episode_bag, image_bag]))
    lines = (bag / "metadata.yaml").read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        line = data.draw(st.integers(0, len(lines) - 1))
        key, colon, _ = lines[line].partition(":")
        way = data.draw(st.integers(0, 4))
        if way == 0:
            lines[line] = data.draw(TEXTS)
        elif way == 1:
            lines[line] = key
        elif way == 2:
            lines[line] = lines[data.draw(st.integers(0, len(lines) - 1))]
        elif way == 3:
            del lines[line]
        else:
            lines[line] = f"{key}{colon} {data.draw(VALUES)}"
        if not lines:
            break
    target = with_content(bag, only_file(bag).read_bytes())
    (target / "metadata.yaml").write_text("\n".join(lines), "utf-8", "replace")
    tried("bag with wrong metadata", target, bag)


VALUES = st.sampled_from(
    [
        *("-1", "1e400", ".nan", "99999999999999999999999", "[]", "{}", "null", "2001-99-99"),
        *("'../../bag.mcap'", "/etc/passwd", "!!python/object:os.system ls"),
        *("*anchor", "&a [*a]", "[" * 3000),
    ]
) | st.text(max_size=20)


@cache
def messages_of(bag: Path) -> list[BagMessage]:
    return list(read_messages(bag))


def rewritten(bag: Path, messages: list[BagMessage]) -> Path:
    """Write a bag of these messages that is sound as a file."""
    target = bag.parents[1] / f"try{next(_numbers)}" / "bag"
    target.parent.mkdir()
    with EpisodeWriter(target, metadata(bag).episode) as writer:
        for topic, kind, log_time_ns, _, cdr in messages:
            writer.write_raw(topic, kind, cdr, log_time_ns)
    return target


@examples(80)
@given(data=st.data())
def test_sound_bags_of_odd_messages(
    episode_bag: Path, image_bag: Path, data: st.DataObject
) -> None:
    bag = data.draw(st.sampled_from([episode_bag, image_bag]))
    sound = messages_of(bag)
    messages = sound.copy()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(messages) - 1))
        message = sound[at]
        way = data.draw(st.integers(0, 5))
        if way == 0:
            changed = bytearray(message.cdr)
            place = data.draw(st.integers(0, len(changed) - 1))
            changed[place : place + 4] = data.draw(st.binary(min_size=1, max_size=4))
            messages[at] = message._replace(cdr=bytes(changed))
        elif way == 1:
            end = data.draw(st.integers(0, len(message.cdr)))
            messages[at] = message._replace(cdr=message.cdr[:end])
        elif way == 2:
            time_ns = data.draw(st.integers(0, 2**63 - 1))
            messages[at] = message._replace(log_time_ns=time_ns)
        else:
            messages[at] = message._replace(cdr=_broken(data, message))
    tried("bag of odd messages", rewritten(bag, messages), bag)


def _broken(data: st.DataObject, message: BagMessage) -> bytes:
    kind = message_class(message.type)
    odd: Any = data.draw(broken(lambda: deserialize_message(message.cdr, kind), most=1))
    return serialize(as_stored(odd), message.type)


@examples(25)
@given(
    swaps=st.lists(
        st.tuples(
            st.integers(0, 9), st.sampled_from(["std_msgs/msg/String", "sensor_msgs/msg/Imu"])
        ),
        min_size=1,
        max_size=3,
    )
)
def test_bags_whose_topics_are_of_other_types(
    episode_bag: Path, swaps: list[tuple[int, str]]
) -> None:
    messages = messages_of(episode_bag)
    topics = sorted({message.topic for message in messages})
    types = {topics[index % len(topics)]: kind for index, kind in swaps}
    changed = [one._replace(type=types.get(one.topic, one.type)) for one in messages]
    tried("bag of another schema", rewritten(episode_bag, changed), episode_bag)


def test_files_that_are_no_bags(folder: Path, episode_bag: Path) -> None:
    for content in (b"", b"\0", b"\x89MCAP0\r\n", b"PK\3\4" * 100, b"\xff" * 4096):
        for keeps in (True, False):
            tried("file that is no bag", with_content(episode_bag, content, keeps), episode_bag)
    empty = folder / "try_empty" / "bag"
    empty.mkdir(parents=True)
    tried("file that is no bag", empty, episode_bag)
