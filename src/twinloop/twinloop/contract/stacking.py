# SPDX-License-Identifier: Apache-2.0
"""The contract of block stacking: Franka's arm, the block in its gripper, and where it belongs."""

from __future__ import annotations

from typing import Any

from twinloop.contract.arm_cell import BASE_FRAME, arm_contract, axes, goal_position
from twinloop.contract.spec import Channel, Contract

JOINT_SPEED = 0.5
# First two columns of a rotation matrix; the third follows from them.
ROTATION = tuple(f"block.{row}{column}" for column in "xy" for row in "xyz")


def contract() -> Contract:
    """Observation [33]: the arm, the held block's pose, and its place on the other block."""
    block: dict[str, Any] = {
        "topic": "block",
        "type": "nav_msgs/msg/Odometry",
        "frame": BASE_FRAME,
        "max_age_s": 0.25,
    }
    objects = (
        Channel(name="block_position", field="position", elements=axes("block"), unit="m", **block),
        Channel(name="block_rotation", field="rotation", elements=ROTATION, unit="1", **block),
        goal_position("block"),
    )
    return arm_contract("stacking", JOINT_SPEED, objects)
