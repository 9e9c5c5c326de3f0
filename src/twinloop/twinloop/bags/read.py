# SPDX-License-Identifier: Apache-2.0
"""Reading bags: their metadata, their messages, and where they are."""

from __future__ import annotations

import fcntl
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from twinloop.bags.errors import BagError
from twinloop.bags.metadata import METADATA_FILE, BagInformation, read_metadata
from twinloop.bags.records import (
    ChannelRecord,
    ChunkRecord,
    Damage,
    Malformed,
    McapFile,
    MessageRecord,
    SchemaRecord,
)
from twinloop.bags.types import deserialize

BROKEN_SUFFIX = ".broken"
REPAIRING_SUFFIX = ".repairing"
TRACKS_SUFFIX = ".tracks"


class BagMessage(NamedTuple):
    """One recorded message, still serialised."""

    topic: str
    type: str
    log_time_ns: int
    publish_time_ns: int
    cdr: bytes

    def decode(self) -> Any:
        """Return the message; `ValueError` where the bytes are not of its type."""
        return deserialize(self.cdr, self.type)


class Topics:
    """The channels and schemas seen so far in a file, as messages refer to them by number."""

    def __init__(self) -> None:
        self.schemas: dict[int, SchemaRecord] = {}
        self.channels: dict[int, ChannelRecord] = {}

    def add(self, record: SchemaRecord | ChannelRecord) -> None:
        if isinstance(record, SchemaRecord):
            self.schemas[record.id] = record
        else:
            self.channels[record.id] = record

    def named(self, channel_id: int) -> tuple[ChannelRecord, SchemaRecord] | None:
        """Return the channel and its schema, None where one of them is not known."""
        channel = self.channels.get(channel_id)
        schema = self.schemas.get(channel.schema_id) if channel else None
        return (channel, schema) if channel and schema else None

    def all_named(self) -> dict[int, tuple[ChannelRecord, SchemaRecord]]:
        """Return every channel with its schema, by channel number."""
        pairs = {channel_id: self.named(channel_id) for channel_id in self.channels}
        return {channel_id: pair for channel_id, pair in pairs.items() if pair is not None}

    def message(self, record: MessageRecord) -> BagMessage:
        """Name a message.

        Raises:
            Malformed: its channel is unknown or not serialised as CDR.
        """
        named = self.named(record.channel_id)
        if named is None:
            raise Malformed(f"a message on channel {record.channel_id}, which is not described")
        channel, schema = named
        if channel.encoding != "cdr":
            raise Malformed(f"{channel.topic} is encoded as {channel.encoding!r}, expected 'cdr'")
        return BagMessage(
            channel.topic, schema.name, record.log_time_ns, record.publish_time_ns, record.data
        )


def metadata(path: Path | str) -> BagInformation:
    """Return what `metadata.yaml` says.

    Raises:
        BagError: the bag is missing, incomplete, or its metadata is not a bag's.
    """
    return read_metadata(bag_folder(path))


def read_messages(path: Path | str, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
    """Yield a complete bag's messages in the order they were written.

    Args:
        path: the bag's folder.
        topics: absolute names; None for all.

    Raises:
        BagError: the bag is incomplete or damaged; `repair` mends both.
    """
    folder = bag_folder(path)
    information = read_metadata(folder)
    count = 0
    for name in information.files:
        seen = Topics()
        with McapFile(folder / name) as file:
            for record in file.records():
                if isinstance(record, Damage):
                    raise BagError(
                        file.path,
                        f"is damaged at byte {record.offset}: {record.reason}; "
                        "'twinloop bag repair' keeps what is left",
                    )
                inner = record.contents if isinstance(record, ChunkRecord) else [record]
                for item in inner:
                    if isinstance(item, SchemaRecord | ChannelRecord):
                        seen.add(item)
                    elif isinstance(item, MessageRecord):
                        count += 1
                        message = _named(item, seen, file.path)
                        if topics is None or message.topic in topics:
                            yield message
    if count != information.message_count:
        raise BagError(
            folder,
            f"holds {count} messages, expected {information.message_count} as its metadata says",
        )


def _named(record: MessageRecord, seen: Topics, path: Path) -> BagMessage:
    try:
        return seen.message(record)
    except Malformed as error:
        raise BagError(path, str(error)) from error


def complete_bags(record_dir: Path | str) -> list[Path]:
    """Return the complete bags directly in a folder, oldest name first.

    Bags that are still being written or repaired, the broken originals that a repair has set
    aside, and the tracks that a tracker found in a bag's images are left out. A folder that does
    not exist holds none.
    """
    folder = Path(record_dir)
    return [path for path in _bag_like(folder) if (path / METADATA_FILE).is_file()]


def unfinished_bags(record_dir: Path | str) -> list[Path]:
    """Return the bags directly in a folder whose writer did not end well, oldest name first.

    A bag that is still being written is not among them.
    """
    folder = Path(record_dir)
    return [
        path
        for path in _bag_like(folder)
        if not (path / METADATA_FILE).exists()
        and any(path.glob("*.mcap"))
        and not is_being_written(path)
    ]


def is_being_written(folder: Path) -> bool:
    """Tell whether a living process writes this bag."""
    for path in folder.glob("*.mcap"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:  # a file system without locks
                continue
    return False


def _bag_like(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    aside = (BROKEN_SUFFIX, REPAIRING_SUFFIX, TRACKS_SUFFIX)
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.endswith(aside)
    )


def bag_folder(path: Path | str) -> Path:
    """Return the folder of a bag that is named by its folder or by the MCAP file in it.

    Raises:
        BagError: there is no such bag.
    """
    given = Path(path)
    folder = given.parent if given.suffix == ".mcap" and given.is_file() else given
    if not folder.is_dir():
        raise BagError(given, "is not there, expected the folder of a bag")
    return folder.resolve()


def mcap_files(folder: Path) -> list[Path]:
    """Return the MCAP files of a bag that may lack its metadata, in order.

    Raises:
        BagError: it has none.
    """
    # By length first, because rosbag2 numbers the parts of a bag without leading zeros.
    found = [path for path in folder.glob("*.mcap") if path.is_file()]
    files = sorted(found, key=lambda path: (len(path.name), path.name))
    if not files:
        raise BagError(folder, "holds no .mcap file, expected one")
    return files
