# SPDX-License-Identifier: Apache-2.0
"""Frames of real rollouts in scenes that no tracker was trained on, with what is true in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from twinloop.robots.hand24 import HAND24
from twinloop.robots.kinematics import palm_chain
from twinloop_sim.cameras import BALL0, Eyes, Family, Sensor, draw_appearance
from twinloop_sim.cameras.stage import STEREO
from twinloop_sim.tracker_rollouts import Exposures
from twinloop_sim.tracker_scenes import AWAY_M, rig_error

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

BLIND_FRAMES = 9
_FRAME_S = 1.0 / 30.0
# Stronger than any noise in training, which goes up to 0.018 of full scale each, and in the
# frames that settings were chosen on, which have half of this.
_NOISE = (0.020, 0.028)
_EXPOSURE, _BLUR_PX = (0.75, 1.3), (0.3, 0.7)
_WAVE_HZ = (0.3, 1.2)


@dataclass(frozen=True)
class Frame:
    """One pair of images and the truth about it.

    Attributes:
        stamp_s: of the exposure, s.
        left, right: RGB [H, W, 3].
        q: joint positions [24], rad.
        position, velocity: of the balls in the palm frame, as trackers tell them [2, 3], m, m/s.
        fraction: part of each ball's disc that is seen by the eye that sees less [2], 0 to 1.
        is_blind: nothing is to be seen of the balls, by intent.
    """

    stamp_s: float
    left: Image
    right: Image
    q: Array
    position: Array
    velocity: Array
    fraction: Array
    is_blind: bool = False


def frames(
    eyes: Eyes, episode: Exposures, seed: int, family: Family, noise: float = 1.0
) -> Iterator[Frame]:
    """Draw an episode, dressed by its seed and seen by a rig off its place; blind at its end.

    In the last `BLIND_FRAMES` the balls are gone or, every other seed, the lenses are covered.

    Args:
        noise: factor on that of the sensors.
    """
    rng = np.random.default_rng([seed, 13])
    eyes.dress(draw_appearance(seed, family))
    eyes.shift(rig_error(rng))
    level = noise * rng.uniform(*_NOISE, 2)
    sensor = Sensor(level[0], level[1], rng.uniform(*_EXPOSURE), rng.uniform(*_BLUR_PX))
    chain = palm_chain(eyes.scene.side)
    count = len(episode.time)
    for index in range(count + BLIND_FRAMES):
        row, blind = min(index, count - 1), index >= count
        q, balls = episode.q[row], episode.ball_position[row]
        eyes.pose(q, [AWAY_M, AWAY_M] if blind else balls, episode.ball_quaternion[row])
        pair = eyes.pair()
        if blind and seed % 2:
            pair = (np.zeros_like(pair[0]), np.zeros_like(pair[1]))
        left, right = (sensor.expose(image, rng) for image in pair)
        position, rotation = (pose[0] for pose in chain.poses(q[:2]))
        yield Frame(
            float(episode.time[row] + (index - row) * _FRAME_S),
            left,
            right,
            q,
            (balls - position) @ rotation,
            episode.ball_velocity[row] @ rotation,
            np.zeros(2) if blind else visible_fraction(eyes, balls),
            blind,
        )


def waved(episode: Exposures, seed: int) -> Exposures:
    """Return an episode whose fingers bend and stretch in front of the balls.

    The balls move as they did; only what the cameras see and the encoders tell is changed.
    """
    rng = np.random.default_rng([seed, 17])
    bends = [i for i, name in enumerate(HAND24.joint_names) if name[5:] in ("J3", "J2", "J1")]
    bends = [i for i in bends if "TH" not in HAND24.joint_names[i]]
    phase, pace = rng.uniform(0.0, 2.0 * np.pi, len(bends)), rng.uniform(*_WAVE_HZ, len(bends))
    wave = 0.5 - 0.5 * np.cos(2.0 * np.pi * pace * episode.time[:, None] + phase)
    q = episode.q.copy()
    q[:, bends] += rng.uniform(0.3, 1.2, len(bends)) * wave * (rng.random(len(bends)) < 0.7)
    q = np.clip(q, HAND24.lower, HAND24.upper)
    return Exposures(
        episode.time,
        q,
        episode.ball_position,
        episode.ball_quaternion,
        episode.ball_velocity,
        episode.dropped,
    )


def visible_fraction(eyes: Eyes, balls: Array) -> Array:
    """Return the part of each ball's disc [2] that is seen by the eye which sees less of it."""
    result = np.ones(2)
    for name in STEREO:
        labels = eyes.labels(name)
        pose = eyes.camera_pose(name)
        seen = (balls - pose[:3, 3]) @ pose[:3, :3]
        for ball in range(2):
            area = _disc_area(seen[ball], eyes.scene.balls.radius_m, eyes.cameras[name].k[0, 0])
            share = np.count_nonzero(labels == BALL0 + ball) / area if area else 0.0
            result[ball] = min(result[ball], share)
    return result


def _disc_area(centre: Array, radius: float, focal: float) -> float:
    """Return the pixels that a sphere's outline, an ellipse, encloses; 0 where it is behind."""
    distance2, depth2 = float(centre @ centre), float(centre[2] ** 2)
    if centre[2] <= 2.0 * radius:
        return 0.0
    # The cone that touches the sphere, cut by the image plane.
    minor = radius / np.sqrt(depth2 - radius**2)
    major = radius * np.sqrt(distance2 - radius**2) / (depth2 - radius**2)
    return float(np.pi * focal**2 * minor * major)
