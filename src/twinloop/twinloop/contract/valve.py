# SPDX-License-Identifier: Apache-2.0
"""The contract of the valve cell: a claw of nine joints over a valve with a tracked mark."""

from __future__ import annotations

from typing import Any

from twinloop.contract.spec import Action, Channel, Contract
from twinloop.robots.dclaw import DCLAW

PERIOD_S = 0.1
COMMAND_DELAY_S = 0.05
JOINT_SPEED = 2.0


def contract() -> Contract:
    """Observation [32]: joints, the command in force, the valve and its goal; action: 9 targets."""
    joints = DCLAW.joint_names
    joint_state: dict[str, Any] = {"type": "sensor_msgs/msg/JointState"}
    encoders: dict[str, Any] = {
        "topic": "joint_states",
        "elements": joints,
        "max_age_s": 0.03,
        **joint_state,
    }
    valve: dict[str, Any] = {"topic": "valve", "max_age_s": 0.25, **joint_state}
    return Contract(
        name="valve",
        robot=DCLAW.name,
        period_s=PERIOD_S,
        trigger="joint_states",
        observation=(
            Channel(name="joint_position", field="position", unit="rad", **encoders),
            Channel(name="joint_velocity", field="velocity", unit="rad/s", **encoders),
            Channel(
                name="command",
                topic="applied_command",
                type="trajectory_msgs/msg/JointTrajectory",
                field="positions",
                elements=joints,
                unit="rad",
                max_age_s=0.35,
            ),
            Channel(
                name="valve_angle",
                field="sin_cos",
                elements=("valve.sin", "valve.cos"),
                unit="1",
                **valve,
            ),
            Channel(
                name="valve_velocity", field="velocity", elements=("valve",), unit="rad/s", **valve
            ),
            Channel(
                name="goal",
                topic="goal",
                field="sin_cos",
                elements=("valve.sin", "valve.cos"),
                unit="1",
                max_age_s=60.0,
                **joint_state,
            ),
        ),
        action=Action(
            topic="command",
            applied_topic="applied_command",
            type="trajectory_msgs/msg/JointTrajectory",
            elements=joints,
            unit="rad",
            lower=tuple(DCLAW.lower.tolist()),
            upper=tuple(DCLAW.upper.tolist()),
            rate=JOINT_SPEED,
            delay_s=COMMAND_DELAY_S,
        ),
    )
