# SPDX-License-Identifier: Apache-2.0
"""Looking a bag over: is it whole, does its metadata tell the truth, is its data sane."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from twinloop.bags.errors import BagError
from twinloop.bags.metadata import BagInformation, read_metadata
from twinloop.bags.read import BagMessage, Topics, bag_folder, mcap_files
from twinloop.bags.records import (
    CHUNK_INDEX,
    FOOTER,
    STATISTICS,
    ChannelRecord,
    ChunkRecord,
    Damage,
    Fields,
    Malformed,
    McapFile,
    MessageRecord,
    OtherRecord,
    SchemaRecord,
)
from twinloop.bags.types import UnknownType, definition
from twinloop.contract import Contract

# A gap counts as one when it is this many times the usual period, and not just a late message.
_GAP_FACTOR = 5.0
_GAP_FLOOR_S = 0.05
_MIN_REGULAR = 20
_PLAN_STATS = "twinloop_interfaces/msg/PlanStats"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Literal["error", "warning"]
    what: str
    """A short fixed name, such as `checksum` or `not_finite`."""
    message: str


@dataclass(frozen=True)
class TopicCadence:
    """How a topic's messages came in, by log time."""

    topic: str
    type: str
    messages: int
    rate_hz: float
    """Over the time from the first to the last message; 0 with fewer than two."""
    max_gap_s: float


@dataclass(frozen=True)
class CheckReport:
    path: Path
    findings: tuple[Finding, ...]
    topics: tuple[TopicCadence, ...]

    @property
    def is_sound(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)


@dataclass
class _TopicState:
    type: str
    times_ns: list[int] = field(default_factory=list)
    backwards: int = 0
    stamps_backwards: int = 0
    last_stamp_ns: int | None = None
    not_finite: int = 0
    undecodable: int = 0
    first_problem: str = ""


def check(path: Path | str, contract: Contract | None = None) -> CheckReport:
    """Check a bag: index, checksums, counts, order, cadence, types, contract, finite values.

    Args:
        path: the bag's folder, complete or not.
        contract: the one that is expected; by default the bag's own, if it names one.

    Raises:
        BagError: there is no bag at all. What is wrong with a bag is a finding.
    """
    folder = bag_folder(path)
    findings: list[Finding] = []
    information: BagInformation | None = None
    try:
        information = read_metadata(folder)
    except BagError as error:
        findings.append(Finding("error", "metadata", error.problem))
    topics: dict[str, _TopicState] = {}
    for file in mcap_files(folder):
        try:
            findings.extend(_check_file(file, topics))
        except BagError as error:
            findings.append(Finding("error", "file", f"{file.name} {error.problem}"))
    critical: set[str] = set()
    if information is not None:
        findings.extend(_check_against_metadata(folder, information, topics))
        critical = _check_contract(information, contract, findings)
    findings.extend(_check_topics(topics, critical, _span_of_steps(topics)))
    cadences = tuple(_cadence(name, topics[name]) for name in sorted(topics))
    return CheckReport(folder, tuple(findings), cadences)


def _check_file(path: Path, topics: dict[str, _TopicState]) -> Iterator[Finding]:
    """Check one MCAP file by itself and gather its messages' times into `topics`."""
    seen = Topics()
    chunks: dict[int, ChunkRecord] = {}
    indexed: dict[int, int] = {}
    counts: Counter[int] = Counter()
    statistics: OtherRecord | None = None
    last_ns = 0
    backwards = 0
    nameless: Counter[str] = Counter()
    with McapFile(path) as file:
        for record in file.records():
            if isinstance(record, Damage):
                where = f"{path.name}: {record.length} bytes at {record.offset}"
                yield Finding("error", "damage", f"{where}: {record.reason}")
            elif isinstance(record, OtherRecord):
                if record.opcode == CHUNK_INDEX and len(record.body) >= 32:
                    start = int.from_bytes(record.body[16:24], "little")
                    indexed[start] = int.from_bytes(record.body[24:32], "little")
                elif record.opcode == STATISTICS:
                    statistics = record
                elif record.opcode == FOOTER:
                    yield from _check_summary(file, record)
            inner = record.contents if isinstance(record, ChunkRecord) else [record]
            if isinstance(record, ChunkRecord):
                chunks[record.offset] = record._replace(contents=[])
            for item in inner:
                if isinstance(item, SchemaRecord | ChannelRecord):
                    seen.add(item)
                elif isinstance(item, MessageRecord):
                    counts[item.channel_id] += 1
                    backwards += item.log_time_ns < last_ns
                    last_ns = item.log_time_ns
                    try:
                        _take(seen.message(item), topics)
                    except Malformed as error:
                        nameless[str(error)] += 1
    for problem, times in nameless.items():
        yield Finding("error", "channel", f"{path.name}: {problem} ({times} times)")
    if backwards:
        text = f"{path.name}: log time goes back {backwards} times"
        yield Finding("warning", "order", text)
    if indexed and indexed != {offset: chunk.length for offset, chunk in chunks.items()}:
        yield Finding(
            "error",
            "index",
            f"{path.name}: the index lists {len(indexed)} chunks that are not the "
            f"{len(chunks)} good ones in the file",
        )
    if statistics is not None:
        yield from _check_statistics(path, statistics, counts, len(chunks))
    yield from _check_types(path, seen)


