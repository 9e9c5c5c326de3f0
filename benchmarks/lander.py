# SPDX-License-Identifier: Apache-2.0
"""gymnasium's LunarLander with a landing place that only the pilot knows, and simulated pilots.

After "Shared Autonomy via Deep Reinforcement Learning" (arXiv 1802.01744, section V): the place is
drawn anew for each flight and stands in no observation of the copilot, which sees the lander's
state and what the pilot wants.
"""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.box2d import lunar_lander
from gymnasium.envs.box2d.lunar_lander import SCALE, VIEWPORT_H, VIEWPORT_W, LunarLander, heuristic
from numpy.typing import NDArray
from worthy_acts import ACTS

NOTHING = ACTS.index((0, 0))
STEPS = 1000  # of a flight
STATE = 8  # elements of the lander's state
_CHUNKS = 11  # of the ground, as in gymnasium
_PADS = range(2, 9)  # chunks about which the landing place may lie
_HALF_M = VIEWPORT_W / SCALE / 2
LANDED, CRASHED, ELSEWHERE = "landed", "crashed", "landed elsewhere"
ALOFT, ALOFT_AT_PAD = "out of time", "out of time between the flags"
ENDS = (LANDED, CRASHED, ELSEWHERE, ALOFT, ALOFT_AT_PAD)

LAG, NOISE = 0.8, 0.15  # probabilities

Act = int


class HiddenPad(LunarLander):
    """The lander with six acts and a landing place at `pad`, drawn at each reset.

    The state and its units are gymnasium's. The reward counts the distance to the place, and a
    landing elsewhere earns no prize; how a flight ended stands in the info.

    Attributes:
        pad: place in units of the state's first element, -1 to 1.
    """

    def __init__(self) -> None:
        super().__init__(continuous=True)
        self.action_space = gymnasium.spaces.Discrete(len(ACTS))
        self.pad = 0.0
        self._excess = 0.0  # of our shaping over gymnasium's at the last step
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        state, info = super().reset(seed=seed)
        chunk = int(self.np_random.integers(_PADS.start, _PADS.stop))
        self._raise_ground(chunk)
        self.pad = (2.0 * _HALF_M / (_CHUNKS - 1) * chunk - _HALF_M) / _HALF_M
        self._excess, self._steps = self._shaping_excess(state), 0
        return state, info

    def step(self, action: Any) -> Any:
        if isinstance(action, np.ndarray) and action.shape == (2,):
            return super().step(action)  # gymnasium's own reset takes a step
        main, side = ACTS[int(action)]
        state, reward, is_over, _, info = super().step(np.array([2.0 * main - 1.0, float(side)]))
        self._steps += 1
        excess = self._shaping_excess(state)
        if is_over:
            rests = not self.lander.awake
            end = (LANDED if self._is_at_pad else ELSEWHERE) if rests else CRASHED
            if end != ELSEWHERE:
                reward = 100.0 if end == LANDED else -100.0
            info = {"end": end}
        else:
            reward += excess - self._excess
            if self._steps >= STEPS:
                info = {"end": ALOFT_AT_PAD if self._is_at_pad else ALOFT}
        self._excess = excess
        return state, float(reward), is_over, not is_over and self._steps >= STEPS, info

    @property
    def _is_at_pad(self) -> bool:
        """Whether the lander is between the flags, or above."""
        return bool(self.helipad_x1 <= self.lander.position.x <= self.helipad_x2)

    def _shaping_excess(self, state: NDArray[np.float32]) -> float:
        """Return by how much the distance to the place costs less than that to the middle."""
        x, y = float(state[0]), float(state[1])
        return 100.0 * (np.hypot(x, y) - np.hypot(x - self.pad, y))

    def _raise_ground(self, chunk: int) -> None:
        """Put the flat part of the ground, and the flags, about a chunk."""
        wide, high = VIEWPORT_W / SCALE, VIEWPORT_H / SCALE
        height = self.np_random.uniform(0, high / 2, size=_CHUNKS + 1)
        self.helipad_y = high / 4
        height[chunk - 2 : chunk + 3] = self.helipad_y
        around = np.stack([np.roll(height, 1), height, np.roll(height, -1)])[:, :_CHUNKS]
        smooth = 0.33 * around.sum(0)
        x = np.linspace(0.0, wide, _CHUNKS)
        self.helipad_x1, self.helipad_x2 = float(x[chunk - 1]), float(x[chunk + 1])
        self.world.DestroyBody(self.moon)
        edge = lunar_lander.edgeShape(vertices=[(0, 0), (wide, 0)])
        self.moon = self.world.CreateStaticBody(shapes=edge)
        self.moon.color1 = self.moon.color2 = (0.0, 0.0, 0.0)
        self.sky_polys = []
        corners = list(zip(x.tolist(), smooth.tolist(), strict=True))
        for left, right in itertools.pairwise(corners):
            self.moon.CreateEdgeFixture(vertices=[left, right], density=0, friction=0.1)
            self.sky_polys.append([left, right, (right[0], high), (left[0], high)])


