# SPDX-License-Identifier: Apache-2.0
"""How a task of the arm can fail, by name: bringing balls back, clearing a bin."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Why a reset ended without both balls in the palm, or a bin was not cleared."""

    CANCELLED = "cancelled"
    STOPPED = "stopped"  # emergency stop, or a guard that stopped the robot
    ARM_STUCK = "arm_stuck"
    ARM_FAILED = "arm_failed"
    GRIPPER_FAILED = "gripper_failed"
    NO_PATH = "no_path"
    GRASP_MISSED = "grasp_missed"
    # Of resets alone.
    HAND_STUCK = "hand_stuck"
    TRAY_UNSEEN = "tray_unseen"
    PALM_UNSEEN = "palm_unseen"
    BALL_OUT_OF_REACH = "ball_out_of_reach"
    BALL_SLIPPED = "ball_slipped"
    NOT_IN_PALM = "not_in_palm"
    # Of the pick loop alone.
    BIN_UNSEEN = "bin_unseen"
    NO_GRASP = "no_grasp"
    GRASP_BLOCKED = "grasp_blocked"
    OBJECT_SLIPPED = "object_slipped"
    NOTHING_LIFTED = "nothing_lifted"


class StepFailed(Exception):
    """A step of a task failed.

    Attributes:
        fault: its name.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
