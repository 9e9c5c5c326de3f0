# SPDX-License-Identifier: Apache-2.0
"""The devices of a reset on an in-process cell: what is told comes from drawn images alone.

::

    cell = Cell(1, arm=True)
    cell.reset([seed])
    ...                                             # until a ball drops
    outcome = CellReset(cell, make_planner()).run(seed)
    cell.reset([seed], "present")                   # the next episode

Time passes in `clock.wait` alone: planning takes none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from twinloop.motion.gripper_controller import Grip
from twinloop.motion.planner import ArmPlanner
from twinloop.motion.trajectory import Trajectory
from twinloop.motion.trajectory_controller import Following, TrajectoryRefused
from twinloop.perception.tray import TrayFinder, TraySight
from twinloop.resets.baoding import BallReset
from twinloop.resets.devices import Course, Devices, PalmSight
from twinloop.resets.machine import Outcome

from twinloop_sim.arm import Arm
from twinloop_sim.camera_tracker import CameraSettings, CameraTracker
from twinloop_sim.cameras import Sensor, draw_appearance, open_eyes
from twinloop_sim.cell import Cell
from twinloop_sim.settings import TRAY

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_WANTED_S = 0.3  # cameras go on exposing so long after they were last looked at
_TRAY_TICKS, _TRAY_LATE_TICKS = 10, 6  # between two exposures, and until one's balls are told


class Exposing(Protocol):
    """Eyes that are asked at each tick."""

    def expose(self) -> None:
        """Take an exposure if one is due and wanted, and tell what has become ready."""


class CellClock:
    """Advances the cell: the hand goes to its goal, cameras expose while they are looked at.

    Args:
        cell: of one hand.
        eyes: that see it.
        hand: where the hand is to go.
        each_tick: is called after each tick with what the hand's servos were told [24], rad.
    """

    def __init__(
        self,
        cell: Cell,
        eyes: Sequence[Exposing],
        hand: CellHand,
        each_tick: Callable[[Array], None] = lambda _targets: None,
    ) -> None:
        self.cell = cell
        self._eyes = eyes
        self._hand = hand
        self._each_tick = each_tick

    def now_s(self) -> float:
        return self.cell.tick_count * self.cell.tick_s

    def wait(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / self.cell.tick_s))):
            self.tick()

    def tick(self) -> None:
        """Advance by one tick."""
        cell = self.cell
        for eyes in self._eyes:
            eyes.expose()
        targets = cell.ramp.step(self._hand.goal[None])
        cell.tick(targets)
        cell.command = self._hand.goal[None].copy()
        self._each_tick(targets[0])

    def to_control_step(self) -> None:
        """Let time pass until a control step is due, when episodes may begin."""
        while self.cell.tick_count % self.cell.period_ticks:
            self.tick()


class CellHand:
    """See `twinloop.resets.devices.Hand`; commands are limited as a guard does."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.start()

    def start(self) -> None:
        """Hold what the cell was told last."""
        self.goal: Array = self._cell.command[0].copy()

    def position(self) -> Array:
        return np.array(self._cell.joint_position[0])

    def send(self, posture: Array) -> None:
        self.goal = self._cell.limit(posture, self.goal)


class WithArms(Protocol):
    """A cell, as far as its arm goes; the first one counts."""

    @property
    def arms(self) -> tuple[Arm, ...]: ...


class CellArm:
    """See `twinloop.resets.devices.Arm`."""

    def __init__(self, cell: WithArms) -> None:
        self._cell = cell
        self.detail = ""
        self._refused = False

    def position(self) -> Array:
        return np.array(self._cell.arms[0].q)

    def follow(self, trajectory: Trajectory) -> None:
        self._refused, self.detail = False, ""
        try:
            self._cell.arms[0].execute(trajectory)
        except TrajectoryRefused as error:
            self._refused, self.detail = True, str(error)

    def course(self) -> Course:
        if self._refused:
            return Course.FAILED
        motion = self._cell.arms[0].motion
        if motion.state is Following.IDLE:
            return Course.IDLE
        if not motion.is_over or self._cell.arms[0].controller.is_moving:
            return Course.ACTIVE
        self.detail = f"{motion.state}: {motion.detail}"
        return Course.DONE if motion.state is Following.SUCCEEDED else Course.FAILED

    def cancel(self) -> None:
        self._cell.arms[0].controller.cancel()


class CellGripper:
    """See `twinloop.resets.devices.Gripper`."""

    def __init__(self, cell: WithArms) -> None:
        self._cell = cell
        self.detail = ""

    def width_m(self) -> float:
        return self._cell.arms[0].width

    def move(self, width_m: float, effort_n: float) -> None:
        self._cell.arms[0].grip(width_m, effort_n)

    def course(self) -> Course:
        status = self._cell.arms[0].grasp
        self.detail = f"{status.state}: {status.detail}"
        if status.state is Grip.IDLE:
            return Course.IDLE
        if not status.is_over:
            return Course.ACTIVE
        return Course.DONE if status.state in (Grip.REACHED, Grip.STALLED) else Course.FAILED


