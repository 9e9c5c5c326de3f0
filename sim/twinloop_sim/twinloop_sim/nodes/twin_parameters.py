# SPDX-License-Identifier: Apache-2.0
"""The parameters of the twin node."""

from __future__ import annotations

from twinloop.nodes.parameters import ParameterSpec
from twinloop.safety.verdict import GuardSettings

from twinloop_sim.twin import ENGINES

_DEFAULTS = GuardSettings()

PARAMETERS = (
    ParameterSpec("engine", "mujoco", "Physics engine of the twin", choices=ENGINES),
    ParameterSpec("arm", False, "Have ramp, tray and arm too (mujoco)"),
    ParameterSpec("rtf", 1.0, "Simulated seconds in a second; 0: as fast as possible", 0.0, 1000.0),
    ParameterSpec("lockstep", False, "Wait for the command of each control step from the start"),
    ParameterSpec(
        "lockstep_timeout_s", 10.0, "Patience with a step's command, steady [s]", 0.1, 3600.0
    ),
    ParameterSpec("seed", 0, "Seed of the first scene", 0, 2**31 - 1),
    ParameterSpec(
        "joint_speed", 0.0, "Speed cap of commands [rad/s]; 0: the contract's", 0.0, 10.0
    ),
    ParameterSpec(
        "variation",
        "",
        "Another robot to play: a name in config/twin, such as gap; empty: the nominal one",
    ),
    ParameterSpec("variation_seed", 0, "Sets the variation's signs", 0, 2**31 - 1),
    ParameterSpec(
        "command_max_age_s",
        _DEFAULTS.max_age_s,
        "Commands stamped longer ago are refused [s]",
        0.01,
        10.0,
    ),
    ParameterSpec(
        "command_timeout_s",
        _DEFAULTS.command_timeout_s,
        "Silence of the command source that ends in a hold, steady [s]",
        0.01,
        10.0,
    ),
    ParameterSpec(
        "lease_s",
        _DEFAULTS.lease_s,
        "Silence after which another source may command, steady [s]",
        0.01,
        60.0,
    ),
    ParameterSpec(
        "emergency_stop_timeout_s",
        _DEFAULTS.heartbeat_timeout_s,
        "Silence of the emergency stop that counts as pressed, steady [s]",
        0.06,
        10.0,
    ),
    ParameterSpec(
        "require_emergency_stop",
        False,
        "Stay stopped until the emergency stop is heard and the guard re-armed",
    ),
    ParameterSpec(
        "tracker",
        True,
        "Publish `balls` in the tracker's stead; false: a tracker of its own does",
    ),
    ParameterSpec("publish_clock", True, "Publish /clock; one twin only may"),
    ParameterSpec(
        "clock_offset_s",
        0.0,
        "Added to the published time, for trying clock steps [s]",
        -1e5,
        1e5,
        dynamic=True,
    ),
)
