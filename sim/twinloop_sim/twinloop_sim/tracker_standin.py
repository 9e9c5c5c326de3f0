# SPDX-License-Identifier: Apache-2.0
"""Tells what PDDM's stereo tracker would tell about the balls, from their true places.

Frames at 30 Hz, delivered 20 ms after the exposure; a slowly wandering bias that makes up most of
a 5 mm mean error; about 1 mm from frame to frame; nothing of a ball that fingers hide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from twinloop.perception.ball_filter import BallFilter, BallFilterSettings
from twinloop.robots.rotations import matrix_from_quaternion

from twinloop_sim.settings import SceneSettings
from twinloop_sim.twin import State
from twinloop_sim.visibility import Visibility

Array = NDArray[np.float64]

FRAME_TICKS = (0, 3, 7)  # exposures within ten ticks: 30 Hz
PERIOD_TICKS = 10
DELIVERY_TICKS = 2  # all frames of a control period are delivered within it
LAST_FRAME_TICK = FRAME_TICKS[-1] - PERIOD_TICKS  # seen from the start of the next period

_BIAS_STD_M = 0.0031  # per axis; with the noise, a mean length of 5 mm
_BIAS_TIME_S = 10.0
_SHARED = 0.8  # part of the bias variance that both balls have in common: the cameras' places
_NOISE_STD_M = 0.0004
_LEAST_VISIBLE = 0.25
_BLOCK = 128  # frames whose noise is drawn at once


@dataclass(frozen=True)
class Sample:
    """Tracked balls of N hands in their palm frames.

    Attributes:
        tick: exposure, in ticks of the tracker's count.
        position: [N, 2, 3], m.
        velocity: in the world, along the palm's axes [N, 2, 3], m/s.
        covariance: of (position, velocity) [N, 2, 6, 6].
        visible_fraction: [N, 2], 0 to 1.
        stale: [N, 2], no evidence for this position any more.
    """

    tick: int
    position: Array
    velocity: Array
    covariance: Array
    visible_fraction: Array
    stale: NDArray[np.bool_]


@dataclass
class TrackerState:
    """What a tracker carries along at the start of a control period; first axes are hands."""

    seed: NDArray[np.int64]
    frame: NDArray[np.int64]
    bias: Array
    filter: dict[str, Array]


def into_palm(state: State) -> tuple[Array, Array]:
    """Return true ball positions [..., 2, 3], m, and velocities, m/s, in the palm frame.

    The velocity is the ball's in the world, along the palm's axes: what the palm itself does to
    the coordinates is not in it, the joints tell that.
    """
    return _into_palm(state, state.ball_position, state.ball_velocity)


def _into_palm(state: State, position: Array, velocity: Array) -> tuple[Array, Array]:
    rotation = matrix_from_quaternion(state.palm_quaternion)
    return (position - state.palm_position[..., None, :]) @ rotation, velocity @ rotation


class TrackerStandin:
    """Exposes frames of N hands and hands the filtered balls over, late.

    Equal seeds give equal noise, frame by frame, whatever other hands there are.
    """

    def __init__(
        self, hands: int, scene: SceneSettings, settings: BallFilterSettings | None = None
    ) -> None:
        self.hands = hands
        self._tick_s = scene.tick_s
        self._visibility = Visibility(scene)
        self._filter = BallFilter((hands, 2), settings)
        self._seed = np.zeros(hands, dtype=np.int64)
        self._frame = np.zeros(hands, dtype=np.int64)
        self._bias = np.zeros((hands, 2, 3))
        self.offset_m = np.zeros((hands, 3))  # constant error, world axes
        self._noise: list[dict[int, Array]] = [{} for _ in range(hands)]
        self._pending: list[Sample] = []
        self._last_tick = LAST_FRAME_TICK

    def reset(self, seeds: ArrayLike, state: State, tick: int, hands: list[int]) -> Sample:
        """Start anew with balls that have been at rest in view.

        Args:
            seeds: one a hand that is reset.
            state: of all hands [N].
            tick: present tick, at the start of a control period.
            hands: which hands are reset.

        Returns:
            A sample of all hands, as of the last frame of the period before.
        """
        last = tick + LAST_FRAME_TICK
        self._seed[hands] = seeds
        self._frame[hands] = 0
        for hand in hands:
            self._noise[hand].clear()
            self._bias[hand] = _BIAS_STD_M * _shared(self._draw(hand)[6:])
        noise = np.stack([self._draw(hand)[:6].reshape(2, 3) for hand in hands])
        self._frame[hands] += 1
        seen = state.ball_position[hands] + self.offset_m[hands, None]
        seen += self._bias[hands] + _NOISE_STD_M * noise
        self._filter.reset(seen, hands)
        self._pending.clear()
        self._last_tick = last
        return self._sample(state, last, np.ones((self.hands, 2)))

    def is_due(self, tick: int) -> bool:
        """Tell whether a frame is exposed at a tick."""
        return tick % PERIOD_TICKS in FRAME_TICKS

    def expose(self, state: State, tick: int) -> None:
        """Take a frame of the present states [N]; it is delivered `DELIVERY_TICKS` later."""
        fraction = self._visibility.fractions(state.q, state.ball_position)
        fraction = np.where(fraction < _LEAST_VISIBLE, 0.0, fraction)
        drawn = np.stack([self._draw(hand) for hand in range(self.hands)])
        self._frame += 1
        dt = (tick - self._last_tick) * self._tick_s
        keep = np.exp(-dt / _BIAS_TIME_S)
        kick = _BIAS_STD_M * np.sqrt(1.0 - keep**2)
        self._bias = keep * self._bias + kick * _shared(drawn[:, 6:])
        noise = _NOISE_STD_M * drawn[:, :6].reshape(-1, 2, 3)
        noise /= np.maximum(fraction, _LEAST_VISIBLE)[..., None]
        seen = state.ball_position + self.offset_m[:, None] + self._bias + noise
        self._filter.update(dt, seen, fraction)
        self._last_tick = tick
        self._pending.append(self._sample(state, tick, fraction))

    def deliver(self, tick: int) -> Sample | None:
        """Return the sample that becomes available at `tick`, if one does."""
        if self._pending and self._pending[0].tick + DELIVERY_TICKS <= tick:
            return self._pending.pop(0)
        return None

    def close(self) -> None:
        """There is nothing to free."""

    def _sample(self, state: State, tick: int, fraction: Array) -> Sample:
        # Balls fly straight in the world, not in the moving palm: that is where they are filtered.
        balls = self._filter
        position, velocity = _into_palm(state, balls.position, balls.velocity)
        return Sample(
            tick,
            position,
            velocity,
            balls.covariance(),
            fraction,
            balls.is_stale,
        )

    def _draw(self, hand: int) -> Array:
        """Standard normal numbers of the hand's present frame [15]: 6 of noise, 9 of bias."""
        block, row = divmod(int(self._frame[hand]), _BLOCK)
        blocks = self._noise[hand]
        if block not in blocks:
            blocks.clear()
            rng = np.random.default_rng([int(self._seed[hand]), block])
            blocks[block] = rng.standard_normal((_BLOCK, 15))
        return blocks[block][row]

    def state(self, hands: list[int]) -> TrackerState:
        """Copy of everything that `set_state` needs, of these hands.

        Raises:
            RuntimeError: a frame is on its way, that is, amid a control period.
        """
        if self._pending:
            raise RuntimeError("the tracker's state can be taken at control steps only")
        return TrackerState(
            self._seed[hands],
            self._frame[hands],
            self._bias[hands],
            {name: array[hands] for name, array in self._filter.state().items()},
        )

    def set_state(self, state: TrackerState, tick: int, hands: list[int]) -> None:
        """Carry on with these hands from a state, at the start of a control period."""
        self._seed[hands], self._frame[hands] = state.seed, state.frame
        self._bias[hands] = state.bias
        self._filter.set_state(state.filter, hands)
        for hand in hands:
            self._noise[hand].clear()
        self._last_tick = tick + LAST_FRAME_TICK


def _shared(normal: Array) -> Array:
    """Mix numbers [..., 9] into standard normal ones [..., 2, 3] that the balls partly share."""
    both, own = normal[..., None, :3], normal[..., 3:].reshape(*normal.shape[:-1], 2, 3)
    return np.sqrt(_SHARED) * both + np.sqrt(1.0 - _SHARED) * own
