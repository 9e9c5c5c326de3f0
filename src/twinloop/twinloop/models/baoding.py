# SPDX-License-Identifier: Apache-2.0
"""The dynamics model of the Baoding hand, with its layout and geometry filled in."""

from __future__ import annotations

import xacro

from twinloop.contract import load as load_contract
from twinloop.contract.baoding import PALM_FRAME
from twinloop.models.hand_balls import HandBalls, HandBallsConfig
from twinloop.models.kinematics import chain_table
from twinloop.models.link_geometry import LinkGeometryConfig
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24

BALL_RADIUS_M = 0.028


def new_model(seed: int, members: int = 3, hidden: tuple[int, ...] = (200, 200)) -> HandBalls:
    """Return an untrained model of the task's contract and the hand's URDF."""
    contract = load_contract("baoding")
    urdf = xacro.process_file(str(share("urdf", "hand.urdf.xacro"))).toxml()
    table = chain_table(urdf, PALM_FRAME, HAND24.joint_names)
    ranges = {name: (where.start, where.stop) for name, where in contract.slices.items()}
    config = HandBallsConfig(
        observation_size=contract.observation_size,
        action_size=contract.action_size,
        members=members,
        hidden=hidden,
        known=ranges["command"],
        joint_position=ranges["joint_position"],
        joint_velocity=ranges["joint_velocity"],
        ball_position=ranges["ball_position"],
        ball_velocity=ranges["ball_velocity"],
        geometry=LinkGeometryConfig.of(table),
        ball_radius_m=BALL_RADIUS_M,
    )
    return HandBalls(config, seed, table)
