# SPDX-License-Identifier: Apache-2.0
"""The contract of the Baoding cell."""

from __future__ import annotations

from typing import Any

from twinloop.contract.spec import Action, Channel, Contract
from twinloop.robots.hand24 import HAND24

PALM_FRAME = "rh_palm"
BALL_AXES = tuple(f"ball{ball}.{axis}" for ball in (0, 1) for axis in "xyz")
PERIOD_S = 0.1
COMMAND_DELAY_S = 0.05
JOINT_SPEED = 1.5


def contract() -> Contract:
    """Observation [84]: joints, the command in force and the tracked balls; action: 24 targets."""
    joints = HAND24.joint_names
    joint_state: dict[str, Any] = {
        "topic": "joint_states",
        "type": "sensor_msgs/msg/JointState",
        "max_age_s": 0.03,
    }
    balls: dict[str, Any] = {
        "topic": "balls",
        "type": "twinloop_interfaces/msg/TrackedBallArray",
        "elements": BALL_AXES,
        "frame": PALM_FRAME,
        "max_age_s": 0.25,
    }
    return Contract(
        name="baoding",
        robot=HAND24.name,
        period_s=PERIOD_S,
        trigger="joint_states",
        observation=(
            Channel(
                name="joint_position", field="position", elements=joints, unit="rad", **joint_state
            ),
            Channel(
                name="joint_velocity",
                field="velocity",
                elements=joints,
                unit="rad/s",
                **joint_state,
            ),
            Channel(
                name="command",
                topic="applied_command",
                type="trajectory_msgs/msg/JointTrajectory",
                field="positions",
                elements=joints,
                unit="rad",
                # A guard that holds repeats its goal at the control rate.
                max_age_s=0.35,
            ),
            Channel(name="ball_position", field="position", unit="m", **balls),
            Channel(name="ball_velocity", field="velocity", unit="m/s", **balls),
        ),
        action=Action(
            topic="command",
            applied_topic="applied_command",
            type="trajectory_msgs/msg/JointTrajectory",
            elements=joints,
            unit="rad",
            lower=tuple(HAND24.lower.tolist()),
            upper=tuple(HAND24.upper.tolist()),
            rate=JOINT_SPEED,
            delay_s=COMMAND_DELAY_S,
        ),
    )
