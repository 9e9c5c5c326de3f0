# SPDX-License-Identifier: Apache-2.0
"""Motions of the hand's joints, singly or together, to targets that move no faster than allowed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from twinloop.robots.hand24 import HAND24
from twinloop.teleop.settings import HAND_CHOSEN, JOINT, HandSettings

Array = NDArray[np.float64]

_FAR = 2.0  # leads


class HandJog:
    """Targets of the 24 joints, from how fast a pilot wants to move what.

    Args:
        settings: speeds and synergies.

    Attributes:
        chosen: number of the joint that `hand/chosen` moves.
    """

    def __init__(self, settings: HandSettings) -> None:
        self._settings = settings
        self._directions = settings.directions()
        for index, name in enumerate(HAND24.joint_names):
            self._directions[JOINT + name] = np.eye(len(HAND24.joint_names))[index]
        self._target: Array | None = None
        self._velocity = np.zeros(len(HAND24.joint_names))
        self.chosen = 0

    @property
    def chosen_joint(self) -> str:
        return HAND24.joint_names[self.chosen]

    def choose(self, by: int) -> None:
        """Choose the joint `by` further on, round and round."""
        self.chosen = (self.chosen + by) % len(HAND24.joint_names)

    def rest(self) -> None:
        """Forget the target: the next one starts from what is applied then, at rest."""
        self._target = None
        self._velocity[:] = 0.0

    def step(self, motions: Mapping[str, float], applied: Array, dt: float) -> Array:
        """Return the targets [24], rad, after another `dt` seconds.

        Args:
            motions: by name, -1 to 1 each; those that are not the hand's do nothing.
            applied: the goal that is in force [24], rad. A target stays within its lead of it,
                and begins anew there where it is far away: after a reset of the scene.
            dt: s.
        """
        settings = self._settings
        lead = settings.lead_rad
        if self._target is None or np.abs(self._target - applied).max() > _FAR * lead:
            self._target = applied.copy()
            self._velocity[:] = 0.0
        wanted = np.zeros_like(applied)
        for name, value in motions.items():
            if name == HAND_CHOSEN:
                name = JOINT + self.chosen_joint
            if name in self._directions:
                wanted += value * self._directions[name]
        wanted = settings.joint_speed * np.clip(wanted, -1.0, 1.0)
        change = settings.acceleration * dt
        self._velocity += np.clip(wanted - self._velocity, -change, change)
        moved = self._target + self._velocity * dt
        near = np.clip(moved, applied - lead, applied + lead)
        self._target = np.clip(near, HAND24.lower, HAND24.upper)
        self._velocity[self._target != moved] = 0.0
        return self._target.copy()
