# SPDX-License-Identifier: Apache-2.0
"""Bags of the Baoding contract in which balls turn steadily and one joint moves.

A small network learns that from two episodes in a second or two.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.rollouts import write_rollout
from twinloop.learning.episode import Episode
from twinloop.learning.replay import windows
from twinloop.models.ensemble import Ensemble, EnsembleConfig

from twinloop import contract as contracts

CONTRACT = contracts.load("baoding")


def episode(name: str, seed: int, steps: int = 60) -> Episode:
    """Return an episode; the balls go round by 0.12 rad a step, whatever the fingers do."""
    random = np.random.default_rng(seed)
    period = CONTRACT.period_s
    lower, upper = np.array(CONTRACT.action.lower), np.array(CONTRACT.action.upper)
    command = ((lower + upper) / 2).astype(np.float32)
    joints = command.copy()
    angle = random.uniform(0, 2 * math.pi)
    observations, actions = [], []
    speed = np.zeros_like(joints)
    for _ in range(steps + 1):
        cos, sin = math.cos(angle), math.sin(angle)
        line, centre = 0.03 * np.array([cos, 0.1 * sin, sin]), np.array([0.006, -0.03, 0.08])
        swing = 0.036 * np.array([-sin, 0.1 * cos, cos])
        observations.append(
            CONTRACT.pack(
                {
                    "joint_position": joints,
                    "joint_velocity": speed,
                    "command": command,
                    "ball_position": np.concatenate([centre + line, centre - line]),
                    "ball_velocity": np.concatenate([swing, -swing]),
                }
            )
        )
        command = command.copy()
        command[0] = np.clip(command[0] + random.uniform(-0.1, 0.1), lower[0], upper[0])
        actions.append(command)
        speed = 0.5 * (command - joints) / period
        joints = joints + speed * period
        angle += 0.12
    return Episode(np.stack(observations), np.stack(actions[:-1]), {"episode_id": name})


def untrained_model(seed: int = 0) -> Ensemble:
    """Return a small model with the scales of the data, which predicts almost no change."""
    where = CONTRACT.slices["command"]
    config = EnsembleConfig(
        observation_size=CONTRACT.observation_size,
        action_size=CONTRACT.action_size,
        members=2,
        hidden=(48,),
        known=(where.start, where.stop),
    )
    model = Ensemble(config, seed)
    model.normalise(*windows([episode("scales", 1000)], 1).transitions())
    return model


def write(folder: Path, name: str, seed: int, steps: int = 60) -> Path:
    """Write one such episode as a bag into a folder."""
    about = EpisodeMetadata(episode_id=name, task="baoding", goal="ccw", seed=seed)
    return write_rollout(folder / name, episode(name, seed, steps), CONTRACT, about)
