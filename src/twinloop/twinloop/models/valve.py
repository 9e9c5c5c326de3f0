# SPDX-License-Identifier: Apache-2.0
"""The dynamics model of the valve cell, with its layout and geometry filled in."""

from __future__ import annotations

import xacro

from twinloop.contract import load as load_contract
from twinloop.models.claw_valve import ClawValve, ClawValveConfig
from twinloop.models.kinematics import chain_table
from twinloop.models.link_geometry import LinkGeometryConfig
from twinloop.paths import share
from twinloop.robots.dclaw import DCLAW


def new_model(seed: int, members: int = 3, hidden: tuple[int, ...] = (64, 64)) -> ClawValve:
    """Return an untrained model of the task's contract and the claw's URDF."""
    contract = load_contract("valve")
    urdf = xacro.process_file(str(share("urdf", "dclaw.urdf.xacro"))).toxml()
    table = chain_table(urdf, "claw_base", DCLAW.joint_names)
    ranges = {name: (where.start, where.stop) for name, where in contract.slices.items()}
    config = ClawValveConfig(
        observation_size=contract.observation_size,
        action_size=contract.action_size,
        members=members,
        hidden=hidden,
        known=ranges["command"],
        constant=ranges["goal"],
        joint_position=ranges["joint_position"],
        joint_velocity=ranges["joint_velocity"],
        valve_angle=ranges["valve_angle"],
        valve_velocity=ranges["valve_velocity"],
        geometry=LinkGeometryConfig.of(table),
    )
    return ClawValve(config, seed, table)
