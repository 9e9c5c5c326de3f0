# SPDX-License-Identifier: Apache-2.0
"""The dynamics model of the cube cell, with its layout and geometry filled in."""

from __future__ import annotations

import xacro

from twinloop.contract import load as load_contract
from twinloop.contract.cube import PALM_FRAME
from twinloop.models.hand_object import HandObject, HandObjectConfig
from twinloop.models.kinematics import chain_table
from twinloop.models.link_geometry import LinkGeometryConfig
from twinloop.paths import share
from twinloop.robots.hand24 import HAND24


def new_model(seed: int, members: int = 3, hidden: tuple[int, ...] = (128, 128)) -> HandObject:
    """Return an untrained model of the task's contract and the hand's URDF."""
    contract = load_contract("cube")
    urdf = xacro.process_file(str(share("urdf", "hand.urdf.xacro"))).toxml()
    table = chain_table(urdf, PALM_FRAME, HAND24.joint_names)
    ranges = {name: (where.start, where.stop) for name, where in contract.slices.items()}
    config = HandObjectConfig(
        observation_size=contract.observation_size,
        action_size=contract.action_size,
        members=members,
        hidden=hidden,
        known=ranges["command"],
        constant=ranges["goal"],
        joint_position=ranges["joint_position"],
        joint_velocity=ranges["joint_velocity"],
        object_state=(ranges["cube_position"][0], ranges["cube_spin"][1]),
        geometry=LinkGeometryConfig.of(table),
    )
    return HandObject(config, seed, table)
