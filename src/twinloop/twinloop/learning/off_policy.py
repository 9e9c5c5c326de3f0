# SPDX-License-Identifier: Apache-2.0
"""Policies by soft actor-critic from any episodes of a task; rewards come from observations.

The gradient steps are those of Stable-Baselines3's SAC. What is drawn for them is ours: episodes,
and so bags, whatever recorded them. Nothing here is pickled or unpickled.
"""

from __future__ import annotations

import io
import os
import pickle
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twinloop.learning.action_units import units_of
from twinloop.learning.discor import BellmanErrors
from twinloop.learning.episode import Episode
from twinloop.learning.hindsight import relabelled, slices_of
from twinloop.learning.policy_input import PolicyInput
from twinloop.learning.stable_baselines import actor_of, weights_of
from twinloop.learning.step_replay import StepReplay
from twinloop.models.actor import Actor
from twinloop.tasks.base import Task

# What torch and the library raise where a file is not what they wrote.
_DAMAGED = (
    AttributeError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
_STEPS_A_CALL = 10  # gradient steps between two looks at the clock


class LibraryMissing(ImportError):
    """Stable-Baselines3 is not installed."""


@dataclass(frozen=True)
class OffPolicySettings:
    """How a policy is learned.

    Attributes:
        hidden: widths of the layers of actor and critics.
        batch: transitions of a gradient step.
        discount: of rewards, a control step.
        steps: rewards summed before the critic takes over.
        updates: gradient steps for each new transition, at most: the update-to-data ratio.
        first: transitions of random motion, and before which nothing is learned.
        about_pose: that motion is about the task's pose and correlated, as a model's first data
            are; else actions are drawn evenly from all, which may touch nothing.
        target_entropy: aimed at, per element of the action.
        temperature: weight of the entropy at first; where rewards are small, one of 1 drowns them
            for thousands of gradient steps.
        relabelled: share of transitions that are learned for a goal that the episode reached later
            (Andrychowicz et al., arXiv 1707.01495); the task's observation names both.
        smoothing: of what explores, see `NetworkActor`.
        normalises: observations are scaled by the first ones.
        discor: transitions whose bootstrap is likely right are learned from more often; see
            `learning/discor.py`.
    """

    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch: int = 256
    discount: float = 0.99
    steps: int = 1
    updates: float = 1.0
    first: int = 100
    about_pose: bool = False
    target_entropy: float = -1.0
    temperature: float = 1.0
    relabelled: float = 0.0
    smoothing: float = 0.0
    normalises: bool = False
    discor: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "steps", "first"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.relabelled <= 1.0 or not 0.0 < self.discount < 1.0 or self.updates <= 0:
            raise ValueError(
                f"relabelled is {self.relabelled}, discount {self.discount} and updates "
                f"{self.updates}, expected 0 to 1, between 0 and 1, and more than 0"
            )
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}, expected more than 0")


def require_observed_goal(task: Task) -> None:
    """Refuse a task whose episodes differ in a goal that no observation tells, such as places.

    Raises:
        ValueError: it is such a task.
    """
    if not task.observes_goal:
        raise ValueError(
            f"the goal {task.goal} of task {task.name} is not in its observation, which a policy "
            "needs"
        )


class Drawn(NamedTuple):
    """A minibatch, by the names under which Stable-Baselines3's SAC reads it; all [B, ...]."""

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    dones: Tensor  # [B, 1], 1 where nothing follows
    rewards: Tensor  # [B, 1]
    discounts: Tensor  # [B, 1], of what follows


