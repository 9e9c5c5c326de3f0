# SPDX-License-Identifier: Apache-2.0
"""A cell whose resets tests disturb; its eyes see the truth, so that a reset takes a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from twinloop.motion import make_planner
from twinloop.motion.ompl_planner import OmplPlanner
from twinloop.perception.tray import TrayBall, TrayOutcome, TraySight
from twinloop.perception.tray_shape import tray_shape
from twinloop.resets.baoding import BallReset
from twinloop.resets.devices import Devices, PalmSight
from twinloop.resets.machine import Outcome
from twinloop_sim.cell import Cell
from twinloop_sim.reset_devices import CellArm, CellClock, CellGripper, CellHand, NeverStopped

IN_TRAY = ([-0.45, 0.263, -0.22], [-0.39, 0.263, -0.2])
IN_PALM = [-0.023, 0.012, 0.176]
ON_FLOOR = [0.6, 0.5, -0.57]


class TrueTrayEyes:
    """Knows where balls in the channel are; `stalls_until_s` shows nothing before that."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.stalls_until_s = 0.0

    def look(self, after_s: float) -> TraySight | None:
        now_s = self._cell.tick_count * self._cell.tick_s
        if now_s <= max(after_s, self.stalls_until_s):
            return None
        shape = tray_shape()
        balls = [
            TrayBall(place.copy(), 0.028, 1.0)
            for place in self._cell.state.ball_position[0]
            if shape.holds(place, 0.028) and place[2] < -0.2
        ]
        balls.sort(key=lambda ball: shape.along(ball.position))
        outcome = TrayOutcome.BALLS if balls else TrayOutcome.EMPTY
        return TraySight(outcome, tuple(balls), 1.0)


class TruePalmEyes:
    """Knows where all balls are."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def look(self, after_s: float) -> PalmSight | None:
        cell = self._cell
        now_s = cell.tick_count * cell.tick_s
        if now_s <= after_s:
            return None
        truth = cell.truth()
        speed = np.linalg.norm(truth.ball_velocity[0], axis=-1)
        return PalmSight(now_s, truth.ball_position[0], speed, np.zeros(2, dtype=np.bool_))


class ResetStation:
    """One cell, put in order by `run`."""

    def __init__(self) -> None:
        self.cell = Cell(1, arm=True)
        self.planner = make_planner()
        assert isinstance(self.planner, OmplPlanner)
        self.devices = self._devices()
        self.reset = BallReset(self.devices, self.planner)
        self.phases: list[str] = []

    def _devices(self) -> Devices:
        cell = self.cell
        palm, tray, hand = TruePalmEyes(cell), TrueTrayEyes(cell), CellHand(cell)
        clock = CellClock(cell, (), hand)
        arm, gripper = CellArm(cell), CellGripper(cell)
        return Devices(clock, arm, gripper, hand, tray, palm, NeverStopped())

    def restart(self) -> None:
        """A new process in the same cell: nothing is known of what was before."""
        self.devices = self._devices()
        self.reset = BallReset(self.devices, self.planner)

    def scene(self, *places: list[float], settle_s: float = 1.0) -> None:
        """Start a new scene with balls at places, m, world."""
        cell = self.cell
        cell.reset([0])
        self.devices.hand.goal = cell.command[0].copy()  # type: ignore[attr-defined]
        self.devices.tray.stalls_until_s = 0.0  # type: ignore[attr-defined]
        self.devices.safety.reason = ""  # type: ignore[attr-defined]
        model = cell.twin.model
        physics = cell.twin.physics.copy()
        position = physics[0, 1 : 1 + model.nq][-14:].reshape(2, 7)
        position[:, :3] = places
        physics[0, 1 + model.nq :][: model.nv][-12:] = 0.0
        cell.twin.physics = physics
        cell.state = cell.twin.state()
        self.wait(settle_s)

    def wait(self, seconds: float) -> None:
        self.devices.clock.wait(seconds)

    def run(
        self,
        at: str = "",
        then: Callable[[], Any] | None = None,
        when: Callable[[], bool] = lambda: True,
        cancel_on: dict[str, bool] | None = None,
    ) -> Outcome:
        """Run a reset; `then` is called once, in the phase `at` when it is 0.3 s old.

        Args:
            when: has to hold too.
            cancel_on: withdraws the reset once its value `cancel` is true.
        """
        self.phases = []
        clock = self.devices.clock
        since_s, pending = 0.0, then

        def tell(phase: str, _percent: float) -> None:
            nonlocal since_s
            self.phases.append(phase)
            since_s = clock.now_s()

        def cancelled() -> bool:
            nonlocal pending
            is_late = clock.now_s() > since_s + 0.3
            if pending is not None and self.phases[-1] == at and is_late and when():
                call, pending = pending, None
                call()
            return cancel_on is not None and cancel_on["cancel"]

        return self.reset.run(tell, cancelled)

    def is_over_ramp(self) -> bool:
        """Whether what the gripper lets go falls on the ramp, and not far."""
        planner, q = self.planner, self.cell.arms[0].q
        x, y, _ = planner.world.pose(q).position  # type: ignore[attr-defined]
        return bool(-0.25 < x < 0.0 and y < 0.22)

    @property
    def balls_in_palm(self) -> int:
        place = self.cell.truth().ball_position[0]
        lower, upper = np.array([-0.075, -0.15, 0.0]), np.array([0.08, 0.02, 0.19])
        return int(((place > lower) & (place < upper)).all(axis=-1).sum())

    @property
    def arm_speed(self) -> float:
        return float(np.abs(self.cell.arms[0].qd).max())
