# SPDX-License-Identifier: Apache-2.0
"""The Baoding cell without ROS: N hands, their command ramps and their ball trackers.

One class serves both the twin node and fleets that roll policies out in process.

Fleets go step by step::

    cell = Cell(16, threads=2)
    observation = cell.reset(seeds)          # [16, 84], laid out by the contract
    observation = cell.step(action)          # [16, 24] joint targets -> [16, 84], 0.1 s later
    cell.command                             # [16, 24], the goal that was applied: record this
    cell.is_observable                       # [16], False where the balls were lost for too long

Step k: the observation is assembled at T_k from what is available by then; the command that
answers it takes effect 50 ms later (the contract's `delay_s`): ticks 0-4 of the step go on ramping
to the command before, ticks 5-9 ramp to the new one. A live node does the same in real time.

A node goes tick by tick, with a command guard of its own in front::

    cell = Cell(1, engine)
    cell.reset([seed])
    tick = cell.tick(guard.tick(...)[None])  # 10 ms with these joint targets [1, 24]
    cell.joint_position[0]                   # joint_states, stamped at the end of the tick
    tick.sample                              # tracked balls delivered in this tick, or None;
                                             # exposed at sample.tick * cell.tick_s after the reset
    cell.truth()                             # for evaluation only

With `arm=True` there is all that brings dropped balls back: balls fall onto a ramp and roll into a
tray, and `cell.arms` has an arm for each hand (see `twinloop_sim.arm`) that moves as the cell goes
on. An episode that shall begin where the last one ended, without anything being put back, starts by
`cell.reset(seeds, "present")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from twinloop.contract import Contract, load
from twinloop.robots.hand24 import HAND24
from twinloop.safety.limits import limit_goal
from twinloop.safety.ramp import Ramp

from twinloop_sim.arm import Arm, Arms
from twinloop_sim.arm_twin import ArmBatch
from twinloop_sim.settings import SceneSettings
from twinloop_sim.tracker_standin import Sample, TrackerStandin, TrackerState, into_palm
from twinloop_sim.twin import JOINTS, Array, State, make_batch
from twinloop_sim.variation import MAX_DELAY_TICKS, Spread, Variation, delayed
from twinloop_sim.variation import spread as read_spread

if TYPE_CHECKING:
    from twinloop_sim.camera_tracker import CameraTracker

EYES = ("standin", "cameras")
_LONG_AGO_TICKS = 10**6


@dataclass(frozen=True)
class Tick:
    """What became known in a tick: the true states [N] at its end, and a tracker sample or None."""

    state: State
    sample: Sample | None


@dataclass(frozen=True)
class Truth:
    """True ball positions [N, 2, 3], m, and velocities, m/s, in the palm frames; for evaluation."""

    ball_position: Array
    ball_velocity: Array


@dataclass(frozen=True)
class CellState:
    """Everything that K hands carry from one control step to the next; first axes are hands.

    Attributes:
        physics: what the engine needs, one string a hand.
        ramp: command ramps [K, taps, 24], rad.
        command: goals in force [K, 24], rad.
        waiting: targets that have not reached the servos [K, D, 24], rad.
        tracker: state of the tracker.
        held: last usable ball sample, position and velocity [K, 2, 2, 3].
        held_ticks: age of that sample, ticks [K].
        arms: with what their controllers do [K]; none where the cell has none.
    """

    physics: list[bytes]
    ramp: Array
    command: Array
    waiting: Array
    tracker: TrackerState
    held: Array
    held_ticks: NDArray[np.int64]
    arms: tuple[Arm, ...] = ()


class Cell:
    """N hands with balls, observed and commanded as the contract says.

    Args:
        hands: how many.
        engine: `mujoco` or `pybullet`.
        threads: threads that share the physics (MuJoCo).
        joint_speed: largest speed that a command may ask for, rad/s; default: the contract's.
        scene: default: config/twin/scene.yaml.
        variations: how each hand differs from the nominal one; default: not at all.
        spread: name of a spread under config/twin from which each reset draws its variation, by
            its seed; every third is nominal. "" for none.
        eyes: what tells where the balls are: the `standin` for a tracker, or `cameras`: a tracker
            on drawn images, which takes about 25 ms an exposure and hand.
        cameras: fields of `CameraSettings`, where cameras see.
        arm: whether there are ramp, tray and arm too (MuJoCo).

    Raises:
        ValueError: an unknown engine or eyes, an arm or variations on an engine that has none,
            fewer than one hand, a joint speed that is not positive, variations of another number
            of hands, settings of cameras that are out of range.
        RuntimeError: MuJoCo shall draw what cameras see, and there is no OpenGL.
    """

    def __init__(
        self,
        hands: int,
        engine: str = "mujoco",
        threads: int = 1,
        joint_speed: float | None = None,
        scene: SceneSettings | None = None,
        variations: Sequence[Variation] | None = None,
        spread: str = "",
        eyes: str = "standin",
        cameras: dict[str, Any] | None = None,
        arm: bool = False,
    ) -> None:
        if eyes not in EYES:
            raise ValueError(f"eyes is {eyes!r}, expected one of {', '.join(EYES)}")
        self.contract: Contract = load("baoding")
        self.hands = hands
        self.twin = make_batch(engine, hands, threads, scene, arm)
        self._arms = Arms(self.twin) if isinstance(self.twin, ArmBatch) else None
        self.scene = self.twin.scene
        self.tick_s = self.twin.tick_s
        self.joint_speed = self.contract.action.rate if joint_speed is None else joint_speed
        if not 0.0 < self.joint_speed < np.inf:
            raise ValueError(f"joint_speed is {joint_speed}, expected more than 0 rad/s")
        self.period_ticks = round(self.contract.period_s / self.tick_s)
        self.delay_ticks = round(self.contract.action.delay_s / self.tick_s)
        self._max_change = self.joint_speed * self.contract.period_s
        self.ramp = self.make_ramp(hands)
        self._tracker = self._make_tracker(eyes, cameras or {})
        self.command = np.zeros((hands, JOINTS))
        self._held = np.zeros((hands, 2, 2, 3))
        self._held_at = np.zeros(hands, dtype=np.int64)
        self._waiting = np.zeros((hands, MAX_DELAY_TICKS, JOINTS))
        self._spread = read_spread(spread) if spread else None
        if variations is not None:
            self.vary(None, variations)
        self.tick_count = 0
        self.state = self.twin.state()
        self.reset(np.zeros(hands, dtype=int))

    def _make_tracker(self, eyes: str, cameras: dict[str, Any]) -> TrackerStandin | CameraTracker:
        if eyes == "standin":
            return TrackerStandin(self.hands, self.scene)
        from twinloop_sim.camera_tracker import CameraSettings, CameraTracker

        settings = CameraSettings.model_validate(cameras)
        offset = self.twin.differences.joint_offset
        has_arm = self._arms is not None
        return CameraTracker(self.hands, self.scene, offset, settings, has_arm)

    def vary(self, hands: ArrayLike | None, variations: Sequence[Variation]) -> None:
        """Let hands [K], or all, differ from the nominal one; they have to be reset next.

        Raises:
            ValueError: another number of variations than of hands, or an engine that knows none.
        """
        self.twin.vary(hands, variations)
        self._tracker.offset_m = self.twin.differences.tracker_bias

    def make_ramp(self, rows: int) -> Ramp:
        """Return a ramp like that of the cell's guard, for `rows` hands."""
        return Ramp(HAND24.velocity, HAND24.acceleration, HAND24.jerk, self.tick_s, (rows,))

    def reset(
        self, seeds: ArrayLike, start: str | CellState = "cup", hands: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Start episodes anew; returns observations of all hands [N, 84].

        Args:
            seeds: one a hand that is reset; a seed sets the start and all the tracker's noise.
            start: `cup`: balls at rest in the cup; `present`: from where everything is, nothing
                moves; a `CellState`: from there. The tracker's noise is that of the seeds.
            hands: which hands are reset [K], at a control step; default all, at any time.

        Raises:
            ValueError: another number of seeds than of hands, an unknown start.
            RuntimeError: some hands only, amid a control step.
        """
        chosen = self.twin.select(seeds, hands)
        if hands is None and start != "present":
            self.tick_count = 0
        else:
            self._at_control_step()
        if self._spread is not None and start != "present":
            self.vary(chosen, [_drawn(self._spread, int(seed)) for seed in np.atleast_1d(seeds)])
        if isinstance(start, CellState):
            self.set_state(start, hands)
        elif start == "cup":
            self.state = self.twin.reset(seeds, hands)
            # Servos give way under the load: the targets stand where the reset put them.
            offset = self.twin.differences.joint_offset[chosen]
            self._replace_command(chosen, self.twin.rest[chosen] + offset)
            self.ramp.reset(self.command[chosen], chosen)
            self._waiting[chosen] = self.command[chosen, None]
            if self._arms is not None:
                self._arms.rest(chosen)
        elif start != "present":
            raise ValueError(f"start is {start!r}, expected 'cup', 'present' or a CellState")
        sample = self._tracker.reset(seeds, self.state, self.tick_count, chosen)
        self._hold(sample, chosen)
        # A tracker that did not find the balls knows nothing, not even something old.
        blind = [hand for hand in chosen if sample.stale[hand].any()]
        self._held_at[blind] = self.tick_count - _LONG_AGO_TICKS
        return self.observe()

    def step(self, action: ArrayLike) -> NDArray[np.float32]:
        """Advance one control step under joint targets [N, 24], rad; returns the next observations.

        Targets are clamped as a guard does; `command` then holds what was applied.

        Raises:
            ValueError: another shape or a value that is not finite.
            RuntimeError: amid a control step that `tick` began.
        """
        self._at_control_step()
        before = self.command
        self.command = self.limit(action, before)
        targets = np.empty((self.hands, self.period_ticks, JOINTS))
        for tick in range(self.period_ticks):
            goal = before if tick < self.delay_ticks else self.command
            targets[:, tick] = self.ramp.step(goal)
        states = self._move(targets)
        for tick in range(self.period_ticks):
            now = self.state if tick == 0 else states[:, tick - 1]
            self._follow(now)
        self.state = states[:, -1]
        return self.observe()

    def tick(self, targets: ArrayLike) -> Tick:
        """Advance one tick with joint targets [N, 24], rad, that passed a guard and its ramp."""
        ctrl = np.asarray(targets, dtype=np.float64)
        before = self.state
        self.state = self._move(ctrl[:, None])[:, -1]
        return Tick(self.state, self._follow(before))

    def _move(self, targets: Array) -> State:
        """Advance the hands under what servos are sent [N, T, 24], rad; returns states [N, T]."""
        differences = self.twin.differences
        arriving, self._waiting = delayed(self._waiting, targets, differences.delay)
        arriving = arriving - differences.joint_offset[:, None]
        return self.twin.step(arriving) if self._arms is None else self._arms.step(arriving)

    def limit(self, action: ArrayLike, previous: Array) -> Array:
        """Return the goal [..., 24] that a guard makes of requested targets [..., 24], rad.

        Raises:
            ValueError: another shape than `previous` or a value that is not finite.
        """
        targets = np.asarray(action, dtype=np.float64)
        if targets.shape != previous.shape or not np.isfinite(targets).all():
            raise ValueError(
                f"an action must be finite joint targets {previous.shape}, got {targets.shape}"
            )
        return limit_goal(targets, previous, HAND24.lower, HAND24.upper, self._max_change)[0]

    def observe(self) -> NDArray[np.float32]:
        """Return observations [N, 84] from what is available now, laid out by the contract."""
        return self.contract.pack(
            {
                "joint_position": self.joint_position,
                "joint_velocity": self.state.qd,
                "command": self.command,
                "ball_position": self._held[:, 0].reshape(self.hands, 6),
                "ball_velocity": self._held[:, 1].reshape(self.hands, 6),
            }
        )

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms [N]; none where the cell has none."""
        return () if self._arms is None else self._arms.present

    @property
    def joint_position(self) -> Array:
        """What the encoders tell [N, 24], rad."""
        return np.asarray(self.state.q + self.twin.differences.joint_offset)

    @property
    def waiting(self) -> Array:
        """Targets sent in the last ticks, some of which may not have reached the servos
        [N, D, 24], rad."""
        return self._waiting.copy()

    @property
    def sample_age_s(self) -> Array:
        """Age of the ball samples in the observation [N], s."""
        return np.asarray((self.tick_count - self._held_at) * self.tick_s)

    @property
    def is_observable(self) -> NDArray[np.bool_]:
        """Whether the ball samples are young enough for the contract [N]."""
        oldest = next(c.max_age_s for c in self.contract.observation if c.name == "ball_position")
        return self.sample_age_s <= oldest + 1e-9

    def truth(self) -> Truth:
        """Where the balls truly are. Nothing that plans or learns may look."""
        return Truth(*into_palm(self.state))

    def get_state(self, hands: ArrayLike | None = None) -> CellState:
        """Return all that some hands carry along; raises RuntimeError amid a control step."""
        self._at_control_step()
        chosen = self.twin.select(None, hands)
        physics = self.twin.get_state()
        return CellState(
            [physics[hand] for hand in chosen],
            np.moveaxis(self.ramp.state(), 0, 1)[chosen],
            self.command[chosen],
            self._waiting[chosen],
            self._tracker.state(chosen),
            self._held[chosen],
            self.tick_count - self._held_at[chosen],
            () if self._arms is None else self._arms.saved(chosen),
        )

    def set_state(self, state: CellState, hands: ArrayLike | None = None) -> NDArray[np.float32]:
        """Carry on from what `get_state` gave; returns observations of all hands [N, 84].

        Raises:
            ValueError: a state of another number of hands, or of another engine.
            RuntimeError: amid a control step.
        """
        self._at_control_step()
        chosen = self.twin.select(None, hands)
        self.state = self.twin.set_state(state.physics, hands)
        if self._arms is not None:
            self._arms.restore(chosen, state.arms)
        ramp = np.moveaxis(self.ramp.state(), 0, 1)
        ramp[chosen] = state.ramp
        self.ramp.set_state(np.moveaxis(ramp, 1, 0))
        self._replace_command(chosen, state.command)
        self._waiting[chosen] = state.waiting
        self._tracker.set_state(state.tracker, self.tick_count, chosen)
        self._held[chosen] = state.held
        self._held_at[chosen] = self.tick_count - state.held_ticks
        return self.observe()

    def close(self) -> None:
        """Free what the engine and the eyes hold."""
        self._tracker.close()
        self.twin.close()

    def _follow(self, before: State) -> Sample | None:
        """Let the trackers see a tick that began with these states."""
        if self._tracker.is_due(self.tick_count):
            self._tracker.expose(before, self.tick_count)
        self.tick_count += 1
        sample = self._tracker.deliver(self.tick_count)
        if sample is not None:
            self._hold(sample, np.flatnonzero(~sample.stale.any(axis=1)))
        return sample

    def _replace_command(self, hands: list[int], command: Array) -> None:
        # Callers keep what `command` gave them: it must stay as it was.
        self.command = self.command.copy()
        self.command[hands] = command

    def _hold(self, sample: Sample, hands: Any) -> None:
        self._held[hands, 0] = sample.position[hands]
        self._held[hands, 1] = sample.velocity[hands]
        self._held_at[hands] = sample.tick

    def _at_control_step(self) -> None:
        if self.tick_count % self.period_ticks:
            raise RuntimeError(
                f"the cell is {self.tick_count % self.period_ticks} ticks into a control step; "
                "this can be done between control steps only"
            )


def _drawn(spread: Spread, seed: int) -> Variation:
    """Return the variation of a seed's episode; what is nominal must not be forgotten."""
    return spread.draw(np.random.default_rng([seed, 6])) if seed % 3 else Variation()
