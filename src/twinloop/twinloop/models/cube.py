# SPDX-License-Identifier: Apache-2.0
"""The dynamics model of the cube cell, with its layout filled in."""

from __future__ import annotations

from twinloop.contract import load as load_contract
from twinloop.models.hand_object import HandObject, HandObjectConfig


def new_model(seed: int, members: int = 3, hidden: tuple[int, ...] = (128, 128)) -> HandObject:
    """Return an untrained model of the task's contract."""
    contract = load_contract("cube")
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
    )
    return HandObject(config, seed)
