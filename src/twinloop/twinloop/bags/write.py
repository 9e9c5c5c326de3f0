# SPDX-License-Identifier: Apache-2.0
"""Writing one episode as a rosbag2 folder that a killed process leaves nearly whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from mcap.data_stream import RecordBuilder
from mcap.records import Channel, Schema
from mcap.writer import CompressionType, Writer

from twinloop.bags.errors import BagError, BagWriteError
from twinloop.bags.metadata import (
    CUSTOM_KEY,
    BagInformation,
    EpisodeMetadata,
    TopicInformation,
    to_yaml,
    write_metadata,
)
from twinloop.bags.qos import qos_profile, qos_text
from twinloop.bags.types import TypeDefinition, definition, serialize

CHUNK_BYTES = 64 * 1024
_MESSAGE_OVERHEAD = 31  # opcode, length, channel, sequence and two times of an MCAP message
_MIN_CHUNK_BYTES = 1024
_UNBOUNDED = 2**62


class EpisodeWriter:
    """Writes messages into `<path>/<name of path>.mcap`, and `<path>/metadata.yaml` at the end.

    A chunk goes to the operating system as soon as it is full or old, so a killed process loses
    the open chunk at most. `metadata.yaml` appears last: a folder that has it is complete. The
    episode's metadata and the message types are in the file from the start, which lets `repair`
    bring back a bag whose writer was killed.

    Args:
        path: folder to make; its parents are made too.
        metadata: what is known at the start; `close` adds how it ended. None for messages that
            are no episode.
        chunk_bytes: upper bound of a chunk [bytes]; a larger message gets a chunk of its own.
        chunk_age_s: a chunk is also written out when its first message is older [s].

    Raises:
        BagError: the folder exists already.
        BagWriteError: the disk refused; raised by every method that writes, and what was written
            before stays.
    """

    def __init__(
        self,
        path: Path | str,
        metadata: EpisodeMetadata | None,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        chunk_age_s: float = 1.0,
    ) -> None:
        if chunk_bytes < _MIN_CHUNK_BYTES:
            raise ValueError(f"chunk_bytes is {chunk_bytes}, expected at least {_MIN_CHUNK_BYTES}")
        self.path = Path(path)
        self.metadata = metadata
        self._chunk_bytes = chunk_bytes
        self._chunk_age_ns = int(chunk_age_s * 1e9)
        self._open_bytes = 0
        self._open_since_ns: int | None = None
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, _TopicCount] = {}
        self._start_ns, self._end_ns, self._message_count = 0, 0, 0
        try:
            self.path.mkdir(parents=True)
        except FileExistsError as error:
            raise BagError(self.path, "exists already, expected a new folder") from error
        except OSError as error:
            raise BagWriteError(self.path, f"cannot be made: {error.strerror or error}") from error
        self._file = _UnbufferedFile(self.path / f"{self.path.name}.mcap")
        # A chunk never ends by size inside the library, which would let it grow past the bound.
        stream = cast(IO[bytes], self._file)
        self._mcap = Writer(stream, _UNBOUNDED, compression=CompressionType.NONE)
        self._mcap.start(profile="ros2", library="twinloop")
        if metadata is not None:
            self._mcap.add_metadata(CUSTOM_KEY, {"episode": metadata.model_dump_json()})

    @property
    def message_count(self) -> int:
        return self._message_count

    @property
    def bytes_written(self) -> int:
        return self._file.tell()

    def add_topic(
        self,
        topic: str,
        type_name: str,
        *,
        qos: tuple[dict[str, Any], ...] | None = None,
        type_definition: TypeDefinition | None = None,
    ) -> None:
        """Announce a topic (absolute name); done by the first write otherwise.

        Args:
            topic: absolute name, such as `/joint_states`.
            type_name: such as `sensor_msgs/msg/JointState`.
            qos: profiles of its publishers, see `qos_profile`; reliable and depth 10 by default.
            type_definition: for a type whose `.msg` file is not at hand.

        Raises:
            BagError: the topic was announced with another type, or is not an absolute name.
            UnknownType: no definition of the type was found.
        """
        known = self._channels.get(topic)
        if known is not None:
            if known.type != type_name:
                raise BagError(self.path, f"{topic} is {type_name}, but was {known.type} before")
            return
        if not topic.startswith("/"):
            raise BagError(self.path, f"topic {topic!r} is relative, expected an absolute name")
        defined = type_definition or definition(type_name)
        qos = (qos_profile(),) if qos is None else qos
        # The library puts descriptions into the open chunk. A second copy outside of chunks, where
        # MCAP allows them too, keeps the other chunks readable if that one is lost.
        copies = RecordBuilder()
        if type_name not in self._schemas:
            text = defined.text.encode()
            number = self._mcap.register_schema(type_name, defined.encoding, text)
            self._schemas[type_name] = number
            Schema(id=number, name=type_name, encoding=defined.encoding, data=text).write(copies)
        schema_id = self._schemas[type_name]
        about = {
            "offered_qos_profiles": qos_text(qos),
            "topic_type_hash": defined.digest,
        }
        channel_id = self._mcap.register_channel(topic, "cdr", schema_id, about)
        Channel(
            id=channel_id,
            topic=topic,
            message_encoding="cdr",
            metadata=about,
            schema_id=schema_id,
        ).write(copies)
        self._open_bytes += copies.count
        self._file.write(copies.end())
        self._channels[topic] = _TopicCount(channel_id, type_name, defined.digest, qos)

    def write_raw(
        self,
        topic: str,
        type_name: str,
        cdr: bytes,
        log_time_ns: int,
        publish_time_ns: int | None = None,
    ) -> None:
        """Append a message that is serialised already.

        Args:
            topic: absolute name.
            type_name: such as `sensor_msgs/msg/JointState`.
            cdr: the message with its 4-byte CDR header.
            log_time_ns: when it was received [ns].
            publish_time_ns: when it was sent [ns]; the log time by default.

        Raises:
            BagError, UnknownType: see `add_topic`; BagError also for a negative time.
        """
        if log_time_ns < 0:
            raise BagError(self.path, f"{topic}: log time is {log_time_ns} ns, expected 0 or more")
        known = self._channels.get(topic)
        if known is None or known.type != type_name:
            self.add_topic(topic, type_name)
            known = self._channels[topic]
        size = len(cdr) + _MESSAGE_OVERHEAD
        if self._open_since_ns is not None and (
            self._open_bytes + size > self._chunk_bytes
            or log_time_ns - self._open_since_ns > self._chunk_age_ns
        ):
            self.flush()
        published = log_time_ns if publish_time_ns is None else publish_time_ns
        self._mcap.add_message(known.id, log_time_ns, cdr, published, known.count)
        if self._open_since_ns is None:
            self._open_since_ns = log_time_ns
        self._open_bytes += size
        first = self._message_count == 0
        self._start_ns = log_time_ns if first else min(self._start_ns, log_time_ns)
        self._end_ns = max(self._end_ns, log_time_ns)
        self._message_count += 1
        known.count += 1

    def write(self, topic: str, type_name: str, message: Any, log_time_ns: int) -> None:
        """Append a message made by `types.message_class(type_name)`."""
        self.write_raw(topic, type_name, serialize(message, type_name), log_time_ns)

    def flush(self) -> None:
        """Give the open chunk to the operating system."""
        self._mcap.flush()
        self._open_bytes = 0
        self._open_since_ns = None

    def close(self, **outcome: Any) -> Path:
        """Finish the bag: index, then `metadata.yaml`, each safe on the disk. Returns the folder.

        Args:
            outcome: fields of `EpisodeMetadata` known only now, such as `dropped`.
        """
        if self.metadata is not None:
            self.metadata = EpisodeMetadata.model_validate(self.metadata.model_dump() | outcome)
        information = self.information()
        try:
            content = {"serialized_metadata": to_yaml(information)}
            self._mcap.flush()
            self._mcap.add_metadata("rosbag2", content)
            self._mcap.finish()
            self._file.sync()
        finally:
            self._file.close()
        write_metadata(self.path, information)
        return self.path

    def abort(self) -> None:
        """Leave the bag incomplete; the open chunk is still written where the disk allows it."""
        with contextlib.suppress(BagWriteError):
            self.flush()
        self._file.close()

    def information(self) -> BagInformation:
        """Return what `metadata.yaml` would say now."""
        return BagInformation(
            files=(f"{self.path.name}.mcap",),
            start_ns=self._start_ns,
            duration_ns=max(self._end_ns - self._start_ns, 0),
            message_count=self._message_count,
            topics=tuple(
                TopicInformation(name, topic.type, topic.digest, topic.qos, topic.count)
                for name, topic in self._channels.items()
            ),
            episode=self.metadata,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file.closed:
            return
        if kind is None:
            self.close()
        else:
            self.abort()


class _TopicCount:
    """A channel of the open bag and how many messages it got."""

    __slots__ = ("count", "digest", "id", "qos", "type")

    def __init__(self, id: int, type: str, digest: str, qos: tuple[dict[str, Any], ...]) -> None:
        self.id, self.type, self.digest, self.qos = id, type, digest, qos
        self.count = 0


class _UnbufferedFile:
    """A new file whose writes reach the operating system whole, or raise `BagWriteError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0
        self._failed: str | None = None
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            raise BagWriteError(path, f"cannot be made: {error.strerror or error}") from error
        self.closed = False
        # Held as long as the process lives: it tells an unfinished bag from an abandoned one.
        # Where the file system knows no locks, nothing is lost but that.
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes | memoryview) -> int:
        if self._failed is not None:
            raise BagWriteError(self.path, f"{self._failed}; this bag takes no more messages")
        rest = memoryview(data)
        try:
            while rest:
                written = os.write(self._descriptor, rest)
                self._position += written
                rest = rest[written:]
        except OSError as error:
            self._failed = f"cannot be written: {error.strerror or error}"
            raise BagWriteError(self.path, self._failed) from error
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            problem = f"cannot be synced: {error.strerror or error}"
            raise BagWriteError(self.path, problem) from error

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)
