# SPDX-License-Identifier: Apache-2.0
"""What the SRDF and the joint limits under config/moveit say, for both planners."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.paths import share
from twinloop.robots import urdf_text
from twinloop.robots.description import joint_prefix
from twinloop.robots.panda import PANDA
from twinloop.yaml_files import read_yaml

Array = NDArray[np.float64]

ARM = "panda_arm"
TOOL = "panda_hand_tcp"
BASE = "panda_link0"


@dataclass(frozen=True)
class Semantics:
    """The SRDF's content.

    Attributes:
        allowed: pairs of links that may touch.
        states: named positions of the arm's joints [7], rad.
    """

    allowed: frozenset[frozenset[str]]
    states: dict[str, Array]


@dataclass(frozen=True)
class Limits:
    """Of the arm's joints, arrays [7]: rad, rad/s, rad/s^2, rad/s^3."""

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array
    jerk: Array

    def scaled(self, velocity: float, acceleration: float) -> Limits:
        """Return limits times these factors; jerk goes with acceleration.

        Raises:
            ValueError: a factor outside of 0 (excluded) to 1.
        """
        for name, factor in (("velocity", velocity), ("acceleration", acceleration)):
            if not 0.0 < factor <= 1.0:
                raise ValueError(f"{name} scaling must be above 0 and at most 1, got {factor}")
        return Limits(
            self.lower,
            self.upper,
            self.velocity * velocity,
            self.acceleration * acceleration,
            self.jerk * acceleration,
        )


@lru_cache(maxsize=4)
def srdf(side: str = "right", cell: str = "hand") -> str:
    """Return the SRDF of a cell, `hand` or `bins`; raises ValueError for an unknown side."""
    prefix = joint_prefix(side)
    name = "twinloop_cell.srdf" if cell == "hand" else f"twinloop_{cell}.srdf"
    return share("config", "moveit", name).read_text().replace('"rh_', f'"{prefix}')


@lru_cache(maxsize=4)
def semantics(side: str = "right", cell: str = "hand") -> Semantics:
    """Read a cell's SRDF; raises ValueError as `read_semantics` does."""
    return read_semantics(srdf(side, cell))


def read_semantics(text: str) -> Semantics:
    """Read an SRDF.

    Raises:
        ValueError: it is no XML, lacks an attribute, or has a state of the arm that does not name
            each of its joints once.
    """
    tree = urdf_text.parse(text, "SRDF")
    states = {}
    for state in tree.findall("group_state"):
        if state.get("group") != ARM:
            continue
        name = urdf_text.attribute(state, "name")
        values = {
            urdf_text.attribute(joint, "name"): urdf_text.number(joint, "value")
            for joint in state.findall("joint")
        }
        if sorted(values) != sorted(PANDA.joint_names):
            raise ValueError(
                f"SRDF: state {name!r} is of joints {sorted(values)}, expected "
                f"{sorted(PANDA.joint_names)}"
            )
        states[name] = np.array([values[name] for name in PANDA.joint_names])
    allowed = frozenset(
        frozenset((urdf_text.attribute(pair, "link1"), urdf_text.attribute(pair, "link2")))
        for pair in tree.findall("disable_collisions")
    )
    return Semantics(allowed, states)


@lru_cache(maxsize=1)
def arm_limits() -> Limits:
    """Read config/moveit/joint_limits.yaml; raises ValueError as `read_limits` does."""
    return read_limits(share("config", "moveit", "joint_limits.yaml"))


def read_limits(path: Path) -> Limits:
    """Read a joint limits file; positions are the robot's.

    Raises:
        ValueError: it is no such file, or a limit is missing, not finite or not positive; names
            the file.
    """
    content = read_yaml(path)
    table = content.get("joint_limits") if isinstance(content, dict) else None
    if not isinstance(table, dict):
        raise ValueError(f"{path}: has no mapping 'joint_limits', expected limits by joint")

    def column(kind: str) -> Array:
        entries: list[Any] = [table.get(name) for name in PANDA.joint_names]
        values: list[Any] = [e.get(f"max_{kind}") if isinstance(e, dict) else None for e in entries]
        if not all(_is_number(value) and 0.0 < value < 1e6 for value in values):
            raise ValueError(
                f"{path}: max_{kind} of {PANDA.joint_names} is {values}, expected numbers above 0"
            )
        return np.array(values, dtype=np.float64)

    return Limits(
        PANDA.lower, PANDA.upper, column("velocity"), column("acceleration"), column("jerk")
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
