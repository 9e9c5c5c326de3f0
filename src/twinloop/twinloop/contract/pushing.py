# SPDX-License-Identifier: Apache-2.0
"""The contract of mug pushing: Franka's arm with a half-open gripper, a mug, and its coaster."""

from __future__ import annotations

from typing import Any

from twinloop.contract.arm_cell import BASE_FRAME, arm_contract, axes, goal_position
from twinloop.contract.spec import Channel, Contract

JOINT_SPEED = 0.5


def contract() -> Contract:
    """Observation [30]: the arm, the mug's position and velocity, and where it is wanted."""
    mug: dict[str, Any] = {
        "topic": "mug",
        "type": "nav_msgs/msg/Odometry",
        "frame": BASE_FRAME,
        "max_age_s": 0.25,
    }
    objects = (
        Channel(name="mug_position", field="position", elements=axes("mug"), unit="m", **mug),
        Channel(name="mug_velocity", field="linear", elements=axes("mug"), unit="m/s", **mug),
        goal_position("mug"),
    )
    return arm_contract("pushing", JOINT_SPEED, objects)
