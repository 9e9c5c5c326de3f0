# SPDX-License-Identifier: Apache-2.0
"""Frames of real rollouts in scenes that no tracker was trained on, with what is true in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from twinloop.robots.kinematics import palm_chain
from twinloop_sim.cameras import Family, draw_appearance
from twinloop_sim.cameras.eyes import BALL0, Eyes
from twinloop_sim.cameras.stage import STEREO
from twinloop_sim.tracker_rollouts import Exposures
from twinloop_sim.tracker_scenes import rig_error

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One pair of images and the truth about it.

    Attributes:
        stamp_s: of the exposure, s.
        left, right: RGB [H, W, 3].
        q: joint positions [24], rad.
        position, velocity: of the balls in the palm frame, as trackers tell them [2, 3], m, m/s.
        fraction: part of each ball's disc that is seen by the eye that sees less [2], 0 to 1.
    """

    stamp_s: float
    left: Image
    right: Image
    q: Array
    position: Array
    velocity: Array
    fraction: Array


def frames(
    eyes: Eyes, episode: Exposures, seed: int, family: Family, noise: float
) -> Iterator[Frame]:
    """Draw an episode, dressed by its seed and seen by a rig off its place.

    Args:
        noise: standard deviation of the pixels' noise, 0 to 255.
    """
    rng = np.random.default_rng([seed, 13])
    eyes.dress(draw_appearance(seed, family))
    eyes.shift(rig_error(rng))
    chain = palm_chain(eyes.scene.side)
    for index, stamp in enumerate(episode.time):
        q, balls = episode.q[index], episode.ball_position[index]
        eyes.pose(q, balls, episode.ball_quaternion[index])
        left, right = (
            np.clip(np.rint(image + rng.normal(0.0, noise, image.shape)), 0, 255).astype(np.uint8)
            for image in eyes.pair()
        )
        position, rotation = (pose[0] for pose in chain.poses(q[:2]))
        yield Frame(
            float(stamp),
            left,
            right,
            q,
            (balls - position) @ rotation,
            episode.ball_velocity[index] @ rotation,
            visible_fraction(eyes, balls),
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
