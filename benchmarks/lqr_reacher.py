# SPDX-License-Identifier: Apache-2.0
"""LQR-FLM on gymnasium's Reacher-v5, from its observations.

Each seed has a goal of its own, which stays for the seed, as a policy of this kind is one for a
start and a goal; where the arm starts varies as the environment has it.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from twinloop.learning.policy_search import PolicySearch, SearchSettings, Transitions
from twinloop.planners.linear_quadratic.policy import LinearPolicy

Array = NDArray[np.float64]
STEPS = 50
_ROLLOUTS = 10
_TRIALS = 20
# Cosines and sines, joint velocities, and from the target to the fingertip; the target stays.
_STATE = [0, 1, 2, 3, 6, 7, 8, 9]
_FIRST_DEVIATION = 0.1  # of the torque
_SOFT_M = 0.01


def seed_figures(seed: int, steps: int) -> dict[str, Any]:
    """Learn for so many steps and measure the mean policy on fresh episodes."""
    began = time.process_time()
    arm = Arm(seed)
    settings = SearchSettings()
    policy = LinearPolicy(
        np.zeros((STEPS, 2, len(_STATE))),
        np.zeros((STEPS, 2)),
        np.tile(_FIRST_DEVIATION**2 * np.eye(2), (STEPS, 1, 1)),
    )
    search = PolicySearch(cost, policy, settings)
    transitions = Transitions(settings, seed)
    curve = []
    for iteration in range(1, steps // (_ROLLOUTS * STEPS) + 1):
        states, actions = arm.rollouts(search.policy, _ROLLOUTS, explores=True)
        transitions.add(states, actions)
        found = search.learn(states, actions, transitions.prior())
        curve.append(
            {
                "steps": iteration * _ROLLOUTS * STEPS,
                "cost": found.cost,
                "final_m": float(np.median(distances(states))),
                "deviation": found.deviation,
            }
        )
    states, _ = arm.rollouts(search.policy, _TRIALS, explores=False)
    final = distances(states)
    return {
        "seed": seed,
        "final_m_median": float(np.median(final)),
        "final_m_largest": float(final.max()),
        "goal_from_start_m": float(np.linalg.norm(states[0, 0, -2:])),
        "cpu_s": time.process_time() - began,
        "curve": curve,
    }


def cost(state: Tensor, action: Tensor, step: Tensor) -> Tensor:
    """Return the distance of the fingertip, smooth at the goal, and a little for torque."""
    square = state[6:8].square().sum()
    effort = 0.01 * action.square().sum() + 1e-4 * state[4:6].square().sum()
    return torch.sqrt(square + _SOFT_M**2) + square + effort


def distances(states: Array) -> Array:
    """Return the fingertip's distance at the end of rollouts [N, T+1, X], m."""
    return np.asarray(np.linalg.norm(states[:, -1, 6:8], axis=1))


class Arm:
    """The environment with one goal."""

    def __init__(self, seed: int) -> None:
        self._env: Any = gymnasium.make("Reacher-v5").unwrapped
        self._env.reset(seed=seed)
        self._goal = self._env.goal.copy()
        self._rng = np.random.default_rng(seed)

    def rollouts(self, policy: LinearPolicy, count: int, explores: bool) -> tuple[Array, Array]:
        """Return states [N, T+1, X] and the torques that were applied [N, T, U]."""
        states = np.empty((count, STEPS + 1, len(_STATE)))
        actions = np.empty((count, STEPS, 2))
        for n in range(count):
            states[n, 0] = self._start()
            for t in range(STEPS):
                noise = self._rng.normal(size=2) if explores else None
                state = states[n, t]
                wish = policy.mean(t, state) if noise is None else policy.sample(t, state, noise)
                actions[n, t] = np.clip(wish, -1.0, 1.0)
                states[n, t + 1] = self._env.step(actions[n, t])[0][_STATE]
        return states, actions

    def _start(self) -> Array:
        self._env.reset()
        qpos = self._env.data.qpos.copy()
        qpos[-2:] = self._env.goal = self._goal
        self._env.set_state(qpos, self._env.data.qvel.copy())
        return np.asarray(self._env._get_obs()[_STATE])
