# SPDX-License-Identifier: Apache-2.0
"""One simulated cell behind a command guard, on a clock of its own. No ROS in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from twinloop.perception.ball_filter import BallFilter
from twinloop.robots.hand24 import HAND24
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardSettings, Verdict

from twinloop_sim.cell import Cell
from twinloop_sim.nodes.guarded_arm import GuardedArm
from twinloop_sim.tracker_standin import FRAME_TICKS

Array = NDArray[np.float64]

# Longer than any sample of the scene before stays usable, and enough for planners to take it for a
# jump of the clock: their control steps then start anew with the scene.
RESET_NS = 1_200_000_000
STARTS = ("cup", "present")


@dataclass(frozen=True)
class Balls:
    """Tracked balls as they are delivered.

    Attributes:
        stamp_ns: exposure, ROS time, ns.
        position: [2, 3], m, palm frame.
        velocity: [2, 3], m/s.
        covariance: [2, 6, 6].
        visible_fraction: [2].
        is_stale: [2].
    """

    stamp_ns: int
    position: Array
    velocity: Array
    covariance: Array
    visible_fraction: Array
    is_stale: NDArray[np.bool_]


@dataclass(frozen=True)
class CellReading:
    """What the cell's sensors give at the end of a tick.

    Attributes:
        stamp_ns: ROS time, ns.
        position: joints [J], rad.
        velocity: joints [J], rad/s.
        setpoint: what the guard applied during the tick [J], rad.
        balls: tracked balls that became available, or None.
        is_control_step: whether the tick ends at a control step of the simulation.
        exposures_left: where cameras expose at the end of the tick, how many more times they do
            before the next control step; None where they do not.
    """

    stamp_ns: int
    position: Array
    velocity: Array
    setpoint: Array
    balls: Balls | None
    is_control_step: bool
    exposures_left: int | None


class GuardedCell:
    """Advances a cell tick by tick with what its guard lets through.

    Simulated time only goes on, also over resets; ROS time is simulated time plus `offset_ns`.

    Args:
        cell: one hand.
        settings: of the guard; its tick and period must be the cell's.
        seed: of the first scene.
        start_ns: simulated time at the start, ns, taken to the next control period.

    Attributes:
        arm: the cell's, behind the same guard; None where it has none.
    """

    def __init__(self, cell: Cell, settings: GuardSettings, seed: int, start_ns: int) -> None:
        if cell.hands != 1:
            raise ValueError(f"a guarded cell has one hand, got {cell.hands}")
        self.cell = cell
        self.offset_ns = 0
        self._tick_ns = round(cell.tick_s * 1e9)
        self._period_ns = self._tick_ns * cell.period_ticks
        if settings.tick_s != cell.tick_s or settings.period_s != cell.contract.period_s:
            raise ValueError(
                f"the guard ticks every {settings.tick_s} s for commands every "
                f"{settings.period_s} s, the cell every {cell.tick_s} s for commands every "
                f"{cell.contract.period_s} s"
            )
        self.sim_ns = self._next_period(start_ns)
        cell.reset([seed])
        self.guard = CommandGuard(HAND24, settings, cell.command[0])
        self.arm = GuardedArm(cell, self.guard) if cell.arms else None

    @property
    def now_ns(self) -> int:
        """ROS time, ns."""
        return self.sim_ns + self.offset_ns

    def submit(
        self,
        names: Sequence[str],
        positions: ArrayLike,
        stamp_ns: int,
        source: str,
        steady_s: float,
    ) -> Verdict:
        """Hand a command to the guard; see `CommandGuard.submit`."""
        return self.guard.submit(names, positions, stamp_ns, source, self.now_ns, steady_s)

    def tick(self, steady_s: float) -> CellReading:
        """Advance one tick.

        Raises:
            FloatingPointError: the simulation has left the finite numbers.
        """
        setpoint = self.guard.tick(self.now_ns, steady_s)
        if self.arm is not None:
            self.arm.check_stop()
        begin_ns = self.sim_ns - self.cell.tick_count * self._tick_ns
        tick = self.cell.tick(setpoint[None])
        self.sim_ns += self._tick_ns
        position, velocity = self.cell.joint_position[0], tick.state.qd[0]
        if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
            raise FloatingPointError("the simulation has diverged: joint states are not finite")
        balls = None
        if tick.sample is not None:
            sample = tick.sample
            balls = Balls(
                begin_ns + sample.tick * self._tick_ns + self.offset_ns,
                sample.position[0],
                sample.velocity[0],
                sample.covariance[0],
                sample.visible_fraction[0],
                sample.stale[0],
            )
        return CellReading(self.now_ns, position, velocity, setpoint, balls, *self._phase())

    def reset(self, seed: int, start: str) -> CellReading | None:
        """Bring the scene back; returns what the sensors give at its start.

        Simulated time jumps ahead to a control period in which no sample of the old scene is
        usable any more. The guard stands where the new scene does, without a source.

        `present` lets everything be where it is, and time go on: the hand is held, and nothing is
        returned.

        Raises:
            RuntimeError: the guard is stopped.
            ValueError: an unknown start, or a seed that is too large.
        """
        guard, cell = self.guard, self.cell
        guard.check_restart()
        if start not in STARTS:
            raise ValueError(f"start is {start!r}, expected one of {', '.join(STARTS)}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed is {seed}, expected 0 to 2**63 - 1")
        if start == "present":
            guard.hold("another episode begins", self.now_ns)
            return None
        cell.reset([seed], start)
        self.sim_ns = self._next_period(self.sim_ns + RESET_NS)
        # One tick back, so that the goal is dated before the first control step.
        guard.restart(cell.command[0], self.now_ns - self._tick_ns, "scene reset")
        return self.reading()

    def reading(self) -> CellReading:
        """What the sensors give right after a reset, the tracker's first sample included."""
        held = self.cell.get_state()
        position, velocity = held.held[0]
        tracker = BallFilter((2,))
        tracker.reset(position)
        balls = Balls(
            self.now_ns - int(held.held_ticks[0]) * self._tick_ns,
            position,
            velocity,
            tracker.covariance(),
            np.ones(2),
            np.zeros(2, dtype=np.bool_),
        )
        joints = self.cell.joint_position[0], self.cell.state.qd[0]
        return CellReading(self.now_ns, *joints, self.guard.applied, balls, *self._phase())

    def rearm(self, steady_s: float) -> tuple[bool, str]:
        """End a stop; the joints stay where they stand. See `CommandGuard.rearm`."""
        return self.guard.rearm(self.cell.joint_position[0], self.now_ns, steady_s)

    def _phase(self) -> tuple[bool, int | None]:
        """Whether a control step is due, and what `CellReading` says of exposures."""
        phase = self.cell.tick_count % self.cell.period_ticks
        if phase not in FRAME_TICKS:
            return phase == 0, None
        return phase == 0, sum(tick > phase for tick in FRAME_TICKS)

    @property
    def next_step_ns(self) -> int:
        """Simulated time of the control step that is due next, or now, ns."""
        return self._next_period(self.sim_ns)

    def _next_period(self, time_ns: int) -> int:
        return -(-time_ns // self._period_ns) * self._period_ns