class OffPolicyLearner:
    """An actor, its critics, and every transition that they have been given.

    Args:
        task: gives rewards, sizes and limits; what varies of its goal has to stand in the
            observation.
        seed: of first weights, minibatches and noise.

    Raises:
        LibraryMissing: Stable-Baselines3 is not installed.
        ValueError: the task's goal is not in its observation, or is not named for relabelling.
    """

    def __init__(self, task: Task, settings: OffPolicySettings, seed: int = 0) -> None:
        require_observed_goal(task)
        self.task, self.settings = task, settings
        self._replay = StepReplay(units_of(task))
        self._input = PolicyInput(task)
        self._goal_slices = slices_of(task) if settings.relabelled else None
        self._generator = torch.Generator().manual_seed(seed)
        self._is_scaled = not settings.normalises
        self.updates = 0
        self._critics_alone = 0
        with self._random_numbers():
            torch.manual_seed(seed)
            self._sac = _new_sac(task, settings, seed)
            self._sac.replay_buffer = self
            self._errors = BellmanErrors(self._sac, settings) if settings.discor else None
            self._random_state = torch.get_rng_state()

    @property
    def transitions(self) -> int:
        """Number of transitions taken so far."""
        return self._replay.transitions

    @property
    def owed(self) -> int:
        """Gradient steps that the update-to-data ratio still allows."""
        if self.transitions < self.settings.first:
            return 0
        return int(self.transitions * self.settings.updates) - self.updates

    def add(self, episodes: Sequence[Episode]) -> None:
        """Take episodes; the first ones also set the scales, where observations are scaled."""
        for episode in episodes:
            self._replay.add(episode)
        if not self._is_scaled and self.transitions >= self.settings.first:
            self._input.set_scales(self._replay.observations()[0])
            self._is_scaled = True

    def start_from(self, actor: Actor) -> None:
        """Go on from a policy that something else has made, such as one that runs already.

        The first gradient steps, as many as `first`, are the critics' alone: as long as they know
        nothing of this policy, what they say would undo it.

        Raises:
            ValueError: the policy is not one that this learner could have made.
        """
        ours = self.actor()
        if actor.config != ours.config or not all(
            torch.allclose(getattr(actor, name), getattr(ours, name))
            for name in ("action_mean", "action_scale")
        ):
            raise ValueError(
                f"the policy is {actor.config!r} with actions in units of its own, expected "
                f"{ours.config!r} with those of task {self.task.name}"
            )
        policy = self._sac.policy
        policy.load_state_dict(policy.state_dict() | weights_of(actor))
        self._input.mean = actor.observation_mean.clone()
        self._input.scale = actor.observation_scale.clone()
        self._is_scaled = True
        self._critics_alone = self.updates + self.settings.first

    @property
    def trains_critics_alone(self) -> bool:
        """Whether the policy is still the one that `start_from` was given."""
        return self.updates < self._critics_alone

    def improve(self, most: int | None = None, time_limit_s: float = float("inf")) -> int:
        """Take the gradient steps that are owed, at most so many; returns how many were taken."""
        count = self.owed if most is None else min(most, self.owed)
        began, done = time.monotonic(), 0
        with self._random_numbers():
            while done < count and time.monotonic() - began < time_limit_s:
                steps = 1 if self.trains_critics_alone else min(_STEPS_A_CALL, count - done)
                self._take(steps)
                done += steps
                self.updates += steps
        return done

    def _take(self, steps: int) -> None:
        actor = self._sac.actor
        kept = None
        if self.trains_critics_alone:
            kept = {name: tensor.clone() for name, tensor in actor.state_dict().items()}
        self._sac.train(gradient_steps=steps, batch_size=self.settings.batch)
        if kept is not None:
            actor.load_state_dict(kept)

    @property
    def is_finite(self) -> bool:
        """Whether all weights are: those of the policy and of its critics."""
        state = self._sac.policy.state_dict()
        return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())

    def sample(self, batch_size: int, env: object = None) -> Drawn:
        """Return a minibatch; Stable-Baselines3 asks for it at each gradient step."""
        if self._errors is None:
            return self._draw(batch_size)
        drawn = self._draw(self._errors.POOL * batch_size)
        return Drawn(*self._errors.choose(drawn, batch_size, self._generator))

    def values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return the lower of the critics' values: [B, O] and actions in units of ±1, as of
        `ActionUnits` [B, A] -> [B]."""
        with torch.no_grad():
            seen, done = self._input.of(observations), self._input.actions(observations, actions)
            return torch.cat(self._sac.critic(seen, done), dim=1).amin(1)

    def actor(self) -> Actor:
        """Return a frozen copy of the policy."""
        return self._input.shown_to(actor_of(self._sac.policy.state_dict()))

    def figures(self) -> dict[str, float]:
        """Return the last losses and the temperature."""
        return {
            name.removeprefix("train/"): float(value)
            for name, value in self._sac.logger.name_to_value.items()
        }

    def save(self, path: Path) -> None:
        """Write the state of training, without the episodes, as a file that appears whole."""
        state = {
            "parameters": self._sac.get_parameters(),
            "log_temperature": self._sac.log_ent_coef.detach(),
            "random_state": self._random_state,
            "generator": self._generator.get_state(),
            "mean": self._input.mean,
            "scale": self._input.scale,
            "is_scaled": self._is_scaled,
            "updates": self.updates,
            "critics_alone": self._critics_alone,
        }
        if self._errors is not None:
            state["errors"] = self._errors.state()
        fresh = path.with_suffix(".part")
        with fresh.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote; episodes are added as to a new learner.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, or of a learner with other settings; what was learned here
                is not to be used any more.
        """
        data = io.BytesIO(path.read_bytes())
        try:
            self._restore(torch.load(data, weights_only=True))
        except _DAMAGED as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path}: is no state of this learner: {reason}") from error

    def _restore(self, state: dict[str, Any]) -> None:
        self._sac.set_parameters(state["parameters"])
        with torch.no_grad():
            self._sac.log_ent_coef.copy_(state["log_temperature"])
        if self._errors is not None:
            self._errors.load(state["errors"])
        self._random_state = state["random_state"]
        self._generator.set_state(state["generator"])
        self._input.mean, self._input.scale = state["mean"], state["scale"]
        self._is_scaled, self.updates = state["is_scaled"], state["updates"]
        self._critics_alone = state.get("critics_alone", 0)  # older files know nothing of it

    def _draw(self, count: int) -> Drawn:
        s = self.settings
        runs = self._replay.draw(count, s.steps, self._generator, self._goal_slices is not None)
        seen, actions = runs.observations, runs.actions
        if self._goal_slices is not None:
            assert runs.later is not None
            seen = relabelled(seen, runs.later, self._goal_slices, s.relabelled, self._generator)
        seen, actions = self._input.mirrored(seen, actions, self._generator)
        earned = self.task.reward(seen[:, :-1], actions, seen[:, 1:])  # [B, K]
        step = torch.arange(s.steps)
        reward = (earned * (step < runs.steps[:, None]) * s.discount**step).sum(1)
        ends = seen[torch.arange(count), runs.steps]
        return Drawn(
            self._input.of(seen[:, 0]),
            self._input.actions(seen[:, 0], actions[:, 0]),
            self._input.of(ends),
            runs.failed[:, None],
            reward[:, None],
            (s.discount**runs.steps)[:, None].float(),
        )

    @contextmanager
    def _random_numbers(self) -> Iterator[None]:
        """Let the library, which draws from torch's global generator, go on with our own state."""
        theirs = torch.get_rng_state()
        if hasattr(self, "_random_state"):
            torch.set_rng_state(self._random_state)
        try:
            yield
        finally:
            self._random_state = torch.get_rng_state()
            torch.set_rng_state(theirs)


