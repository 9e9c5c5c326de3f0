# SPDX-License-Identifier: Apache-2.0
"""Copilots of the lander: deep Q-learning of what an act is worth, and the pilot's say in it.

After "Shared Autonomy via Deep Reinforcement Learning" (arXiv 1802.01744, algorithm 1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.envs.box2d.lunar_lander import FPS
from lander import ALOFT_AT_PAD, CRASHED, LANDED, STATE, Flight, SimulatedPilot
from safetensors.torch import load_file, save_file
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor
from worthy_acts import nearest_worthy

# What each pilot is left: as published, but for laggy's .7. At .4 fewest flights crash and no fewer
# land, on flights other than those that are reported. In training he is left more, to see more.
TOLERANCE = {"laggy": 0.4, "noisy": 0.4, "no-op": 0.0, "sensor": 0.0}
_IN_TRAINING = {**TOLERANCE, "laggy": 0.5}
SEEDS = (0, 1, 2)
# That a copilot is trained for; a pilot who lags takes longest to learn.
STEPS_FULL = {"laggy": 500_000, "noisy": 200_000, "no-op": 200_000, "sensor": 200_000}
FLIGHTS = 100
_FLIGHT_SEEDS = 50_000_000
_ENVIRONMENTS = 8  # flown side by side
_LAST = 100  # episodes whose mean return tells how good a copilot is
_JUDGED_EVERY = 10_000  # steps


class Copilot(DQNPolicy):
    """A Q-network that acts by `nearest_worthy`, in training as after it.

    Attributes:
        tolerance: see above.
    """

    tolerance = 0.0

    def _predict(self, obs: Any, deterministic: bool = True) -> Tensor:
        value: Tensor = self.q_net(obs)
        return nearest_worthy(value, obs[:, STATE:].argmax(1), self.tolerance)


class _KeepBest(BaseCallback):
    """Keeps the weights whose last episodes earned most, as published."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, Tensor] = {}
        self._best = -np.inf

    def _on_step(self) -> bool:
        returns = [one["r"] for one in self.model.ep_info_buffer or []]
        if self.num_timesteps % _JUDGED_EVERY == 0 and len(returns) >= _LAST:
            mean = float(np.mean(returns))
            if mean > self._best:
                self._best = mean
                kept = self.model.policy.q_net.state_dict()
                self.weights = {name: value.clone() for name, value in kept.items()}
        return True


def train(pilot: str, seed: int, steps: int, path: Path) -> None:
    """Train a copilot with a pilot and write its weights; settings as published."""
    torch.set_num_threads(1)
    tolerance = _IN_TRAINING[pilot]
    env = DummyVecEnv([lambda: Monitor(Flight((pilot,)))] * _ENVIRONMENTS)
    env.seed(1_000_000 * (seed + 1))
    # A pilot that is left a say explores for both.
    explores = 1.0 if tolerance == 0 else 0.0
    model = DQN(
        Copilot,
        env,
        learning_rate=1e-3,
        buffer_size=50_000,
        learning_starts=1000,
        batch_size=64,
        gamma=0.99,
        train_freq=1,
        gradient_steps=_ENVIRONMENTS,
        target_update_interval=1500,
        exploration_initial_eps=explores,
        exploration_final_eps=0.02 * explores,
        policy_kwargs={"net_arch": [64, 64], "optimizer_kwargs": {"fused": True}},
        seed=seed,
        device="cpu",
    )
    model.policy.tolerance = tolerance
    keep = _KeepBest()
    model.learn(steps, callback=keep)
    save_file(keep.weights or model.policy.q_net.state_dict(), path)


def load(path: Path, tolerance: float) -> Copilot:
    """Return a copilot that was trained."""
    flight = Flight(("no-op",))
    copilot = Copilot(
        flight.observation_space, flight.action_space, lambda _: 1e-3, net_arch=[64, 64]
    )
    copilot.q_net.load_state_dict(load_file(path))
    copilot.tolerance = tolerance
    return copilot


def fly(pilot: str, copilot: Copilot | None, seeds: range) -> dict[str, Any]:
    """Return how one flight for each seed ended, and how often the pilot's act was done."""
    torch.set_num_threads(1)
    flights = [Flight((pilot,)) for _ in seeds]
    observed = [flight.reset(seed=seed)[0] for flight, seed in zip(flights, seeds, strict=True)]
    running = list(range(len(flights)))
    ends: Counter[str] = Counter()
    steps = kept = step = 0
    landed_s = []
    while running:
        acts = wanted = [flights[index].wanted for index in running]
        if copilot is not None:
            acts = copilot.predict(np.stack([observed[index] for index in running]))[0].tolist()
        step += 1
        steps += len(running)
        kept += sum(act == wish for act, wish in zip(acts, wanted, strict=True))
        for index, act in zip(tuple(running), acts, strict=True):
            observed[index], _, is_over, is_cut, info = flights[index].step(act)
            if is_over or is_cut:
                running.remove(index)
                ends[info["end"]] += 1
                if info["end"] == LANDED:
                    landed_s.append(step / FPS)
    return {
        "pilot": pilot,
        "episodes": len(seeds),
        "success": ends[LANDED] / len(seeds),
        "crashed": ends[CRASHED] / len(seeds),
        # The paper counts a lander that hovers between the flags at the time limit.
        "success_as_published": (ends[LANDED] + ends[ALOFT_AT_PAD]) / len(seeds),
        "ends": dict(ends),
        "time_to_goal_s": float(np.median(landed_s)) if landed_s else None,
        "pilot_share": kept / steps,
    }


def jobs(folder: Path, full: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the protocol's parts by name: a copilot for each pilot and seed, and flights alone and
    assisted that no training has seen."""
    seeds = SEEDS if full else SEEDS[:1]
    pilots = SimulatedPilot.KINDS if full else ("laggy", "noisy")
    flights = FLIGHTS if full else 5

    def job(pilot: str, seed: int) -> dict[str, Any]:
        steps = STEPS_FULL[pilot] if full else 4000
        path = folder / f"lander-{pilot}-{seed}.safetensors"
        if not path.exists():
            train(pilot, seed, steps, path)
        first = _FLIGHT_SEEDS + seed * FLIGHTS
        flown = range(first, first + flights)
        copilot = load(path, TOLERANCE[pilot])
        return {
            "pilot": pilot,
            "seed": seed,
            "steps": steps,
            "tolerance": TOLERANCE[pilot],
            "alone": fly(pilot, None, flown),
            "assisted": fly(pilot, copilot, flown),
        }

    return {
        f"lander-{pilot}-{seed}": partial(job, pilot, seed) for pilot in pilots for seed in seeds
    }


def summary(done: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each pilot: means over the seeds, alone and assisted."""
    rows = []
    for pilot in SimulatedPilot.KINDS:
        mine = [one for one in done if one["pilot"] == pilot]
        if not mine:
            continue
        row: dict[str, Any] = {"pilot": pilot, "seeds": len(mine)}
        row["episodes"] = sum(one["assisted"]["episodes"] for one in mine)
        for who in ("alone", "assisted"):
            for name in ("success", "crashed", "success_as_published"):
                row[f"{name}_{who}"] = float(np.mean([one[who][name] for one in mine]))
        row["time_to_goal_s"] = _median([one["assisted"]["time_to_goal_s"] for one in mine])
        row["pilot_share"] = float(np.mean([one["assisted"]["pilot_share"] for one in mine]))
        rows.append(row)
    return rows


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
