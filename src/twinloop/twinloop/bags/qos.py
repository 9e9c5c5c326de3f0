# SPDX-License-Identifier: Apache-2.0
"""QoS profiles as rosbag2 stores them, so that `ros2 bag play` offers topics as they were."""

from __future__ import annotations

from typing import Any

import yaml

_MAX_TEXT = 2**16
_INFINITE = {"sec": 9223372036, "nsec": 854775807}


def qos_profile(
    *,
    reliability: str = "reliable",
    durability: str = "volatile",
    depth: int = 10,
    history: str = "keep_last",
    liveliness: str = "automatic",
    deadline_ns: int | None = None,
    lifespan_ns: int | None = None,
    liveliness_lease_ns: int | None = None,
) -> dict[str, Any]:
    """Return one profile in the words of rosbag2 (`best_effort`, `transient_local`, ...).

    Durations are in nanoseconds; None stands for no limit.
    """
    return {
        "history": history,
        "depth": depth,
        "reliability": reliability,
        "durability": durability,
        "deadline": _duration(deadline_ns),
        "lifespan": _duration(lifespan_ns),
        "liveliness": liveliness,
        "liveliness_lease_duration": _duration(liveliness_lease_ns),
        "avoid_ros_namespace_conventions": False,
    }


def qos_text(profiles: tuple[dict[str, Any], ...]) -> str:
    """Return the YAML that an MCAP channel carries under `offered_qos_profiles`."""
    if not profiles:
        return ""
    # Copies, because YAML would write an anchor for the shared infinite duration.
    plain = [_copied(profile) for profile in profiles]
    return yaml.safe_dump(plain, sort_keys=False).strip()


def profiles_from_text(text: str) -> tuple[dict[str, Any], ...]:
    """Return the profiles of an MCAP channel; none where the text is not what rosbag2 writes."""
    try:
        profiles = yaml.safe_load(text) if len(text) <= _MAX_TEXT else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return ()
    if not isinstance(profiles, list):
        return ()
    return tuple(_copied(profile) for profile in profiles if isinstance(profile, dict))


def _duration(nanoseconds: int | None) -> dict[str, int]:
    if nanoseconds is None or nanoseconds >= 2**63 - 1:
        return dict(_INFINITE)
    return {"sec": nanoseconds // 10**9, "nsec": nanoseconds % 10**9}


def _copied(profile: dict[str, Any]) -> dict[str, Any]:
    return {key: dict(v) if isinstance(v, dict) else v for key, v in profile.items()}