def _new_sac(task: Task, settings: OffPolicySettings, seed: int) -> Any:
    """Return the library's SAC without an environment and without a buffer of its own."""
    try:
        from gymnasium.spaces import Box
        from stable_baselines3 import SAC
        from stable_baselines3.common.logger import Logger
    except ImportError as error:
        raise LibraryMissing(
            "soft actor-critic needs the package stable-baselines3, which is not installed; "
            ".venv/bin/pip install stable-baselines3 adds it"
        ) from error
    sac: Any = SAC(
        "MlpPolicy",
        None,  # type: ignore[arg-type]
        learning_rate=settings.learning_rate,
        gamma=settings.discount,
        ent_coef=f"auto_{settings.temperature}",
        target_entropy=settings.target_entropy * task.action_size,
        policy_kwargs={"net_arch": list(settings.hidden)},
        seed=seed,
        device="cpu",
        _init_setup_model=False,
    )
    sac.observation_space = Box(-np.inf, np.inf, (task.observation_size,), np.float32)
    sac.action_space = Box(-1.0, 1.0, (task.action_size,), np.float32)
    sac.n_envs = 1
    sac.replay_buffer = object()  # keeps it from allocating one; ours comes in its place
    sac._setup_model()
    sac.set_logger(Logger(None, []))
    return sac
