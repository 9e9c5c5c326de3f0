# SPDX-License-Identifier: Apache-2.0
"""Message types without ROS: definitions, hashes, and conversion from and to CDR bytes.

The standard types come with `rosbags`. Every other type, our own `twinloop_interfaces` first, is
read from its `.msg` file: in the source tree, or in the share folder of an installed package.
Definitions found inside a bag are never compiled, so a hostile bag cannot run code.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.base import TypesysError
from rosbags.typesys.store import Typestore

_TYPE_NAME = re.compile(r"([a-z][a-z0-9_]*)/msg/([A-Za-z][A-Za-z0-9]*)")


class TypeDefinition(NamedTuple):
    """What a bag stores about a message type."""

    text: str
    """The `.msg` text, followed by those of the types it contains (encoding `ros2msg`)."""
    digest: str
    """The REP-2011 hash, `RIHS01_` and 64 hexadecimal digits; empty where it is not known."""
    encoding: str = "ros2msg"


class UnknownType(ValueError):
    """No definition of a message type was found."""


@cache
def definition(type_name: str) -> TypeDefinition:
    """Return the definition of a type such as `sensor_msgs/msg/JointState`.

    Raises:
        UnknownType: no package that can be found defines it.
    """
    store = _store_with(type_name)
    text, _ = store.generate_msgdef(type_name, ros_version=2)
    return TypeDefinition(text, store.hash_rihs01(type_name))


def is_type_name(text: str) -> bool:
    """Tell whether a text reads like `package/msg/Name`."""
    return _TYPE_NAME.fullmatch(text) is not None


def serialize(message: Any, type_name: str) -> bytes:
    """Return the little-endian CDR bytes of a message made by `message_class`.

    Raises:
        UnknownType: see `definition`.
    """
    return bytes(_store_with(type_name).serialize_cdr(message, type_name, little_endian=True))


def deserialize(cdr: bytes | memoryview, type_name: str) -> Any:
    """Return the message in `cdr`, an instance of `message_class(type_name)`.

    Raises:
        UnknownType: see `definition`.
        ValueError: the bytes are not a message of that type.
    """
    store = _store_with(type_name)
    try:
        return store.deserialize_cdr(cdr, type_name)
    except (SerdeError, IndexError, OverflowError, MemoryError, AssertionError) as error:
        raise ValueError(f"{len(cdr)} bytes are not a valid {type_name}: {error}") from error


def message_class(type_name: str) -> Any:
    """Return the dataclass of a message type, with the fields of the ROS class.

    Raises:
        UnknownType: see `definition`.
    """
    return _store_with(type_name).types[type_name]


@cache
def _standard_store() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


@cache
def _store_with(type_name: str) -> Typestore:
    store = _standard_store()
    if type_name not in store.types:
        _register(type_name, store)
    return store


def _register(type_name: str, store: Typestore) -> None:
    """Add a type, and first the types that its fields need, from `.msg` files."""
    path = _definition_file(type_name)
    try:
        parsed = get_types_from_msg(path.read_text(encoding="utf-8"), type_name)
    except (TypesysError, OSError, UnicodeDecodeError) as error:
        raise UnknownType(f"{path} does not define {type_name}: {error}") from error
    for _, description in parsed[type_name][1]:
        inner = description
        while inner[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            inner = inner[1][0]
        if inner[0] == Nodetype.NAME and inner[1] not in store.types:
            _register(inner[1], store)
    store.register(parsed)


def _definition_file(type_name: str) -> Path:
    match = _TYPE_NAME.fullmatch(type_name)
    if match is None:
        raise UnknownType(f"message type {type_name!r} does not read like package/msg/Name")
    package, name = match.groups()
    roots = [folder / package / "msg" for folder in _package_folders()]
    for root in roots:
        path = root / f"{name}.msg"
        if path.is_file():
            return path
    searched = ", ".join(str(root) for root in roots)
    raise UnknownType(f"no definition of {type_name} in {searched}; is the workspace sourced?")


def _package_folders() -> list[Path]:
    """Return the folders that may hold interface packages, the source tree first."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    source_tree = Path(__file__).resolve().parents[3]
    return [source_tree, *(Path(prefix, "share") for prefix in dict.fromkeys(prefixes) if prefix)]
