# SPDX-License-Identifier: Apache-2.0
"""What the SRDF and the joint limits under config/moveit say, for both planners."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import yaml
from numpy.typing import NDArray

from twinloop.paths import share
from twinloop.robots.description import joint_prefix
from twinloop.robots.panda import PANDA

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


@lru_cache(maxsize=2)
def srdf(side: str = "right") -> str:
    """Return the cell's SRDF; raises ValueError for an unknown side."""
    prefix = joint_prefix(side)
    text = share("config", "moveit", "twinloop_cell.srdf").read_text()
    return text.replace('"rh_', f'"{prefix}')


@lru_cache(maxsize=2)
def semantics(side: str = "right") -> Semantics:
    """Read the SRDF.

    Raises:
        ValueError: a state of the arm that does not name each of its joints once.
    """
    tree = ElementTree.fromstring(srdf(side))
    states = {}
    for state in tree.findall("group_state"):
        if state.get("group") != ARM:
            continue
        values = {j.attrib["name"]: float(j.attrib["value"]) for j in state.findall("joint")}
        if sorted(values) != sorted(PANDA.joint_names):
            raise ValueError(
                f"SRDF: state {state.get('name')!r} is of joints {sorted(values)}, expected "
                f"{sorted(PANDA.joint_names)}"
            )
        states[state.attrib["name"]] = np.array([values[name] for name in PANDA.joint_names])
    allowed = frozenset(
        frozenset((pair.attrib["link1"], pair.attrib["link2"]))
        for pair in tree.findall("disable_collisions")
    )
    return Semantics(allowed, states)


@lru_cache(maxsize=1)
def arm_limits() -> Limits:
    """Read config/moveit/joint_limits.yaml; positions are the robot's.

    Raises:
        ValueError: a limit that is missing or not positive.
    """
    path = share("config", "moveit", "joint_limits.yaml")
    table = yaml.safe_load(path.read_text())["joint_limits"]

    def column(kind: str) -> Array:
        values = [table.get(name, {}).get(f"max_{kind}") for name in PANDA.joint_names]
        if any(not isinstance(value, int | float) or value <= 0.0 for value in values):
            raise ValueError(f"{path}: max_{kind} of {PANDA.joint_names} is {values}")
        return np.array(values, dtype=np.float64)

    return Limits(
        PANDA.lower, PANDA.upper, column("velocity"), column("acceleration"), column("jerk")
    )
