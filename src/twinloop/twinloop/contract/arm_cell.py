# SPDX-License-Identifier: Apache-2.0
"""What the contracts of cells with Franka's arm share: its joints and its command."""

from __future__ import annotations

from typing import Any

from twinloop.contract.spec import Action, Channel, Contract
from twinloop.robots.panda import PANDA

PERIOD_S = 0.1
COMMAND_DELAY_S = 0.05
BASE_FRAME = "panda_link0"


def arm_contract(name: str, joint_speed: float, objects: tuple[Channel, ...]) -> Contract:
    """Return the contract of a cell with the arm and further channels [O - 21].

    Args:
        name: of the task.
        joint_speed: largest speed of a joint's target, rad/s.
        objects: channels after joint positions, velocities and the command in force.
    """
    joints = PANDA.joint_names
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
        robot=PANDA.name,
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
            lower=tuple(PANDA.lower.tolist()),
            upper=tuple(PANDA.upper.tolist()),
            rate=joint_speed,
            delay_s=COMMAND_DELAY_S,
        ),
    )


def goal_position(name: str) -> Channel:
    """Return the channel that says where an object is wanted [3], m."""
    return Channel(
        name="goal",
        topic="goal",
        type="geometry_msgs/msg/PoseStamped",
        field="position",
        elements=axes(name),
        unit="m",
        frame=BASE_FRAME,
        max_age_s=60.0,
    )


def axes(name: str) -> tuple[str, ...]:
    """Return the names of an object's three elements."""
    return tuple(f"{name}.{axis}" for axis in "xyz")