def _check_summary(file: McapFile, footer: OtherRecord) -> Iterator[Finding]:
    """Compare the summary's checksum, which covers all bytes up to the footer's checksum field."""
    try:
        fields = Fields(footer.body)
        start, _, checksum = fields.u64(), fields.u64(), fields.u32()
        covered = footer.offset + 9 + 16
        if checksum and start:
            if start > covered:
                raise Malformed(f"a summary at byte {start}, behind the footer")
            if zlib.crc32(file.read(start, covered - start)) != checksum:
                raise Malformed("the checksum of the summary is wrong")
    except Malformed as error:
        yield Finding("error", "index", f"{file.path.name}: {error}")


def _check_statistics(
    path: Path, record: OtherRecord, counts: Counter[int], chunk_count: int
) -> Iterator[Finding]:
    try:
        fields = Fields(record.body)
        messages = fields.u64()
        fields.take(2 + 4 + 4 + 4)
        chunks = fields.u32()
    except Malformed as error:
        yield Finding("error", "index", f"{path.name}: statistics: {error}")
        return
    found = sum(counts.values())
    if (messages, chunks) != (found, chunk_count):
        yield Finding(
            "error",
            "index",
            f"{path.name}: statistics tell of {messages} messages in {chunks} chunks, "
            f"{found} in {chunk_count} found",
        )


def _check_types(path: Path, seen: Topics) -> Iterator[Finding]:
    for channel, schema in seen.all_named().values():
        try:
            known = definition(schema.name)
        except UnknownType as error:
            yield Finding("warning", "type", f"{channel.topic}: {error}")
            continue
        digest = channel.metadata.get("topic_type_hash", "")
        if digest and digest != known.digest:
            text = f"{channel.topic}: {schema.name} has hash {digest}, expected {known.digest}"
            yield Finding("error", "type", f"{path.name}: {text}")
        if not digest and schema.text.decode(errors="replace") != known.text:
            text = f"{channel.topic}: the definition of {schema.name} is not the one known here"
            yield Finding("warning", "type", f"{path.name}: {text}")


def _take(message: BagMessage, topics: dict[str, _TopicState]) -> None:
    state = topics.setdefault(message.topic, _TopicState(message.type))
    state.times_ns.append(message.log_time_ns)
    try:
        decoded = message.decode()
    except UnknownType:
        return
    except ValueError as error:
        state.undecodable += 1
        state.first_problem = state.first_problem or str(error)
        return
    bad = _first_not_finite(decoded)
    if bad is not None:
        state.not_finite += 1
        state.first_problem = state.first_problem or bad
    header = getattr(decoded, "header", None)
    stamp = getattr(decoded, "stamp", None) if header is None else header.stamp
    if stamp is not None:
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec
        if state.last_stamp_ns is not None and stamp_ns < state.last_stamp_ns:
            state.stamps_backwards += 1
        state.last_stamp_ns = stamp_ns


def _first_not_finite(value: Any, name: str = "") -> str | None:
    """Return the name of the first field that holds NaN or infinity."""
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    if isinstance(value, np.ndarray):
        return name if value.dtype.kind == "f" and not np.isfinite(value).all() else None
    if isinstance(value, list):
        inner = ((item, f"{name}[{i}]") for i, item in enumerate(value))
    elif dataclasses.is_dataclass(value):
        prefix = f"{name}." if name else ""
        inner = ((getattr(value, f.name), prefix + f.name) for f in dataclasses.fields(value))
    else:
        return None
    return next((bad for item, path in inner if (bad := _first_not_finite(item, path))), None)


