# SPDX-License-Identifier: Apache-2.0
"""Tells what a camera tracker would tell about an object's pose, from the true one.

Frames at 30 Hz, delivered 20 ms after the exposure; a bias that stays for an episode, as of a
calibration, and noise from frame to frame. An alpha-beta filter gives the velocities.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FRAME_TICKS = (0, 3, 7)  # exposures within ten ticks: 30 Hz
PERIOD_TICKS = 10
# All frames are delivered, 20 ms late, before the control period ends.
_FRAMES_BEFORE = (FRAME_TICKS[-1] - PERIOD_TICKS, *FRAME_TICKS[:-1])
_BLOCK = 64  # frames whose noise is drawn at once


@dataclass(frozen=True)
class TrackerSettings:
    """Standard deviations per axis; lengths in m, angles in rad.

    Attributes:
        position_noise_m, rotation_noise: from frame to frame.
        position_bias_m, rotation_bias: for an episode.
        alpha, beta: how much of a frame's innovation goes into the pose and into the velocity.
    """

    position_noise_m: float
    rotation_noise: float
    position_bias_m: float
    rotation_bias: float
    alpha: float = 0.85
    beta: float = 0.5


@dataclass(frozen=True)
class Pose:
    """Positions [..., 3], m, and rotation matrices [..., 3, 3], in the frame of the task."""

    position: Array
    rotation: Array


@dataclass
class Tracked:
    """What the tracker tells of N objects: poses, and velocities [N, 3] in m/s and rad/s."""

    position: Array
    rotation: Array
    linear: Array
    angular: Array

    def __getitem__(self, index: Any) -> Tracked:
        """Copy some objects' rows."""
        return Tracked(*(getattr(self, field.name)[index].copy() for field in fields(self)))

    def __setitem__(self, index: Any, other: Tracked) -> None:
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(other, field.name)


@dataclass(frozen=True)
class TrackerState:
    """What K trackers carry from one control step to the next."""

    seed: NDArray[np.int64]
    frame: NDArray[np.int64]
    bias: Array
    filter: Tracked


class PoseTracker:
    """Trackers of N objects. Equal seeds give equal noise, whatever other objects there are."""

    def __init__(self, objects: int, settings: TrackerSettings, tick_s: float) -> None:
        self._settings = settings
        self._tick_s = tick_s
        self._seed = np.zeros(objects, dtype=np.int64)
        self._frame = np.zeros(objects, dtype=np.int64)
        self._bias = np.zeros((objects, 6))
        self._noise: list[tuple[int, Array] | None] = [None] * objects
        eye = np.tile(np.eye(3), (objects, 1, 1))
        self._filter = Tracked(*(np.zeros((objects, 3)), eye, *np.zeros((2, objects, 3))))
        self.seen = self._filter[:]

    def reset(self, seeds: ArrayLike, pose: Pose, chosen: list[int]) -> None:
        """Start anew with objects [K] at rest; `pose` holds theirs."""
        s = self._settings
        self._seed[chosen] = seeds
        self._frame[chosen] = 0
        for row, index in enumerate(chosen):
            self._noise[index] = None
            rng = np.random.default_rng([int(self._seed[index]), 3])
            self._bias[index] = rng.standard_normal(6) * np.repeat(
                [s.position_bias_m, s.rotation_bias], 3
            )
            position, rotation = self._measure(
                [index], Pose(pose.position[row : row + 1], pose.rotation[row : row + 1])
            )
            zero = np.zeros((1, 3))
            self._filter[[index]] = Tracked(position, rotation, zero, zero)
        self.seen = self.seen[:]
        self.seen[chosen] = self._filter[chosen]

    def follow(self, poses: Pose) -> None:
        """See a control period: the poses [N, ticks] at the starts of its ticks."""
        everyone = list(range(len(self._seed)))
        for tick, before in zip(FRAME_TICKS, _FRAMES_BEFORE, strict=True):
            pose = Pose(poses.position[:, tick], poses.rotation[:, tick])
            self._update((tick - before) * self._tick_s, *self._measure(everyone, pose))
        self.seen = self._filter[:]

    def state(self, chosen: list[int]) -> TrackerState:
        """Copy everything that `set_state` needs."""
        return TrackerState(
            self._seed[chosen],
            self._frame[chosen],
            self._bias[chosen],
            self._filter[chosen],
        )

    def set_state(self, state: TrackerState, chosen: list[int]) -> None:
        """Carry on with these objects from a state."""
        self._seed[chosen], self._frame[chosen] = state.seed, state.frame
        self._bias[chosen] = state.bias
        self._filter[chosen] = state.filter
        for index in chosen:
            self._noise[index] = None
        self.seen = self._filter[:]

    def _measure(self, objects: list[int], pose: Pose) -> tuple[Array, Array]:
        s = self._settings
        error = np.stack([self._draw(index) for index in objects])
        error = error * np.repeat([s.position_noise_m, s.rotation_noise], 3) + self._bias[objects]
        return pose.position + error[:, :3], rotation_of(error[:, 3:]) @ pose.rotation

    def _update(self, dt: float, position: Array, rotation: Array) -> None:
        f, s = self._filter, self._settings
        ahead = f.position + dt * f.linear
        turned = rotation_of(dt * f.angular) @ f.rotation
        off = position - ahead
        twist = vector_of(rotation @ turned.swapaxes(-1, -2))
        self._filter = Tracked(
            ahead + s.alpha * off,
            rotation_of(s.alpha * twist) @ turned,
            f.linear + s.beta / dt * off,
            f.angular + s.beta / dt * twist,
        )

    def _draw(self, index: int) -> Array:
        """Standard normal numbers of an object's next frame [6]."""
        block, row = divmod(int(self._frame[index]), _BLOCK)
        kept = self._noise[index]
        if kept is None or kept[0] != block:
            rng = np.random.default_rng([int(self._seed[index]), 4, block])
            kept = block, rng.standard_normal((_BLOCK, 6))
            self._noise[index] = kept
        self._frame[index] += 1
        return kept[1][row]


def rotation_of(vector: Array) -> Array:
    """Return rotation matrices [..., 3, 3] of rotation vectors [..., 3] (Rodrigues)."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    axis = vector / np.maximum(angle[..., 0], 1e-12)
    x, y, z = np.moveaxis(axis, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    skew = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    return np.eye(3) + np.sin(angle) * skew + (1.0 - np.cos(angle)) * (skew @ skew)


def vector_of(rotation: Array) -> Array:
    """Return rotation vectors [..., 3] of matrices [..., 3, 3] that turn by less than pi."""
    r = rotation
    axis = np.stack(
        [
            r[..., 2, 1] - r[..., 1, 2],
            r[..., 0, 2] - r[..., 2, 0],
            r[..., 1, 0] - r[..., 0, 1],
        ],
        axis=-1,
    )
    sine = 0.5 * np.linalg.norm(axis, axis=-1, keepdims=True)
    cosine = 0.5 * (np.trace(r, axis1=-2, axis2=-1)[..., None] - 1.0)
    angle = np.arctan2(sine, cosine)
    return 0.5 * axis * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 1.0)
