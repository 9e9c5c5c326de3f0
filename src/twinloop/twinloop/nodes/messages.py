# SPDX-License-Identifier: Apache-2.0
"""Message classes by their type name."""

from __future__ import annotations

import importlib
from typing import Any


def message_class(type_name: str) -> Any:
    """Return the class of a type such as `sensor_msgs/msg/JointState`.

    Raises:
        ValueError: no such type is installed.
    """
    package, _, name = type_name.replace("/msg/", "/").partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"message type {type_name!r} is not installed") from error
