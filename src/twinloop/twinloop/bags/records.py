# SPDX-License-Identifier: Apache-2.0
"""The records of an MCAP file that may be damaged or hostile.

Format: https://mcap.dev/spec. Every size is compared with the bytes that are there before anything
is allocated, and damage is reported and stepped over instead of raised. The readers of the `mcap`
package trust sizes and stop at the first bad byte, which is why this one exists.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import lz4.frame  # type: ignore[import-untyped]
import zstandard

from twinloop.bags.errors import BagError

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
ATTACHMENT, STATISTICS, METADATA, SUMMARY_OFFSET, DATA_END = 0x09, 0x0B, 0x0C, 0x0E, 0x0F
_LAST_OPCODE = 0x0F
_PREFIX_BYTES = 9  # opcode and length
_MAX_RECORD_BYTES = 64 * 2**20  # also of a decompressed chunk
_SEARCH_BYTES = 2**20
_CHUNK_FIXED = struct.Struct("<QQQI")
_MESSAGE_FIXED = struct.Struct("<HIQQ")
_PREFIX = struct.Struct("<BQ")
# A chunk's opcode before a length below 2^32; looking ahead, so that hits may overlap.
_CHUNK_START = re.compile(rb"\x06(?=.{4}\x00{4})", re.DOTALL)


class Malformed(ValueError):
    """A record does not have the shape that its opcode asks for."""


class SchemaRecord(NamedTuple):
    id: int
    name: str
    encoding: str
    text: bytes


class ChannelRecord(NamedTuple):
    id: int
    schema_id: int
    topic: str
    encoding: str
    metadata: dict[str, str]


class MessageRecord(NamedTuple):
    channel_id: int
    sequence: int
    log_time_ns: int
    publish_time_ns: int
    data: bytes


class MetadataRecord(NamedTuple):
    name: str
    content: dict[str, str]


class ChunkRecord(NamedTuple):
    """A chunk whose checksum holds, or that carries none and is whole."""

    offset: int
    length: int
    start_ns: int
    end_ns: int
    contents: list[SchemaRecord | ChannelRecord | MessageRecord]


class OtherRecord(NamedTuple):
    """Any other record of the format: indexes, statistics, footer; attachments without body."""

    opcode: int
    offset: int
    body: bytes


class Damage(NamedTuple):
    """Bytes that hold no usable record."""

    offset: int
    length: int
    reason: str


Record = (
    SchemaRecord
    | ChannelRecord
    | MessageRecord
    | MetadataRecord
    | ChunkRecord
    | OtherRecord
    | Damage
)


@dataclass
class Fields:
    """Reads the fields of one record's body in turn, never past its end."""

    body: bytes | memoryview
    position: int = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.body):
            raise Malformed(f"a field of {count} bytes at {self.position} of {len(self.body)}")
        taken = bytes(self.body[self.position : end])
        self.position = end
        return taken

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> str:
        try:
            return self.take(self.u32()).decode()
        except UnicodeDecodeError as error:
            raise Malformed("a text is not UTF-8") from error

    def text_map(self) -> dict[str, str]:
        inner = Fields(self.take(self.u32()))
        result = {}
        while inner.position < len(inner.body):
            key = inner.text()
            result[key] = inner.text()
        return result


