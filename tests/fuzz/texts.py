# SPDX-License-Identifier: Apache-2.0
"""Text files that are wrong somewhere: bytes, lines, and values under their keys."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import strategies as st
from messages import TEXTS

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, [], {}, "", "x", -1, 0, 0.0, 2**70, 1e308]),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.integers(),
    st.floats(),
    TEXTS.filter(lambda text: len(text) < 10_000),
    st.lists(st.integers(), max_size=3),
)


@st.composite
def spoiled_bytes(draw: Any, sound: bytes) -> bytes:
    """Cut, flipped, doubled, or of something else."""
    way = draw(st.integers(0, 3))
    if way == 0:
        return sound[: draw(st.integers(0, max(0, len(sound) - 1)))]
    if way == 1:
        changed = bytearray(sound)
        for _ in range(draw(st.integers(1, 5))):
            changed[draw(st.integers(0, len(sound) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    if way == 2:
        return sound + sound
    return draw(
        st.sampled_from(
            [
                *(b"", b"\0", b"\xff\xfe", b"&a [*a]", b"a: &a [1]\nb: [*a, *a]"),
                *(b"a: 2001-99-99", b"a: 1e999", b"{a: b: c}"),
                *(text * 5000 for text in (b"[", b"{", b"<a>", b"- ")),
            ]
        )
        | st.binary(max_size=60)
    )


@st.composite
def spoiled(draw: Any, content: Any) -> Any:
    """Plain values with one to three of them another one, gone, or under another key."""
    changed = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        changed = _spoil(draw, changed)
    return changed


def _spoil(draw: Any, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        way = draw(st.integers(0, 7))
        if way == 0:
            del value[key]
        elif way == 1:
            value[draw(st.sampled_from(["x", "__class__", "0", key + key]))] = value.pop(key)
        else:
            value[key] = _spoil(draw, value[key])
        return value
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(value) - 1))
        way = draw(st.integers(0, 5))
        if way == 0:
            del value[place]
        elif way == 1:
            value.append(value[place])
        else:
            value[place] = _spoil(draw, value[place])
        return value
    return draw(SCALARS)


def as_yaml(content: Any) -> bytes:
    return str(yaml.safe_dump(content)).encode("utf-8", "replace")


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode("utf-8", "replace")