def expert(env: HiddenPad, state: NDArray[np.float32]) -> Act:
    """Return what gymnasium's heuristic does, told where the place is."""
    seen = state.copy()
    seen[0] -= env.pad
    main, side = heuristic(env, seen)
    return ACTS.index((int(main > 0), int(np.sign(side)) if abs(side) > 0.5 else 0))


class SimulatedPilot:
    """A pilot of a kind, as published.

    `laggy` is the expert, but repeats its last act with p = .8; `noisy` is the expert with each of
    an act's two parts another one with p = .15; `no-op` does nothing; `sensor` knows the place but
    pushes to its side alone, and not within a tenth of half the width of it.

    Raises:
        ValueError: another kind.
    """

    KINDS = ("laggy", "noisy", "no-op", "sensor")

    def __init__(self, kind: str) -> None:
        if kind not in (*self.KINDS, "expert"):
            raise ValueError(f"pilot is {kind!r}, expected one of {', '.join(self.KINDS)}")
        self.kind = kind
        self._rng = np.random.default_rng(0)
        self._last = NOTHING

    def start(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 7])
        self._last = NOTHING

    def act(self, env: HiddenPad, state: NDArray[np.float32]) -> Act:
        self._last = self._chosen(env, state)
        return self._last

    def _chosen(self, env: HiddenPad, state: NDArray[np.float32]) -> Act:
        if self.kind == "no-op":
            return NOTHING
        if self.kind == "sensor":
            away = float(state[0]) - env.pad
            return NOTHING if abs(away) < 0.1 else ACTS.index((0, 1 if away < 0 else -1))
        if self.kind == "laggy" and self._rng.random() < 0.8:
            return self._last
        act = expert(env, state)
        return self._disturbed(act) if self.kind == "noisy" else act

    def _disturbed(self, act: Act) -> Act:
        """Return the act with each of its parts another one with p = .15."""
        main, side = ACTS[act]
        if self._rng.random() < NOISE:
            main = 1 - main
        if self._rng.random() < NOISE:
            side = (side + 1 + int(self._rng.integers(1, 3))) % 3 - 1
        return ACTS.index((main, side))


class Flight(gymnasium.Env[NDArray[np.float32], Any]):
    """The lander as a copilot has it: its state and the pilot's act, [14]; it decides the act.

    Args:
        kinds: of pilots; each flight draws one.
    """

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self.lander = HiddenPad()
        self.action_space = self.lander.action_space
        space = self.lander.observation_space
        told = np.ones(len(ACTS), dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(
            np.concatenate([space.low, 0 * told]), np.concatenate([space.high, told])
        )
        self._pilots = [SimulatedPilot(kind) for kind in kinds]
        self._pilot = self._pilots[0]
        self.wanted = NOTHING  # the pilot's act for what was observed last

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        flight = int(self.np_random.integers(2**31)) if seed is None else seed
        self._pilot = self._pilots[int(self.np_random.integers(len(self._pilots)))]
        self._pilot.start(flight)
        state, info = self.lander.reset(seed=flight)
        return self._observed(state), info

    def step(self, action: Any) -> Any:
        state, reward, is_over, is_cut, info = self.lander.step(int(action))
        return self._observed(state), reward, is_over, is_cut, info

    def _observed(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        self.wanted = self._pilot.act(self.lander, state)
        told = np.zeros(len(ACTS), dtype=np.float32)
        told[self.wanted] = 1.0
        return np.concatenate([state, told])
