# SPDX-License-Identifier: Apache-2.0
"""Compiles the robot description: one xacro for every engine and viewer."""

from __future__ import annotations

import threading
from functools import lru_cache

import xacro

from twinloop.paths import share
from twinloop.robots.hand24 import HAND24

_XACRO = threading.Lock()  # it keeps stacks of its own, one for all threads
SIDES = {"right": "rh_", "left": "lh_"}
ARM_CELLS = ("hand", "bins")


def joint_prefix(side: str) -> str:
    """Return the prefix of the joint and link names of a hand, `rh_` or `lh_`.

    Raises:
        ValueError: the side is neither right nor left.
    """
    if side not in SIDES:
        raise ValueError(f"hand side must be one of {sorted(SIDES)}, got {side!r}")
    return SIDES[side]


def hand_joint_names(side: str) -> tuple[str, ...]:
    """Return the joint names of a hand, in the order of `HAND24`; raises ValueError as above."""
    prefix = joint_prefix(side)
    return tuple(prefix + name.removeprefix(SIDES["right"]) for name in HAND24.joint_names)


@lru_cache(maxsize=8)
def hand_urdf(side: str = "right", capsules: bool = True) -> str:
    """Return the URDF of the hand, compiled once per process and arguments.

    Args:
        side: `right` or `left`.
        capsules: False replaces capsules by cylinders and spheres, for viewers that read only
            plain URDF shapes.

    Raises:
        ValueError: an unknown side.
    """
    return _compiled("hand", side, capsules)


@lru_cache(maxsize=4)
def cell_urdf(side: str = "right", capsules: bool = True) -> str:
    """Return the URDF of the cell: hand, arm, ramp, tray and stands; arguments as above.

    Raises:
        ValueError: an unknown side.
    """
    return _compiled("cell", side, capsules)


@lru_cache(maxsize=2)
def bins_urdf(capsules: bool = True) -> str:
    """Return the URDF of the arm between two bins; the argument as above."""
    return _compiled("bins", "right", capsules)


def arm_cell_urdf(cell: str, side: str = "right", capsules: bool = True) -> str:
    """Return the URDF of a cell that the arm works in.

    Args:
        cell: `hand`, the one with the hand of a `side`, or `bins`.

    Raises:
        ValueError: an unknown cell or side.
    """
    if cell not in ARM_CELLS:
        raise ValueError(f"the arm's cell must be one of {ARM_CELLS}, got {cell!r}")
    return cell_urdf(side, capsules) if cell == "hand" else bins_urdf(capsules)


def _compiled(name: str, side: str, capsules: bool) -> str:
    joint_prefix(side)
    mappings = {"side": side, "capsules": str(capsules).lower()}
    with _XACRO:
        document = xacro.process_file(str(share("urdf", f"{name}.urdf.xacro")), mappings=mappings)
    # PyBullet cuts lines of more than 1024 characters, so each element gets its own.
    return str(document.toprettyxml(indent=" "))
