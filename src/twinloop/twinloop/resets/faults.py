# SPDX-License-Identifier: Apache-2.0
"""How a reset can fail, by name."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Why a reset ended without both balls in the palm."""

    CANCELLED = "cancelled"
    STOPPED = "stopped"  # emergency stop, or a guard that stopped the hand
    HAND_STUCK = "hand_stuck"
    ARM_STUCK = "arm_stuck"
    ARM_FAILED = "arm_failed"
    GRIPPER_FAILED = "gripper_failed"
    NO_PATH = "no_path"
    TRAY_UNSEEN = "tray_unseen"
    PALM_UNSEEN = "palm_unseen"
    BALL_OUT_OF_REACH = "ball_out_of_reach"
    GRASP_MISSED = "grasp_missed"
    BALL_SLIPPED = "ball_slipped"
    NOT_IN_PALM = "not_in_palm"


class ResetFailed(Exception):
    """A step of a reset failed.

    Attributes:
        fault: its name.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