class McapFile:
    """An MCAP file open for bounded reads; use it as a context manager.

    Raises:
        BagError: the file cannot be opened or read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise BagError(path, f"cannot be opened: {error.strerror or error}") from error
        if self.size == 0:
            self._file.close()
            raise BagError(path, "is empty, expected an MCAP file")
        # Bytes that may be checksummed in search of chunks: a file made of overlapping beginnings
        # of chunks would otherwise cost time that grows with the square of its size.
        self._search_budget = 32 * self.size + _MAX_RECORD_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes; `Malformed` where the file ends before."""
        if length > self.size - offset:
            raise Malformed(f"{length} bytes are announced and {self.size - offset} are left")
        try:
            data = os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise BagError(self.path, f"cannot be read: {error.strerror or error}") from error
        if len(data) != length:
            raise Malformed(f"{length} bytes are announced and {len(data)} can be read")
        return data

    def records(self) -> Iterator[Record]:
        """Yield every record in file order, and `Damage` for whatever lies between good ones.

        After damage the search for the next good chunk starts behind the last chunk that was
        verified, because a wrong length in between may have led past good ones.
        """
        offset, verified = 0, 0
        if self.size >= len(MAGIC) and self.read(0, len(MAGIC)) == MAGIC:
            offset = verified = len(MAGIC)
            reason = ""
        else:
            reason = "the file does not begin like an MCAP file"
        ended = is_chunked = False
        while offset < self.size or reason:
            if not reason and ended and self.size - offset == len(MAGIC):
                if self.read(offset, len(MAGIC)) == MAGIC:
                    return
                reason = "the file does not end like an MCAP file"
            if not reason:
                try:
                    record, length = self._record(offset)
                    if is_chunked and isinstance(record, MessageRecord):
                        raise Malformed("a message outside of chunks in a file that has chunks")
                except Malformed as error:
                    reason = str(error)
                else:
                    yield record
                    offset += length
                    if isinstance(record, ChunkRecord):
                        verified, is_chunked = offset, True
                    ended = isinstance(record, OtherRecord) and record.opcode == FOOTER
                    continue
            found = self._next_chunk(verified)
            end = self.size if found is None else found
            start = offset if offset <= end else verified
            yield Damage(start, end - start, reason)
            if found is None:
                return
            offset = verified = found
            reason = ""
        if not ended:
            yield Damage(self.size, 0, "the file ends without a footer")
        else:
            yield Damage(self.size, 0, "the magic bytes at the end are missing")

    def _record(self, offset: int) -> tuple[Record, int]:
        """Parse the record at an offset; returns it and its length with the prefix [bytes]."""
        opcode, size = _PREFIX.unpack(self.read(offset, _PREFIX_BYTES))
        if not 1 <= opcode <= _LAST_OPCODE:
            raise Malformed(f"opcode {opcode:#04x} at byte {offset}")
        length = _PREFIX_BYTES + size
        if opcode == ATTACHMENT and length <= self.size - offset:
            return OtherRecord(opcode, offset, b""), length
        if size > _MAX_RECORD_BYTES:
            raise Malformed(f"a record of {size} bytes, expected at most {_MAX_RECORD_BYTES}")
        body = self.read(offset + _PREFIX_BYTES, size)
        if opcode == CHUNK:
            return parse_chunk(body, offset), length
        if opcode in _PARSERS:
            return _PARSERS[opcode](body), length
        _require_shape(opcode, body)
        return OtherRecord(opcode, offset, body), length

    def _next_chunk(self, start: int) -> int | None:
        """Return the offset of the next good chunk at or behind `start`."""
        while start < self.size and self._search_budget > 0:
            window = self.read(start, min(_SEARCH_BYTES, self.size - start))
            for match in _CHUNK_START.finditer(window):
                offset = start + match.start()
                if self._holds_chunk(offset):
                    return offset
                if self._search_budget <= 0:
                    return None
            # A match may straddle two windows, so they overlap by less than its length.
            step = len(window) - (_PREFIX_BYTES - 1)
            start += step if start + len(window) < self.size else len(window)
        return None

    def _holds_chunk(self, offset: int) -> bool:
        try:
            opcode, size = _PREFIX.unpack(self.read(offset, _PREFIX_BYTES))
            if opcode != CHUNK or size > min(_MAX_RECORD_BYTES, self.size - offset):
                return False
            # The fixed fields tell nearly every chance hit apart without reading the body.
            head = Fields(self.read(offset + _PREFIX_BYTES, min(size, 64)))
            _, _, unpacked_size, _ = head.unpack(_CHUNK_FIXED)
            compression = head.text()
            data_size = head.u64()
            if data_size != size - head.position or unpacked_size > _MAX_RECORD_BYTES:
                return False
            if compression not in _COMPRESSIONS:
                return False
            self._search_budget -= size + unpacked_size
            parse_chunk(self.read(offset + _PREFIX_BYTES, size), offset)
        except Malformed:
            return False
        return True


