# SPDX-License-Identifier: Apache-2.0
"""ROS messages that are wrong somewhere, as they would come over the wire."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message

FLOATS = st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 0.0]) | st.floats()
_WIDE = 3.0e38
TEXTS = st.sampled_from(
    [
        "",
        " ",
        "../../etc/passwd",
        "/dev/zero",
        "\u0661",
        "²",
        "9" * 5000,
        "a" * 100_000,
        "%s{0}",
        "\n",
    ]
) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
_LENGTHS = st.sampled_from([0, 1, 2, 3, 100, 3000])
_ARRAY = re.compile(r"(.+)\[(\d+)\]")
_INTEGER = re.compile(r"(u?)int(8|16|32|64)")


@st.composite
def broken(draw: Any, make: Callable[[], Any], most: int = 3) -> Any:
    """A message of `make` with up to `most` fields that are not as they were."""
    message = make()
    for _ in range(draw(st.integers(1, most))):
        _break(draw, message)
    return deserialize_message(serialize_message(message), type(message))


def _break(draw: Any, message: Any) -> None:
    """Go down into a message, field by field, and break what is there."""
    while True:
        fields = message.get_fields_and_field_types()
        name = draw(st.sampled_from(sorted(fields)))
        kind, value = fields[name], getattr(message, name)
        if kind.startswith("sequence<"):
            inner = kind.removeprefix("sequence<").removesuffix(">").partition(",")[0]
            if len(value) and "/" in inner and draw(st.integers(0, 2)):
                message = value[draw(st.integers(0, len(value) - 1))]
                continue
            setattr(message, name, _sequence(draw, inner, list(value)))
        elif "/" in kind:
            message = value
            continue
        elif match := _ARRAY.fullmatch(kind):
            changed = np.array(value)
            place = draw(st.integers(0, len(changed) - 1))
            changed[place] = draw(_scalar(match[1]))
            setattr(message, name, changed)
        else:
            setattr(message, name, draw(_scalar(kind)))
        return


def _sequence(draw: Any, kind: str, values: list[Any]) -> list[Any]:
    """Break one element where there are any, or the length."""
    if values and "/" not in kind and draw(st.booleans()):
        values[draw(st.integers(0, len(values) - 1))] = draw(_scalar(kind))
        return values
    way = draw(st.integers(0, 3))
    if way == 0:
        return values[: draw(_LENGTHS)]
    if way == 1:
        return values[::-1]
    if way == 2 and values:
        return values + values[-1:]
    if values:
        return (values * 3000)[: draw(_LENGTHS)]
    return [] if "/" in kind else [draw(_scalar(kind))] * draw(_LENGTHS)


def _scalar(kind: str) -> st.SearchStrategy[Any]:
    if match := _INTEGER.fullmatch(kind):
        bits, low = int(match[2]), 0
        if not match[1]:
            bits, low = bits - 1, -(2 ** (bits - 1))
        high = 2**bits - 1
        return st.sampled_from([low, high, 0, 1]) | st.integers(low, high)
    if kind == "double":
        return FLOATS
    if kind == "float":
        return FLOATS.map(lambda x: x if not math.isfinite(x) else max(-_WIDE, min(_WIDE, x)))
    if kind == "boolean":
        return st.booleans()
    if kind in ("octet", "byte"):
        return st.integers(0, 255).map(lambda number: bytes([number]))
    assert kind.startswith("string"), kind
    return TEXTS
