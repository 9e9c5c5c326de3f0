# SPDX-License-Identifier: Apache-2.0
"""Who commanded in a bag, from when to when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from twinloop.bags.errors import BagError
from twinloop.bags.read import metadata, read_messages

TOPIC = "control_status"
_WHO = ("autonomy", "pilot", "shared", "nobody")


@dataclass(frozen=True)
class ControlSpan:
    """A stretch of a bag in which one commanded.

    Attributes:
        who: `autonomy`, `pilot`, `shared` or `nobody`.
        begins_s, ends_s: since the bag's start.
        reason: why it began.
    """

    who: str
    begins_s: float
    ends_s: float
    reason: str


def control_spans(path: Path | str) -> list[ControlSpan]:
    """Return who commanded in a complete bag, in order; nothing where no pilot could.

    Raises:
        BagError: the bag is damaged.
    """
    about = metadata(path)
    names = {topic.name for topic in about.topics if topic.name.rpartition("/")[2] == TOPIC}
    changes: list[tuple[int, str, str]] = []
    for message in read_messages(path, names) if names else ():
        try:
            said = message.decode()
        except ValueError as error:
            raise BagError(Path(path), f"{message.topic}: {error}") from error
        since_ns = int(said.stamp.sec) * 1_000_000_000 + int(said.stamp.nanosec)
        who = _WHO[said.who] if said.who < len(_WHO) else str(said.who)
        if not changes or changes[-1][1] != who:
            changes.append((max(since_ns, about.start_ns), who, str(said.reason)))
    if not changes:
        return []
    ends = [*(since_ns for since_ns, _, _ in changes[1:]), about.end_ns]
    return [
        ControlSpan(who, (since_ns - about.start_ns) / 1e9, (end - about.start_ns) / 1e9, reason)
        for (since_ns, who, reason), end in zip(changes, ends, strict=True)
    ]