class CellPalmEyes:
    """The stereo tracker on drawn images, while somebody looks.

    Args:
        cell: what is drawn.
        settings: of cameras and tracker.
    """

    def __init__(self, cell: Cell, settings: CameraSettings | None = None) -> None:
        self._cell = cell
        offset = cell.twin.differences.joint_offset
        self._tracker = CameraTracker(1, cell.scene, offset, settings or CameraSettings(), arm=True)
        self._wanted_s = -np.inf
        self._sight: PalmSight | None = None

    def start(self, seed: int) -> None:
        """Begin anew, with noise of this seed."""
        cell = self._cell
        self._tracker.reset([seed], cell.state, cell.tick_count, [0])
        self._sight = None
        self._wanted_s = -np.inf

    def look(self, after_s: float) -> PalmSight | None:
        self._wanted_s = self._cell.tick_count * self._cell.tick_s
        sight = self._sight
        return sight if sight is not None and sight.stamp_s > after_s else None

    def expose(self) -> None:
        """Take an exposure if one is due and wanted, and tell what has become ready."""
        cell = self._cell
        tick = cell.tick_count
        if tick * cell.tick_s <= self._wanted_s + _WANTED_S and self._tracker.is_due(tick):
            self._tracker.expose(cell.state, tick)
        sample = self._tracker.deliver(tick)
        if sample is not None:
            self._sight = PalmSight(
                sample.tick * cell.tick_s,
                sample.position[0],
                np.linalg.norm(sample.velocity[0], axis=-1),
                sample.stale[0],
            )

    def close(self) -> None:
        self._tracker.close()


class CellTrayEyes:
    """The tray camera, while somebody looks.

    Args:
        cell: what is drawn.
        settings: how it is drawn.
    """

    def __init__(self, cell: Cell, settings: CameraSettings | None = None) -> None:
        settings = settings or CameraSettings()
        self._cell = cell
        self._eyes = open_eyes(settings.backend, cell.scene, arm=True)
        self._family = settings.appearance
        self._sensor = Sensor(
            settings.noise, settings.shot_noise, settings.exposure, settings.blur_px
        )
        self._finder = TrayFinder(self._eyes.cameras[TRAY], cell.scene.balls.radius_m)
        self.start(0)

    def start(self, seed: int) -> None:
        """Begin anew, with noise and look of this seed."""
        if self._family != "nominal":
            self._eyes.dress(draw_appearance(seed, self._family))
        self._rng = np.random.default_rng([seed, 9])
        self._wanted_s = -np.inf
        self._pending: tuple[int, Image] | None = None
        self._sight: tuple[int, TraySight] | None = None

    def look(self, after_s: float) -> TraySight | None:
        self._wanted_s = self._cell.tick_count * self._cell.tick_s
        if self._sight is None or self._sight[0] * self._cell.tick_s <= after_s:
            return None
        return self._sight[1]

    def expose(self) -> None:
        """Take an exposure if one is due and wanted, and tell what has become ready."""
        tick = self._cell.tick_count
        if self._pending is not None and self._pending[0] + _TRAY_LATE_TICKS <= tick:
            self._sight = (self._pending[0], self._finder.find(self._pending[1]))
            self._pending = None
        wanted = tick * self._cell.tick_s <= self._wanted_s + _WANTED_S
        if wanted and self._pending is None and tick % _TRAY_TICKS == 0:
            self._pending = (tick, self._draw())

    def _draw(self) -> Image:
        state = self._cell.state
        self._eyes.pose(state.joints[0], state.ball_position[0], state.ball_quaternion[0])
        return self._sensor.expose(self._eyes.image(TRAY), self._rng)

    def close(self) -> None:
        self._eyes.close()


class NeverStopped:
    """A cell that nobody stops; tests set `reason`."""

    reason = ""

    def stopped(self) -> str:
        return self.reason


class CellReset:
    """A cell of one hand with an arm, and what resets it.

    Args:
        cell: to be reset.
        planner: of its arm.
        cameras: how cameras see, and what tracks.
        each_tick: see `CellClock`.

    Attributes:
        devices: of the cell.
        reset: runs resets.

    Raises:
        ValueError: another number of hands, or no arm.
        MotionError: see `BallReset`.
    """

    def __init__(
        self,
        cell: Cell,
        planner: ArmPlanner,
        cameras: CameraSettings | None = None,
        each_tick: Callable[[Array], None] = lambda _targets: None,
    ) -> None:
        if cell.hands != 1 or not cell.arms:
            raise ValueError(
                f"a reset needs a cell of one hand with an arm, got {cell.hands} hands and "
                f"{len(cell.arms)} arms"
            )
        self._palm, self._tray = CellPalmEyes(cell, cameras), CellTrayEyes(cell, cameras)
        self._hand = CellHand(cell)
        self._clock = CellClock(cell, (self._palm, self._tray), self._hand, each_tick)
        self.safety = NeverStopped()
        self.devices = Devices(
            self._clock,
            CellArm(cell),
            CellGripper(cell),
            self._hand,
            self._tray,
            self._palm,
            self.safety,
        )
        self.reset = BallReset(self.devices, planner)

    def run(
        self, seed: int, tell: Callable[[str, float], None] = lambda _name, _percent: None
    ) -> Outcome:
        """Bring the balls back, with sensor noise of a seed; ends at a control step."""
        self._hand.start()
        self._palm.start(seed)
        self._tray.start(seed)
        outcome = self.reset.run(tell)
        self._clock.to_control_step()
        return outcome

    def close(self) -> None:
        """Free the renderers."""
        self._palm.close()
        self._tray.close()
