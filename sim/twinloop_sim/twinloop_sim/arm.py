# SPDX-License-Identifier: Apache-2.0
"""The arm and gripper of a simulated cell, with their controllers.

::

    cell = Cell(1, arm=True)
    cell.reset([seed])
    arm = cell.arms[0]
    arm.execute(planner.plan())              # raises TrajectoryRefused; moves as the cell steps
    while not arm.motion.is_over:
        cell.step(cell.command)              # 0.1 s with the hand where it is
    arm.motion.state                         # Following.SUCCEEDED, else arm.motion.detail says why
    arm.grip(0.045, max_effort_n=20.0)       # likewise; arm.grasp.state: REACHED or STALLED
    arm.cancel()                             # comes to rest; what is held stays held
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray
from twinloop.motion.gripper_controller import (
    PANDA_GRIPPER,
    GripperController,
    GripperStatus,
    GripperTarget,
)
from twinloop.motion.semantics import arm_limits
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import (
    ControllerSettings,
    Setpoint,
    Status,
    Tolerances,
    TrajectoryController,
)
from twinloop.robots.panda import PANDA

from twinloop_sim.arm_cell import arm_cell_settings, arm_targets
from twinloop_sim.arm_twin import ArmBatch, ArmState
from twinloop_sim.twin import State

Array = NDArray[np.float64]
_PRESSES_M = 5e-4  # from what the fingers are told: they push, or are on their way


class Arm:
    """One arm with its gripper.

    Args:
        state: where it is, of one arm; it is held there.
        tick_s: of the cell.

    Attributes:
        controller, gripper: for those that need more than this class offers.
        state: what was measured at the end of the last tick.
    """

    def __init__(
        self, state: ArmState, tick_s: float, settings: ControllerSettings | None = None
    ) -> None:
        self.state = state
        self.tick_s = tick_s
        self.controller = TrajectoryController(PANDA.joint_names, arm_limits(), state.q, settings)
        self.gripper = GripperController(PANDA_GRIPPER, float(state.width))
        self._now_s = 0.0
        self.controller.step(0.0, state.q, state.qd)
        self.gripper.step(0.0, float(state.width))

    @property
    def q(self) -> Array:
        """Measured joints [7], rad."""
        return self.state.q

    @property
    def qd(self) -> Array:
        """Measured joints [7], rad/s."""
        return self.state.qd

    @property
    def width(self) -> float:
        """Measured between the fingers, m."""
        return float(self.state.width)

    @property
    def motion(self) -> Status:
        """What became of the newest trajectory."""
        return self.controller.status

    @property
    def grasp(self) -> GripperStatus:
        """What became of the newest command of the gripper."""
        return self.gripper.status

    @property
    def setpoint(self) -> Setpoint:
        """What the joints were told for the end of the last tick."""
        return self.controller.setpoint

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way, so that every tick counts."""
        presses = abs(self.gripper.target.width_m - self.width) > _PRESSES_M
        is_over = self.motion.is_over and self.grasp.is_over
        return self.controller.is_moving or presses or not is_over

    def execute(self, trajectory: Trajectory, tolerances: Tolerances | None = None) -> int:
        """Follow a trajectory from the next tick on; see `TrajectoryController.start`."""
        return self.controller.start(trajectory, tolerances)

    def grip(self, width_m: float, max_effort_n: float = 0.0, speed: float | None = None) -> int:
        """Open or close from the next tick on; see `GripperController.start`."""
        self.gripper.step(self._now_s, self.width)
        return self.gripper.start(width_m, max_effort_n, speed)

    def cancel(self, why: str = "cancelled") -> None:
        """Come to rest; the gripper stays as it is."""
        self.controller.cancel(why)
        self.gripper.cancel(why)

    def stop(self, why: str) -> None:
        """As `cancel`, for an emergency stop or a fault."""
        self.controller.stop(why)
        self.gripper.stop(why)

    def hold(self, state: ArmState, why: str) -> None:
        """Stand where it is now: something else has moved it."""
        self.state = state
        self.controller.hold(state.q, why)
        self.gripper.hold(float(state.width), why)

    def targets(self) -> Array:
        """Go on by a tick; returns what the servos are to be told for it [9], rad and m."""
        state = self.state
        self._now_s += self.tick_s
        setpoint = self.controller.step(self._now_s, state.q, state.qd)
        target = self.gripper.step(self._now_s, float(state.width))
        return np.concatenate(
            [arm_targets(setpoint.position, setpoint.velocity), finger_targets(target, state)]
        )


class Arms:
    """The arms of N cells, advanced with them.

    Attributes:
        present: one a cell.
    """

    def __init__(self, twin: ArmBatch) -> None:
        self._twin = twin
        self.present = tuple(Arm(state, twin.tick_s) for state in self._states())

    def rest(self, hands: Sequence[int]) -> None:
        """Hold arms [K] where a reset has put them."""
        states = self._states()
        for hand in hands:
            self.present[hand].hold(states[hand], "scene reset")

    def saved(self, hands: Sequence[int]) -> tuple[Arm, ...]:
        """Return copies of arms [K], whatever they are about."""
        return tuple(deepcopy(self.present[hand]) for hand in hands)

    def restore(self, hands: Sequence[int], arms: tuple[Arm, ...]) -> None:
        """Go on with what `saved` returned, after the twin's own state was restored.

        Raises:
            ValueError: another number of arms.
        """
        if len(arms) != len(hands):
            raise ValueError(f"{len(hands)} cells need as many arms, the state has {len(arms)}")
        restored = {hand: deepcopy(arm) for hand, arm in zip(hands, arms, strict=True)}
        self.present = tuple(restored.get(hand, arm) for hand, arm in enumerate(self.present))

    def step(self, ctrl: Array) -> State:
        """Advance the cells under targets of the hands [N, T, 24], rad; returns states [N, T]."""
        if not any(arm.is_busy for arm in self.present):
            states = self._twin.step(ctrl)
            self._measure()
            return states
        ticks = []
        for tick in range(ctrl.shape[1]):
            for index, arm in enumerate(self.present):
                self._twin.arm_targets[index] = arm.targets()
            ticks.append(self._twin.step(ctrl[:, tick : tick + 1]))
            self._measure()
        return State(
            *(np.concatenate([getattr(t, f.name) for t in ticks], axis=1) for f in fields(State))
        )

    def _states(self) -> list[ArmState]:
        state = self._twin.arm_state()
        parts = [getattr(state, field.name) for field in fields(ArmState)]
        return [ArmState(*(part[hand] for part in parts)) for hand in range(self._twin.hands)]

    def _measure(self) -> None:
        for arm, state in zip(self.present, self._states(), strict=True):
            arm.state = state


def finger_targets(target: GripperTarget, state: ArmState) -> Array:
    """Return what the fingers' servos are told [2], m: their force is gain times what is left."""
    servo = arm_cell_settings().gripper
    reach_m = min(target.max_effort_n, servo.force) / servo.gain
    wanted = np.full(2, target.width_m / 2)
    clipped: Array = np.clip(wanted, state.fingers - reach_m, state.fingers + reach_m)
    return clipped
