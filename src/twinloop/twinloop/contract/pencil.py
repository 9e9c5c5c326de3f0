# SPDX-License-Identifier: Apache-2.0
"""The contract of the writing cell: the 24-joint hand, a tracked pencil, and the path ahead."""

from __future__ import annotations

from typing import Any

from twinloop.contract.hand_cell import hand_contract
from twinloop.contract.spec import Channel, Contract

PAPER_FRAME = "paper"  # x to the right and y up for the reader, z off the paper
JOINT_SPEED = 0.6
GRIP_RANGE_RAD = 0.15  # joints keep this near to the grip
WAYPOINTS = 8  # of the path ahead, one a control step
_AXES = tuple(f"tip.{axis}" for axis in "xyz")


def contract() -> Contract:
    """Observation [94]: the hand, the pencil's tip, and where it should be in the next steps."""
    pencil: dict[str, Any] = {
        "topic": "pencil",
        "type": "nav_msgs/msg/Odometry",
        "frame": PAPER_FRAME,
        "elements": _AXES,
        "max_age_s": 0.25,
    }
    path = Channel(
        name="goal",
        topic="goal",
        type="nav_msgs/msg/Path",
        field="points",
        elements=tuple(f"{step}.{axis}" for step in range(WAYPOINTS) for axis in "xy"),
        unit="m",
        frame=PAPER_FRAME,
        max_age_s=0.35,
    )
    objects = (
        Channel(name="tip_position", field="position", unit="m", **pencil),
        Channel(name="tip_velocity", field="linear", unit="m/s", **pencil),
        path,
    )
    return hand_contract("pencil", JOINT_SPEED, objects, about=("tripod", GRIP_RANGE_RAD))
