# SPDX-License-Identifier: Apache-2.0
"""The tree of seven states on which Kumar, Gupta and Levine (arXiv 2003.07305, section 4) show that
fresh data need not correct Q-learning's errors, rebuilt: a root, two states below it, four leaves.

Both actions lead down; at a leaf they end the episode, and one of them alone earns 1. Values are
linear in features that pairs of different levels share, and the true values are among what they
can express. Each iteration fits the backup on transitions of an epsilon-greedy policy, which sees
the root four times as often as a leaf.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from twinloop.learning.discor import weights

_STATES, _ACTIONS, _LEAVES = 7, 2, 3
_DISCOUNT, _EPSILON = 0.95, 0.1
_FEATURES = 9

Array = NDArray[np.float64]


class SevenStateTree:
    """Projected Q-iteration with and without corrected weights.

    Args:
        seed: of the shared features.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.reward = np.zeros((_STATES, _ACTIONS))
        self.reward[_STATES - 1, 1] = 1.0
        self.truth = np.zeros((_STATES, _ACTIONS))
        for _ in range(_LEAVES):
            self.truth = self.backup(self.truth)
        shared = rng.normal(size=(_STATES * _ACTIONS, _FEATURES - 1))
        self._features = np.column_stack([self.truth.ravel(), shared])

    def backup(self, values: Array) -> Array:
        """Return reward plus discounted best value below: [S, A] -> [S, A]."""
        return self.reward + _DISCOUNT * self._below(values.max(1))

    def learn(self, iterations: int, corrected: bool) -> list[float]:
        """Return the largest error of the values after each iteration."""
        values = np.zeros((_STATES, _ACTIONS))
        error = np.ones((_STATES, _ACTIONS))
        largest = []
        for _ in range(iterations):
            share = self._visits(values)
            aim = self.backup(values)
            if corrected:
                # What follows the last action is nothing, and so is its error.
                following = self._below(error[np.arange(_STATES), values.argmax(1)])
                found = torch.from_numpy(following.ravel())
                temperature = float(error.mean())
                share = share * weights(found, _DISCOUNT, temperature / 2).numpy()
                error = np.abs(values - aim) + _DISCOUNT * following
            root = np.sqrt(share)[:, None]
            coefficients = np.linalg.lstsq(
                root * self._features, root[:, 0] * aim.ravel(), rcond=None
            )[0]
            values = (self._features @ coefficients).reshape(_STATES, _ACTIONS)
            largest.append(float(np.abs(values - self.truth).max()))
        return largest

    def _visits(self, values: Array) -> Array:
        """Return how often an epsilon-greedy policy meets each state and action [S * A]."""
        chosen = np.full((_STATES, _ACTIONS), _EPSILON / _ACTIONS)
        chosen[np.arange(_STATES), values.argmax(1)] += 1.0 - _EPSILON
        met = np.zeros(_STATES)
        met[0] = 1.0
        for state in range(_LEAVES):
            for action in range(_ACTIONS):
                met[2 * state + 1 + action] += met[state] * chosen[state, action]
        return np.asarray((met[:, None] * chosen).ravel())

    @staticmethod
    def _below(of_state: Array) -> Array:
        """Return what each state and action leads to, 0 at the leaves: [S] -> [S, A]."""
        found = np.zeros((_STATES, _ACTIONS))
        for state in range(_LEAVES):
            found[state] = of_state[2 * state + 1 : 2 * state + 3]
        return found
