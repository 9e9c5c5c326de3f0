# SPDX-License-Identifier: Apache-2.0
"""What the contracts of cells with the 24-joint hand share: its joints and its command."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinloop.contract.spec import Action, Channel, Contract
from twinloop.robots.hand24 import HAND24

PERIOD_S = 0.1
COMMAND_DELAY_S = 0.05


def hand_contract(
    name: str,
    joint_speed: float,
    objects: tuple[Channel, ...],
    about: tuple[str, float] | None = None,
) -> Contract:
    """Return the contract of a cell with the hand and further channels [O - 72].

    Args:
        name: of the task.
        joint_speed: largest speed of a joint's target, rad/s.
        objects: channels after joint positions, velocities and the command in force.
        about: pose of the hand and how far targets may be from it, rad; default: no narrower than
            the joints' limits.
    """
    lower, upper = HAND24.lower, HAND24.upper
    if about is not None:
        pose = HAND24.poses[about[0]]
        lower, upper = np.maximum(lower, pose - about[1]), np.minimum(upper, pose + about[1])
    joints = HAND24.joint_names
    encoders: dict[str, Any] = {
        "topic": "joint_states",
        "type": "sensor_msgs/msg/JointState",
        "elements": joints,
        "max_age_s": 0.03,
    }
    command = Channel(
        name="command",
        topic="applied_command",
        type="trajectory_msgs/msg/JointTrajectory",
        field="positions",
        elements=joints,
        unit="rad",
        max_age_s=0.35,
    )
    return Contract(
        name=name,
        robot=HAND24.name,
        period_s=PERIOD_S,
        trigger="joint_states",
        observation=(
            Channel(name="joint_position", field="position", unit="rad", **encoders),
            Channel(name="joint_velocity", field="velocity", unit="rad/s", **encoders),
            command,
            *objects,
        ),
        action=Action(
            topic="command",
            applied_topic="applied_command",
            type="trajectory_msgs/msg/JointTrajectory",
            elements=joints,
            unit="rad",
            lower=tuple(lower.tolist()),
            upper=tuple(upper.tolist()),
            rate=joint_speed,
            delay_s=COMMAND_DELAY_S,
        ),
    )
