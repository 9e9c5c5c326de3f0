# SPDX-License-Identifier: Apache-2.0
"""Draws labelled windows of both eyes for training a ball tracker: see `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from twinloop.perception.ball_tracker import data
from twinloop.perception.ball_tracker.eyes import BALLS_IN_PALM_M, cut
from twinloop.perception.camera_model import CameraModel, StereoModel
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import palm_chain

from twinloop_sim.cameras.appearance import Family, draw_appearance
from twinloop_sim.cameras.eyes import Eyes
from twinloop_sim.cameras.stage import STEREO, camera_poses, stereo_model
from twinloop_sim.settings import SceneSettings
from twinloop_sim.tracker_rollouts import roll_out
from twinloop_sim.visibility import Visibility

Array = NDArray[np.float64]

PAIRS_PER_PART = 500
_PAIRS_PER_APPEARANCE = 1
_NOISES, _GOALS, _STEPS = (0.0, 0.1, 0.3, 0.6), ("ccw", "cw"), 100  # of episodes
_BATCH, _EVERY = 16, 4  # episodes side by side; exposures of which one is taken
_FIRST_SEED = 400_000_000
AWAY_M = np.array([0.0, -3.0, 0.1])  # where no camera sees a ball
_SHARE_AWAY = 0.08
_PLACES_M = np.array([[-0.045, -0.065, 0.02], [0.07, -0.01, 0.155]])  # palm frame
_LEAST_APART_M = 0.052
_WRIST_RAD = 0.08
_GUESSES = 24
_RIG_M, _RIG_RAD = 0.002, np.radians(0.3)


@dataclass(frozen=True)
class Posed:
    """A state of the cell: joints [24], rad; balls [2, 3], m, world, and their turns [2, 4]."""

    q: Array
    balls: Array
    turns: Array


def generate(
    folder: Path,
    eyes: Eyes,
    pairs: int,
    seed: int,
    family: Family = "train",
    say: Callable[[int], None] | None = None,
) -> None:
    """Write labelled windows of `pairs` states to a new folder, as `ball_tracker.data` has them.

    Half of the states are met in episodes of the shipped model, with noise and drops. In the other
    half fingers and balls are put anywhere about the palm, so that there is every occlusion. The
    rig stands off its nominal place in each, and each eighth pair looks new.

    Args:
        say: told how many pairs were written.

    Raises:
        FileExistsError: the folder is not empty.
        ValueError: fewer than one pair.
    """
    if pairs < 1:
        raise ValueError(f"pairs is {pairs}, expected at least 1")
    about = {"backend": eyes.backend, "family": family, "seed": seed, "pairs": pairs}
    data.begin(folder, about)
    stereo = stereo_model(eyes.scene)
    rng = np.random.default_rng([seed, 11])
    met, maker = _met(rng, seed), _Maker(rng, eyes.scene)
    for part, first in enumerate(range(0, pairs, PAIRS_PER_PART)):
        drawn = []
        for index in range(first, min(first + PAIRS_PER_PART, pairs)):
            if index % _PAIRS_PER_APPEARANCE == 0:
                look = seed * 1_000_000 + index // _PAIRS_PER_APPEARANCE
                eyes.dress(draw_appearance(look, family))
            eyes.shift(rig_error(rng, rng.uniform(0.0, 2.0)))
            state = next(met)
            drawn.append(_drawn(eyes, stereo, maker.make(state) if index % 2 else state))
            if say is not None:
                say(index + 1)
        images, labels, balls = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
        data.write_part(folder, part, images, labels, balls)


def rig_error(rng: np.random.Generator, scale: float = 1.0) -> Array:
    """Return a pose error of the whole rig [4, 4]: 2 mm and 0.3 degrees times `scale`.

    Both have exactly this size, along and about random directions; the rotation is about the left
    camera.
    """
    error = np.eye(4)
    error[:3, :3] = cv2.Rodrigues(_RIG_RAD * scale * _direction(rng))[0]
    error[:3, 3] = _RIG_M * scale * _direction(rng)
    return error


def _direction(rng: np.random.Generator) -> Array:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def _drawn(
    eyes: Eyes, stereo: StereoModel, state: Posed
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Return images [2, H, W, 3], labels [2, H, W] and balls [2, 2, 3] of a state."""
    eyes.pose(state.q, state.balls, state.turns)
    corners = _corners(eyes, stereo, state.q)
    images, labels = [], []
    balls = np.empty((2, 2, 3), dtype=np.float32)
    width, height = data.STORED
    for eye, (name, picture) in enumerate(zip(STEREO, eyes.pair(), strict=True)):
        x, y = corners[eye]
        images.append(cut(picture, x, y, width, height))
        labels.append(cut(eyes.labels(name), x, y, width, height))
        pose = eyes.camera_pose(name)
        seen = (state.balls - pose[:3, 3]) @ pose[:3, :3]
        balls[eye] = _outlines(seen, eyes.cameras[name], eyes.scene.balls.radius_m)
        balls[eye, :, :2] -= corners[eye]
    return np.stack(images), np.stack(labels), np.nan_to_num(balls)


