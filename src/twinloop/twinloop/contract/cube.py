# SPDX-License-Identifier: Apache-2.0
"""The contract of the cube cell: the 24-joint hand and a tracked cube in its palm."""

from __future__ import annotations

from typing import Any

from twinloop.contract.hand_cell import hand_contract
from twinloop.contract.spec import Channel, Contract

PALM_FRAME = "rh_palm"
JOINT_SPEED = 1.0
CUP_RANGE_RAD = 0.5  # joints keep this near to the cup pose
# First two columns of a rotation matrix; the third follows from them.
ROTATION = tuple(f"cube.{row}{column}" for column in "xy" for row in "xyz")
_AXES = tuple(f"cube.{axis}" for axis in "xyz")


def contract() -> Contract:
    """Observation [93]: the hand, the cube's pose and velocity, and the wanted orientation."""
    cube: dict[str, Any] = {
        "topic": "cube",
        "type": "nav_msgs/msg/Odometry",
        "frame": PALM_FRAME,
        "max_age_s": 0.25,
    }
    goal = Channel(
        name="goal",
        topic="goal",
        type="geometry_msgs/msg/PoseStamped",
        field="rotation",
        elements=ROTATION,
        unit="1",
        frame=PALM_FRAME,
        max_age_s=60.0,
    )
    objects = (
        Channel(name="cube_position", field="position", elements=_AXES, unit="m", **cube),
        Channel(name="cube_rotation", field="rotation", elements=ROTATION, unit="1", **cube),
        Channel(name="cube_velocity", field="linear", elements=_AXES, unit="m/s", **cube),
        Channel(name="cube_spin", field="angular", elements=_AXES, unit="rad/s", **cube),
        goal,
    )
    return hand_contract("cube", JOINT_SPEED, objects, about=("cup", CUP_RANGE_RAD))
