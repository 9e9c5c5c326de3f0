# SPDX-License-Identifier: Apache-2.0
"""Bringing back what is left of a bag: a killed writer, a cut file, bytes gone bad."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from twinloop.bags.errors import BagError
from twinloop.bags.metadata import (
    CUSTOM_KEY,
    METADATA_FILE,
    EpisodeMetadata,
    episode_from_json,
    read_metadata,
    sync_folder,
)
from twinloop.bags.qos import profiles_from_text
from twinloop.bags.read import (
    BROKEN_SUFFIX,
    REPAIRING_SUFFIX,
    Topics,
    bag_folder,
    is_being_written,
    mcap_files,
    unfinished_bags,
)
from twinloop.bags.records import (
    ChannelRecord,
    ChunkRecord,
    Damage,
    McapFile,
    MessageRecord,
    MetadataRecord,
    SchemaRecord,
)
from twinloop.bags.types import (
    TypeDefinition,
    UnknownType,
    definition,
    deserialize,
    is_type_name,
)
from twinloop.bags.write import EpisodeWriter

_EPISODE_STATUS = "twinloop_interfaces/msg/EpisodeStatus"


class NothingLeft(BagError):
    """Not one message of a bag can be read."""


class _Topic(NamedTuple):
    name: str
    type: str
    qos: tuple[dict[str, Any], ...]
    definition: TypeDefinition


@dataclass(frozen=True)
class RepairReport:
    """What a repair kept and lost."""

    path: Path
    """The valid bag."""
    original: Path | None
    """Where the broken bag is now; None if it was not kept."""
    messages_kept: int
    messages_dropped: int
    """Whole messages whose channel is not described anywhere."""
    bytes_lost: int
    damages: tuple[Damage, ...]
    topics: dict[str, int]
    """Messages kept by topic."""
    episode: EpisodeMetadata | None


@dataclass
class Survey:
    """Everything but the messages of a file that may be broken."""

    topics: Topics = field(default_factory=Topics)
    episode_json: str | None = None
    damages: list[Damage] = field(default_factory=list)


def survey(path: Path) -> Survey:
    """Read a file once for its topics, metadata and damage.

    A description inside a chunk, which a checksum covers, counts more than one outside.

    Raises:
        BagError: the file is empty or cannot be read.
    """
    found = Survey()
    verified = Topics()
    with McapFile(path) as file:
        for record in file.records():
            if isinstance(record, Damage):
                found.damages.append(record)
            elif isinstance(record, MetadataRecord):
                if record.name == CUSTOM_KEY and found.episode_json is None:
                    found.episode_json = record.content.get("episode")
            elif isinstance(record, SchemaRecord | ChannelRecord):
                found.topics.add(record)
            elif isinstance(record, ChunkRecord):
                for item in record.contents:
                    if isinstance(item, SchemaRecord | ChannelRecord):
                        verified.add(item)
    found.topics.schemas.update(verified.schemas)
    found.topics.channels.update(verified.channels)
    return found


def repair(
    path: Path | str, *, output: Path | str | None = None, keep_original: bool = True
) -> RepairReport:
    """Write a valid bag from what is left of a broken one.

    Chunks are kept whole or not at all: what has a wrong checksum might hold a wrong number.
    Attachments, which our bags do not have, are not carried over.

    Args:
        path: the broken bag's folder; a sound one is written anew without loss.
        output: folder of the valid bag; by default it takes the place of the broken one.
        keep_original: keep the broken one as `<path>.broken`; meaningless with `output`.

    Raises:
        BagError: no message is left, `output` is taken, or the disk refused. The original is then
            where it was.
    """
    folder = bag_folder(path)
    if is_being_written(folder):
        raise BagError(folder, "is being written, expected a bag whose writer has ended")
    target = Path(output) if output is not None else folder
    if output is not None and target.exists():
        raise BagError(target, "exists already, expected a new folder for the repaired bag")
    # The writer names the file after its folder, so the folder's final name is inside the scratch.
    scratch = target.with_name(target.name + REPAIRING_SUFFIX)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        report = _rewrite(folder, scratch / target.name)
        original = None
        if output is None:
            original = folder.rename(_aside_name(folder))
        (scratch / target.name).rename(target)
        sync_folder(target.parent)
        if original is not None and not keep_original:
            shutil.rmtree(original)
            original = None
    except OSError as error:
        raise BagError(folder, f"cannot be repaired: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return replace(report, path=target, original=original)


def repair_unfinished(record_dir: Path | str) -> list[RepairReport | BagError]:
    """Repair every bag in a folder whose writer did not end well.

    What cannot be repaired is returned, not raised. A bag in which nothing is left is set aside as
    `.broken`, so that it is not tried again.
    """
    folder = Path(record_dir)
    results: list[RepairReport | BagError] = []
    if folder.is_dir():
        _finish_interrupted(folder)
    for bag in unfinished_bags(folder):
        try:
            results.append(repair(bag))
        except NothingLeft as error:
            results.append(error)
            bag.rename(_aside_name(bag))
        except BagError as error:
            results.append(error)
    return results


def _rewrite(folder: Path, target: Path) -> RepairReport:
    """Copy what is good in `folder` to a new bag `target`."""
    files = mcap_files(folder)
    surveys = [_survey_or_damage(path) for path in files]
    episode = _episode(folder, surveys)
    damages = tuple(damage for found in surveys for damage in found.damages)
    kept, dropped, status = 0, 0, None
    writer = EpisodeWriter(target, episode)
    with writer:
        for path, found in zip(files, surveys, strict=True):
            topics = {key: _writable(*named) for key, named in found.topics.all_named().items()}
            for record in _messages(path) if topics else ():
                topic = topics.get(record.channel_id)
                if topic is None:
                    dropped += 1
                    continue
                name, type_name, qos, defined = topic
                writer.add_topic(name, type_name, qos=qos, type_definition=defined)
                writer.write_raw(
                    name, type_name, record.data, record.log_time_ns, record.publish_time_ns
                )
                kept += 1
                if type_name == _EPISODE_STATUS:
                    status = record.data
        if kept == 0:
            raise NothingLeft(folder, "holds no readable message, so nothing can be repaired")
        lost = sum(damage.length for damage in damages)
        outcome = _outcome(episode, status)
        if damages and episode is not None:
            counts = {"messages_kept": kept, "bytes_lost": lost, "damaged_places": len(damages)}
            outcome["repair"] = counts
        writer.close(**outcome)
    counted = {topic.name: topic.message_count for topic in writer.information().topics}
    return RepairReport(target, None, kept, dropped, lost, damages, counted, writer.metadata)


def _survey_or_damage(path: Path) -> Survey:
    try:
        return survey(path)
    except BagError as error:  # an empty file beside good ones
        return Survey(damages=[Damage(0, 0, error.problem)])


def _messages(path: Path) -> Iterator[MessageRecord]:
    with McapFile(path) as file:
        for record in file.records():
            if isinstance(record, MessageRecord):
                yield record
            elif isinstance(record, ChunkRecord):
                yield from (item for item in record.contents if isinstance(item, MessageRecord))


def _episode(folder: Path, surveys: list[Survey]) -> EpisodeMetadata | None:
    """Return the episode's metadata, from `metadata.yaml` or else from an MCAP file."""
    try:
        return read_metadata(folder).episode
    except BagError:
        pass
    for found in surveys:
        if found.episode_json is not None:
            try:
                return episode_from_json(found.episode_json, folder)
            except BagError:
                continue
    return None