def _outlines(seen: Array, camera: CameraModel, radius_m: float) -> Array:
    """Return the middles (x, y) of the outlines of balls at `seen` [2, 3], m, and their apparent
    radii [2, 3], pixels.

    An outline is an ellipse; its middle is further off the axis than the projected centre.
    """
    farther = seen.copy()
    farther[:, 2] -= radius_m**2 / seen[:, 2]
    apparent = camera.k[0, 0] * radius_m / seen[:, 2]
    return np.concatenate([camera.project(farther), apparent[:, None]], axis=1)


def _corners(eyes: Eyes, stereo: StereoModel, q: Array) -> NDArray[np.int64]:
    """Return the first pixels (x, y) of both stored windows [2, 2], from the nominal rig."""
    position, rotation = palm_chain(eyes.scene.side).poses(q[:2])
    middle = position[0] + rotation[0] @ BALLS_IN_PALM_M
    nominal = camera_poses(eyes.scene)[STEREO[0]]
    point = nominal[:3, :3].T @ (middle - nominal[:3, 3])
    other = stereo.right_from_left() @ np.append(point, 1.0)
    pixels = np.stack([stereo.left.project(point), stereo.right.project(other[:3])])
    return np.rint(pixels - (np.array(data.STORED) - 1) / 2).astype(np.int64)


class _Maker:
    """Bends fingers and puts balls at random, so that every share of a ball is hidden as often."""

    def __init__(self, rng: np.random.Generator, scene: SceneSettings) -> None:
        self._rng = rng
        self._side = scene.side
        self._visibility = Visibility(scene)

    def make(self, near: Posed) -> Posed:
        """Return a state whose joints are partly those of another one."""
        wanted = self._rng.uniform(0.0, 1.1)
        guesses = [self._guess(near) for _ in range(_GUESSES)]
        q, balls = (np.stack(arrays) for arrays in zip(*guesses, strict=True))
        seen = self._visibility.fractions(q, balls).min(axis=1)
        best = int(np.argmin(np.abs(seen - wanted)))
        chosen = balls[best]
        chosen[self._rng.random(2) < _SHARE_AWAY] = AWAY_M
        turns = self._rng.normal(size=(2, 4))
        return Posed(q[best], chosen, turns / np.linalg.norm(turns, axis=-1, keepdims=True))

    def _guess(self, near: Posed) -> tuple[Array, Array]:
        rng, lower, upper = self._rng, HAND24.lower, HAND24.upper
        free = lower + rng.beta(0.8, 1.3, len(lower)) * (upper - lower)
        q = near.q + rng.uniform() * (rng.random(len(lower)) < 0.6) * (free - near.q)
        q[:2] = near.q[:2] + rng.normal(0.0, _WRIST_RAD, 2)
        q = np.clip(q, lower, upper)
        position, rotation = palm_chain(self._side).poses(q[:2])
        while True:
            in_palm = rng.uniform(_PLACES_M[0], _PLACES_M[1], (2, 3))
            # Somewhat nearer than they can be: the network must not count on that.
            if np.linalg.norm(in_palm[0] - in_palm[1]) > _LEAST_APART_M:
                return q, position[0] + in_palm @ rotation[0].T


def _met(rng: np.random.Generator, seed: int) -> Iterator[Posed]:
    """Yield states of episodes, those of one batch mixed."""
    first = _FIRST_SEED + 10_000 * seed
    for batch in count():
        seeds = range(first + _BATCH * batch, first + _BATCH * (batch + 1))
        episodes = roll_out(seeds, _STEPS, noises=_NOISES, goal=_GOALS[batch % len(_GOALS)])
        states = []
        for episode in episodes:
            rows = zip(episode.q, episode.ball_position, episode.ball_quaternion, strict=True)
            states += [Posed(*row) for row in rows][::_EVERY]
        for index in rng.permutation(len(states)):
            yield states[index]