def parse_chunk(body: bytes, offset: int) -> ChunkRecord:
    """Parse a chunk, checking its checksum if it has one.

    Raises:
        Malformed: sizes, checksum or contents are wrong.
    """
    fields = Fields(body)
    start_ns, end_ns, size, checksum = fields.unpack(_CHUNK_FIXED)
    compression = fields.text()
    data_size = fields.u64()
    if data_size != len(body) - fields.position:
        raise Malformed(f"a chunk of {data_size} bytes in a record of {len(body)}")
    data = _decompressed(fields.take(data_size), compression, size)
    if checksum and zlib.crc32(data) != checksum:
        raise Malformed(f"the checksum of the chunk at byte {offset} is wrong")
    return ChunkRecord(offset, _PREFIX_BYTES + len(body), start_ns, end_ns, _contents(data))


def _decompressed(data: bytes, compression: str, size: int) -> bytes:
    if compression not in _COMPRESSIONS:
        raise Malformed(f"compression {compression!r}, expected none, lz4 or zstd")
    if size > _MAX_RECORD_BYTES:
        raise Malformed(f"a chunk of {size} bytes, expected at most {_MAX_RECORD_BYTES}")
    try:
        if compression == "zstd":
            data = zstandard.ZstdDecompressor().stream_reader(data).read(size + 1)
        elif compression == "lz4":
            data = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1)
    except (zstandard.ZstdError, RuntimeError, EOFError, MemoryError) as error:
        raise Malformed(f"{compression} data is damaged: {error}") from error
    if len(data) != size:
        raise Malformed(f"a chunk of {size} bytes holds {len(data)}")
    return data


def _contents(data: bytes) -> list[SchemaRecord | ChannelRecord | MessageRecord]:
    contents: list[SchemaRecord | ChannelRecord | MessageRecord] = []
    position, end = 0, len(data)
    while position < end:
        if end - position < _PREFIX_BYTES:
            raise Malformed("a chunk ends inside a record")
        opcode, size = _PREFIX.unpack_from(data, position)
        position += _PREFIX_BYTES
        if size > end - position:
            raise Malformed(f"a record of {size} bytes with {end - position} left in its chunk")
        body = data[position : position + size]
        if opcode == MESSAGE:
            contents.append(_parse_message(body))
        elif opcode == SCHEMA:
            contents.append(_parse_schema(body))
        elif opcode == CHANNEL:
            contents.append(_parse_channel(body))
        elif not 1 <= opcode <= _LAST_OPCODE:
            raise Malformed(f"opcode {opcode:#04x} inside a chunk")
        position += size
    return contents


def _require_shape(opcode: int, body: bytes) -> None:
    """Refuse records without a parser that are not what their opcode, maybe a flipped bit, says."""
    if len(body) != _EXACT_BYTES.get(opcode, len(body)):
        raise Malformed(f"a record of {len(body)} bytes with opcode {opcode:#04x}")
    if opcode == MESSAGE_INDEX:
        fields = Fields(body)
        fields.u16()
        if fields.u32() != len(body) - 6 or len(body) % 16 != 6:
            raise Malformed(f"a message index of {len(body)} bytes")


def _parse_message(body: bytes) -> MessageRecord:
    if len(body) < _MESSAGE_FIXED.size:
        raise Malformed(f"a message record of {len(body)} bytes")
    channel_id, sequence, log_time_ns, publish_time_ns = _MESSAGE_FIXED.unpack_from(body)
    data = body[_MESSAGE_FIXED.size :]
    return MessageRecord(channel_id, sequence, log_time_ns, publish_time_ns, data)


def _parse_schema(body: bytes) -> SchemaRecord:
    fields = Fields(body)
    return SchemaRecord(fields.u16(), fields.text(), fields.text(), fields.take(fields.u32()))


def _parse_channel(body: bytes) -> ChannelRecord:
    fields = Fields(body)
    identity, schema_id = fields.u16(), fields.u16()
    return ChannelRecord(identity, schema_id, fields.text(), fields.text(), fields.text_map())


def _parse_metadata(body: bytes) -> MetadataRecord:
    fields = Fields(body)
    return MetadataRecord(fields.text(), fields.text_map())


_EXACT_BYTES = {FOOTER: 20, SUMMARY_OFFSET: 17, DATA_END: 4}
_COMPRESSIONS = ("", "lz4", "zstd")
_PARSERS: dict[int, Callable[[bytes], Record]] = {
    SCHEMA: _parse_schema,
    CHANNEL: _parse_channel,
    MESSAGE: _parse_message,
    METADATA: _parse_metadata,
}
