# SPDX-License-Identifier: Apache-2.0
"""The arm and gripper of a guarded cell, as their actions take them. No ROS in it."""

from __future__ import annotations

from typing import Protocol

from twinloop.motion.admission import TrajectoryRefused
from twinloop.motion.gripper_controller import GripperRefused, GripperStatus, GripperTarget
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import Setpoint, Status, Tolerances
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardState

from twinloop_sim.arm import Arm
from twinloop_sim.cell import Cell

_STOPS = (GuardState.STOPPED, GuardState.EMERGENCY_STOP)


class GuardedArm:
    """Moves the cell's arm while the cell's guard is not stopped.

    What stops the hand stops the arm, which brakes within its limits, since a jolt could throw what
    it carries; both stay stopped until they are re-armed.

    Args:
        cell: one, with an arm.
        guard: of its hand.

    Attributes:
        closed: why nothing may be begun for the time being; empty where it may.
    """

    def __init__(self, cell: Cell, guard: CommandGuard) -> None:
        self._cell = cell
        self._guard = guard
        self.closed = ""

    @property
    def arm(self) -> Arm:
        """The arm; another one after the cell's state was restored."""
        return self._cell.arms[0]

    def check_stop(self) -> None:
        """Let a stop of the guard reach the arm; to be called each tick, after the guard's own."""
        if self._guard.state in _STOPS:
            self.arm.stop(self._guard.reason)

    def stop(self, why: str) -> None:
        """Bring it to rest; what it does is given up."""
        self.arm.stop(why)

    def refusal(self) -> str:
        """Say why nothing may be begun; empty where it may."""
        if self._guard.state in _STOPS:
            return f"the cell is stopped ({self._guard.reason}): re-arm it first"
        return self.closed


class Guarded(Protocol):
    """An arm, and whether anything may be begun with it."""

    @property
    def arm(self) -> Arm: ...

    def refusal(self) -> str: ...


class GuardedTrajectories:
    """What `TrajectoryAction` takes."""

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded

    @property
    def joint_names(self) -> tuple[str, ...]:
        return self._guarded.arm.controller.joint_names

    @property
    def status(self) -> Status:
        return self._guarded.arm.motion

    @property
    def setpoint(self) -> Setpoint:
        return self._guarded.arm.setpoint

    @property
    def is_moving(self) -> bool:
        return self._guarded.arm.controller.is_moving

    @property
    def default_tolerances(self) -> Tolerances:
        return self._guarded.arm.controller.default_tolerances

    def start(self, trajectory: Trajectory, tolerances: Tolerances | None = None) -> int:
        why = self._guarded.refusal()
        if why:
            raise TrajectoryRefused(why)
        return self._guarded.arm.execute(trajectory, tolerances)

    def cancel(self, why: str = "cancelled") -> None:
        self._guarded.arm.controller.cancel(why)


class GuardedGripper:
    """What `GripperAction` takes."""

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded

    @property
    def status(self) -> GripperStatus:
        return self._guarded.arm.grasp

    @property
    def target(self) -> GripperTarget:
        return self._guarded.arm.gripper.target

    def start(self, width_m: float, max_effort_n: float = 0.0) -> int:
        why = self._guarded.refusal()
        if why:
            raise GripperRefused(why)
        return self._guarded.arm.grip(width_m, max_effort_n)

    def cancel(self, why: str = "cancelled") -> None:
        self._guarded.arm.gripper.cancel(why)