def _outcome(episode: EpisodeMetadata | None, status: bytes | None) -> dict[str, Any]:
    """Return how the episode ended as its last recorded status tells, if nothing else does."""
    if episode is None or status is None or episode.stop_reason is not None:
        return {}
    try:
        last = deserialize(status, _EPISODE_STATUS)
    except (ValueError, UnknownType):
        return {}
    if last.phase != last.ENDED or last.episode_id != episode.episode_id:
        return {}
    return {
        "steps": int(last.step),
        "rotation_deg": float(last.rotation_deg) if math.isfinite(last.rotation_deg) else None,
        "dropped": bool(last.dropped),
        "stop_reason": str(last.stop_reason),
        "model_version": str(last.model_version) or episode.model_version,
    }


def _writable(channel: ChannelRecord, schema: SchemaRecord) -> _Topic | None:
    """Return what the writer needs to know of a topic; None where the description is no good."""
    well_formed = channel.topic.startswith("/") and is_type_name(schema.name)
    if not well_formed or channel.encoding != "cdr":
        return None
    try:
        text = schema.text.decode()
    except UnicodeDecodeError:
        return None
    digest = channel.metadata.get("topic_type_hash", "")
    if not digest:
        try:
            digest = definition(schema.name).digest
        except UnknownType:
            digest = ""
    profiles = profiles_from_text(channel.metadata.get("offered_qos_profiles", ""))
    defined = TypeDefinition(text, digest, schema.encoding)
    return _Topic(channel.topic, schema.name, profiles, defined)


def _aside_name(folder: Path) -> Path:
    number = 1
    while True:
        infix = "" if number == 1 else f".{number}"
        path = folder.with_name(f"{folder.name}{infix}{BROKEN_SUFFIX}")
        if not path.exists():
            return path
        number += 1


def _finish_interrupted(record_dir: Path) -> None:
    """Put repaired bags in their place whose repair was killed just before it would have."""
    for scratch in sorted(record_dir.glob(f"*{REPAIRING_SUFFIX}")):
        target = scratch.with_name(scratch.name.removesuffix(REPAIRING_SUFFIX))
        repaired = scratch / target.name
        if not target.exists() and (repaired / METADATA_FILE).is_file():
            repaired.rename(target)
        shutil.rmtree(scratch, ignore_errors=True)