def _check_against_metadata(
    folder: Path, information: BagInformation, topics: dict[str, _TopicState]
) -> Iterator[Finding]:
    present = {path.name for path in mcap_files(folder)}
    if present != set(information.files):
        listed = sorted(information.files)
        text = f"metadata lists the files {listed}, {sorted(present)} are there"
        yield Finding("error", "metadata", text)
    for topic in information.topics:
        state = topics.get(topic.name)
        found = len(state.times_ns) if state else 0
        if found != topic.message_count:
            text = f"{topic.name}: metadata tells of {topic.message_count} messages, {found} found"
            yield Finding("error", "metadata", text)
        if state is not None and state.type != topic.type:
            text = f"{topic.name}: metadata says {topic.type}, the file {state.type}"
            yield Finding("error", "metadata", text)
    unlisted = sorted(set(topics) - {topic.name for topic in information.topics})
    if unlisted:
        yield Finding("error", "metadata", f"metadata does not list {', '.join(unlisted)}")
    times = [time for state in topics.values() for time in state.times_ns]
    if times and (min(times), max(times)) != (information.start_ns, information.end_ns):
        yield Finding(
            "error",
            "metadata",
            f"metadata says {information.start_ns} to {information.end_ns} ns, "
            f"messages are from {min(times)} to {max(times)} ns",
        )


def _check_contract(
    information: BagInformation, expected: Contract | None, findings: list[Finding]
) -> set[str]:
    """Compare contract and hashes; returns the topics that the contract's vectors need."""
    about = information.episode
    if about is None:
        findings.append(Finding("warning", "contract", "the bag does not name an episode"))
        return set()
    if not about.contract:
        findings.append(Finding("warning", "contract", "the bag does not name a contract"))
        return set()
    try:
        own = Contract.model_validate(about.contract)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        text = f"the contract in the metadata is no contract: {where}: {problem['msg']}"
        findings.append(Finding("error", "contract", text))
        return set()
    if own.hash() != about.contract_hash:
        text = f"the contract's hash is {own.hash()}, the metadata says {about.contract_hash}"
        findings.append(Finding("error", "contract", text))
    if expected is not None and own.hash() != expected.hash():
        text = f"recorded under {own.name} {own.hash()}, expected {expected.hash()}"
        findings.append(Finding("error", "contract", text))
    needed = {about.topic(channel.topic) for channel in own.observation}
    needed.add(about.topic(own.action.applied_topic))
    listed = {topic.name for topic in information.topics if topic.message_count}
    for topic in sorted(needed - listed):
        findings.append(Finding("error", "contract", f"{topic}: the contract needs it, no message"))
    if about.repair is not None:
        counts = ", ".join(f"{key} {value}" for key, value in about.repair.items())
        findings.append(Finding("warning", "repaired", f"the bag was repaired: {counts}"))
    return needed


def _span_of_steps(topics: dict[str, _TopicState]) -> tuple[int, int]:
    """Return the log times [ns] of the first and last control step, if any; else no bounds.

    Before and after them a reset may have moved a twin's clock, which is no loss.
    """
    steps = [state for state in topics.values() if state.type == _PLAN_STATS]
    times = [time for state in steps for time in state.times_ns]
    return (min(times), max(times)) if times else (0, 2**64)


def _check_topics(
    topics: dict[str, _TopicState], critical: set[str], span_ns: tuple[int, int]
) -> Iterator[Finding]:
    for name, state in sorted(topics.items()):
        if state.undecodable:
            text = f"{name}: {state.undecodable} messages are no {state.type}"
            yield Finding("error", "decode", f"{text}: {state.first_problem}")
        if state.not_finite:
            severity: Literal["error", "warning"] = "error" if name in critical else "warning"
            text = f"{name}: {state.not_finite} messages are not finite"
            yield Finding(severity, "not_finite", f"{text}: {state.first_problem}")
        if state.stamps_backwards:
            text = f"{name}: header stamps go back {state.stamps_backwards} times"
            yield Finding("warning", "order", text)
        gap = _gap(state, span_ns)
        if gap is not None:
            yield Finding("warning", "gap", f"{name}: nothing for {gap:.3f} s")


def _gap(state: _TopicState, span_ns: tuple[int, int]) -> float | None:
    """Return the longest pause [s] of a topic with a steady rate, None if there is none."""
    times = sorted(time for time in state.times_ns if span_ns[0] <= time <= span_ns[1])
    if len(times) < _MIN_REGULAR:
        return None
    steps_s = np.diff(np.array(times, dtype=np.float64)) / 1e9
    # Not the median: a twin in lock-step repeats samples in bursts.
    usual = float(np.quantile(steps_s, 0.9))
    longest = float(steps_s.max())
    return longest if longest > max(_GAP_FACTOR * usual, _GAP_FLOOR_S) else None


def _cadence(name: str, state: _TopicState) -> TopicCadence:
    count = len(state.times_ns)
    if count < 2:
        return TopicCadence(name, state.type, count, 0.0, 0.0)
    times = np.sort(np.array(state.times_ns, dtype=np.float64))
    span = float(times[-1] - times[0]) / 1e9
    rate = (count - 1) / span if span > 0 else 0.0
    return TopicCadence(name, state.type, count, rate, float(np.diff(times).max()) / 1e9)
