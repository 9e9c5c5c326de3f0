# SPDX-License-Identifier: Apache-2.0
"""What is known about an episode, and how rosbag2 keeps it in `metadata.yaml`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from twinloop.bags.errors import BagError, BagWriteError
from twinloop.yaml_files import YamlRefused, load_plain

try:
    # libyaml's emitter, where PyYAML was built with it: a bag's end takes a fraction of the time.
    from yaml import CSafeDumper as _Dumper
except ImportError:
    from yaml import SafeDumper as _Dumper  # type: ignore[assignment]

METADATA_FILE = "metadata.yaml"
FORMAT_VERSION = 9  # of rosbag2 in ROS 2 Jazzy
CUSTOM_KEY = "twinloop"
_MAX_FILE_BYTES = 4 * 2**20
_MAX_TIME_NS = 2**63 - 1


class EpisodeMetadata(BaseModel):
    """One episode: what ran, under which contract, and how it ended."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    episode_id: str = Field(min_length=1, max_length=200)
    index: int = Field(default=0, ge=0)
    task: str
    goal: str = ""
    """What was wanted of the task, such as `ccw`."""
    places: tuple[float, ...] = ()
    """Numbers that went with the goal, such as places; empty where it has none."""
    robot: str = ""
    source: str = ""
    """What the robot was: `mujoco`, `pybullet`, or a robot's name."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    model_version: str = ""
    """The last one; `plan_stats` has it for every step."""
    contract: dict[str, Any] = Field(default_factory=dict)
    contract_hash: str = ""
    controller: dict[str, Any] = Field(default_factory=dict)
    """Gains and limits of the joint controller, by name."""
    namespace: str = ""
    """Of the topics; `/left` for a topic `/left/joint_states`, empty for `/joint_states`."""
    versions: dict[str, str] = Field(default_factory=dict)
    steps: int | None = Field(default=None, ge=0)
    rotation_deg: float | None = None
    dropped: bool | None = None
    stop_reason: str | None = None
    repair: dict[str, int] | None = None
    """Not None: the bag was broken; counts of messages kept, bytes lost and damaged places."""

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, content: Any) -> Any:
        """Bags of earlier versions have the goal as `direction`."""
        if isinstance(content, dict) and "goal" not in content and "direction" in content:
            return content | {"goal": content["direction"]}
        return content

    def topic(self, name: str) -> str:
        """Return the absolute name of a relative topic in this bag."""
        return name if name.startswith("/") else f"{self.namespace.rstrip('/')}/{name}"


@dataclass(frozen=True)
class TopicInformation:
    """A topic as `metadata.yaml` lists it."""

    name: str
    type: str
    digest: str
    qos: tuple[dict[str, Any], ...]
    message_count: int


@dataclass(frozen=True)
class BagInformation:
    """The content of `metadata.yaml`."""

    files: tuple[str, ...]
    start_ns: int
    duration_ns: int
    message_count: int
    topics: tuple[TopicInformation, ...]
    episode: EpisodeMetadata | None
    """None for a bag that another program wrote."""
    ros_distro: str = "jazzy"

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.duration_ns


def episode_from_json(text: str, path: Path) -> EpisodeMetadata:
    """Parse the episode's JSON.

    Raises:
        BagError: not JSON, or not what `EpisodeMetadata` asks for.
    """
    try:
        return EpisodeMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the JSON"
        raise BagError(path, f"episode metadata: {where}: {first['msg']}") from error


def to_yaml(information: BagInformation) -> str:
    """Return the text of `metadata.yaml`, field by field as rosbag2 writes it."""
    start = {"nanoseconds_since_epoch": information.start_ns}
    duration = {"nanoseconds": information.duration_ns}
    custom = None
    if information.episode is not None:
        custom = {CUSTOM_KEY: information.episode.model_dump_json()}
    content = {
        "version": FORMAT_VERSION,
        "storage_identifier": "mcap",
        "duration": duration,
        "starting_time": start,
        "message_count": information.message_count,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": list(topic.qos),
                    "type_description_hash": topic.digest,
                },
                "message_count": topic.message_count,
            }
            for topic in information.topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": list(information.files),
        "files": [
            {
                "path": name,
                "starting_time": start,
                "duration": duration,
                "message_count": information.message_count,
            }
            for name in information.files
        ],
        "custom_data": custom,
        "ros_distro": information.ros_distro,
    }
    return yaml.dump(
        {"rosbag2_bagfile_information": content}, Dumper=_PlainDumper, sort_keys=False, width=2**20
    )


def write_metadata(folder: Path, information: BagInformation) -> None:
    """Write `metadata.yaml` in one step: it is there whole, or not at all, also after a power cut.

    Raises:
        BagWriteError: the disk refused.
    """
    path = folder / METADATA_FILE
    temporary = folder / f".{METADATA_FILE}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(to_yaml(information))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(folder)
        sync_folder(folder.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BagWriteError(path, f"cannot be written: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Make sure that new and renamed entries of a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_metadata(folder: Path) -> BagInformation:
    """Read and check `metadata.yaml`.

    Raises:
        BagError: it is missing, so that the bag is incomplete, or not as rosbag2 writes it.
    """
    path = folder / METADATA_FILE
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise BagError(path, f"is {size} bytes long, expected at most {_MAX_FILE_BYTES}")
        content = load_plain(path.read_text(encoding="utf-8"))
        return _parse(content["rosbag2_bagfile_information"], path)
    except FileNotFoundError as error:
        raise BagError(
            folder, f"has no {METADATA_FILE}: the bag is incomplete, 'twinloop bag repair' mends it"
        ) from error
    except OSError as error:
        raise BagError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BagError(path, f"is not text: {error}") from error
    except YamlRefused as error:
        raise BagError(path, str(error)) from error
    except KeyError as error:
        raise BagError(path, f"lacks the field {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BagError(path, f"is not the metadata of a bag: {error}") from error


def _parse(content: dict[str, Any], path: Path) -> BagInformation:
    version = _integer(content["version"], "version")
    if not 5 <= version <= FORMAT_VERSION:
        raise BagError(path, f"has format version {version}, expected 5 to {FORMAT_VERSION}")
    if content["storage_identifier"] != "mcap":
        raise BagError(path, f"names storage {content['storage_identifier']!r}, expected 'mcap'")
    if content.get("compression_mode") not in ("", "none", "NONE", None):
        raise BagError(path, "is compressed as a whole or by message, expected plain MCAP")
    files = tuple(content["relative_file_paths"])
    if not files or any(not isinstance(name, str) or Path(name).name != name for name in files):
        raise BagError(path, f"lists files {files!r}, expected names of files beside it")
    custom = content.get("custom_data") or {}
    return BagInformation(
        files=files,
        start_ns=_integer(content["starting_time"]["nanoseconds_since_epoch"], "starting_time"),
        duration_ns=_integer(content["duration"]["nanoseconds"], "duration"),
        message_count=_integer(content["message_count"], "message_count"),
        topics=tuple(_topic(topic) for topic in content["topics_with_message_count"]),
        episode=episode_from_json(custom[CUSTOM_KEY], path) if CUSTOM_KEY in custom else None,
        ros_distro=str(content.get("ros_distro", "")),
    )


def _topic(content: dict[str, Any]) -> TopicInformation:
    about = content["topic_metadata"]
    qos = about.get("offered_qos_profiles") or []
    if isinstance(qos, str):  # up to format version 8
        qos = load_plain(qos)
    return TopicInformation(
        name=str(about["name"]),
        type=str(about["type"]),
        digest=str(about.get("type_description_hash", "")),
        qos=tuple(dict(profile) for profile in qos),
        message_count=_integer(content["message_count"], "message_count"),
    )


def _integer(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_TIME_NS:
        raise ValueError(f"{name} is {value!r}, expected an integer from 0 to 2^63 - 1")
    return value


class _PlainDumper(_Dumper):
    """Writes repeated values out in full: the YAML reader of rosbag2 needs no anchors then."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
