# SPDX-License-Identifier: Apache-2.0
"""Motions of an arm and its gripper as steps of a task: waited for, and failures named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twinloop.motion.errors import MotionError
from twinloop.motion.trajectory import Trajectory
from twinloop.resets.devices import Arm, Course, Gripper
from twinloop.resets.faults import Fault, StepFailed
from twinloop.resets.machine import Run

T = TypeVar("T")


def planned(plan: Callable[[], T]) -> T:
    """Return what a planner plans.

    Raises:
        StepFailed: `NO_PATH`, with the planner's words.
    """
    try:
        return plan()
    except MotionError as error:
        raise StepFailed(Fault.NO_PATH, f"{type(error).__name__}: {error}") from error


def follow(
    run: Run, arm: Arm, motion: Trajectory, overtime_s: float, mind: Callable[[], None]
) -> None:
    """Carry a motion out, and brake where it has to be given up.

    Args:
        overtime_s: beyond the motion's duration, after which it has failed.
        mind: called at each look; raises what ends the motion.

    Raises:
        StepFailed: `ARM_FAILED`, or as `run` and `mind` do.
    """
    latest_s = run.clock.now_s() + motion.duration + overtime_s
    arm.follow(motion)

    def is_over() -> bool:
        if run.clock.now_s() > latest_s:
            raise StepFailed(Fault.ARM_FAILED, f"not there {overtime_s:g} s late")
        return arm.course() is not Course.ACTIVE

    try:
        run.until(is_over, mind)
    except StepFailed:
        arm.cancel()
        raise
    if arm.course() is not Course.DONE:
        raise StepFailed(Fault.ARM_FAILED, arm.detail)


def grip(
    run: Run, gripper: Gripper, width_m: float, effort_n: float, mind: Callable[[], None]
) -> None:
    """Open or close, and wait until the fingers stand; arguments and failures as of `follow`."""
    gripper.move(width_m, effort_n)
    run.until(lambda: gripper.course() is not Course.ACTIVE, mind)
    if gripper.course() is not Course.DONE:
        raise StepFailed(Fault.GRIPPER_FAILED, gripper.detail)
