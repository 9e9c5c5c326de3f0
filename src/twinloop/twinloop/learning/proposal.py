# SPDX-License-Identifier: Apache-2.0
"""Trains the proposal policy of the Baoding hand in a fleet of twins, for one goal or several.

Every hand has a goal of its own, and gets another one now and then amid its episode. The policy
sees what the cell's sensors give, with the tracker's noise and delay. Rewards and critic use the
twin's true state, which no robot has: this is for twins only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinloop.learning.baoding_goals import BaodingGoals
from twinloop.learning.episode import Episode
from twinloop.learning.goals import Goals
from twinloop.learning.policy import new_proposal
from twinloop.learning.ppo import ActorCritic, Experience, PPOConfig, update
from twinloop.models.proposal import Proposal
from twinloop.robots.hand24 import HAND24
from twinloop.tasks.baoding import Baoding

if TYPE_CHECKING:
    from twinloop_sim.cell import Cell

Array = NDArray[np.floating]


@dataclass(frozen=True)
class ProposalTraining:
    """Settings of the training run."""

    hands: int = 48
    transitions: int = 250_000
    episode_steps: int = 120
    turn_weight: float = 0.25  # per degree
    turn_limit_deg: float = 4.0  # a step; quicker turns earn no more
    goal_steps: int = 60  # after which a hand gets another goal, where there are several
    place_weight: float = 3.0  # a step with both balls in their places
    place_scale_m: float = 0.015  # distance at which a place earns half of that
    # Nearer to their places, balls are left alone; the tracker errs by 4 mm.
    rest_m: tuple[float, float] = (0.004, 0.012)
    effort_weight: float = 0.02
    excess_weight: float = 0.05  # on changes beyond the largest one
    edge_weight: float = 10.0  # per m nearer to the edge of the cup than the margin
    edge_margin_m: float = 0.03
    drop_cost: float = 8.0
    # Episodes of each goal that are imitated first.
    demonstrations: dict[str, int] = field(
        default_factory=lambda: {"ccw": 36, "cw": 24, "move": 24, "hold": 4}
    )
    bad_end: int = 12  # steps before a drop that are not
    imitation_epochs: int = 30
    imitation_noise: float = 0.05  # of a feature's spread
    # Disturbances of the demonstrations in turn, and changes to the planner that makes them.
    demonstration_noises: tuple[float, ...] = (0.0, 0.3, 0.6, 0.0, 0.3, 0.6, 1.0, 0.15)
    oracle: dict[str, Any] = field(default_factory=lambda: {"samples": 60, "horizon": 6})
    ppo: PPOConfig = field(default_factory=PPOConfig)


def train_proposal(
    task: Baoding,
    goals: Sequence[str],
    seed: int,
    config: ProposalTraining,
    demonstrations: Sequence[Episode],
    progress: Callable[[str], None],
    checkpoint: Path | None = None,
    threads: int = 2,
) -> Proposal:
    """Return a proposal that first imitates demonstrations and then improves on them.

    Without any, training from this start finds a quick turn that ends in a drop, and stays there.
    Deterministic for a seed, a number of hands and the demonstrations.

    Hands take the goals in turn; one that is named twice is trained for twice as much.

    With `checkpoint` the state is kept there every few updates, and a call with the same settings
    carries on from it; starts and noise of the episodes then begin anew.
    """
    from twinloop_sim.cell import Cell

    cell = Cell(config.hands, threads=threads)
    try:
        training = _Training(cell, task, goals, seed, config, progress, checkpoint)
        return training.run(demonstrations)
    finally:
        cell.close()


class _Training:
    def __init__(
        self,
        cell: Cell,
        task: Baoding,
        goals: Sequence[str],
        seed: int,
        config: ProposalTraining,
        progress: Callable[[str], None],
        checkpoint: Path | None,
    ) -> None:
        self.cell, self.task, self.config, self.progress = cell, task, config, progress
        self._goals = tuple(goal or task.goal for goal in goals)
        self._checkpoint = checkpoint
        self._settings = repr((seed, self._goals, sorted(asdict(config).items())))
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        change = cell.joint_speed * task.contract.period_s
        proposal = new_proposal(task, change, squashed=False, rest=config.rest_m)
        self.policy = ActorCritic(proposal, 12, config.ppo)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), config.ppo.learning_rate)
        self.updates = 0
        self._next_seed = (seed + 1) * 10_000_000
        self.aims = BaodingGoals(task)
        self._rng = np.random.default_rng([seed, 7])
        self._goal_of = np.zeros(cell.hands, dtype=np.int64)  # index into the goals
        self._goal = torch.zeros(cell.hands, self.aims.size)
        self._steps = np.zeros(cell.hands, dtype=np.int64)  # of the episode
        self._aimed = np.zeros(cell.hands, dtype=np.int64)  # of its present goal
        self._earned = np.zeros(cell.hands)  # by that
        self._ended: list[tuple[str, float, bool]] = []  # goal, gain a step, whether dropped

    def run(self, demonstrations: Sequence[Episode]) -> Proposal:
        if not self._load():
            error = imitate(
                self.policy.proposal, self.aims, demonstrations, self.config, self.generator
            )
            self.progress(f"proposal imitates {len(demonstrations)} demonstrations to {error:.2f}")
        c, began = self.config, time.monotonic()
        per_update = c.hands * c.ppo.rollout
        total = -(-c.transitions // per_update)
        first = self.updates
        self._begin(np.arange(c.hands))
        while self.updates < total:
            update(
                self.policy,
                self.optimizer,
                self._collect(),
                self.generator,
                critic_only=self.updates < c.ppo.critic_only,
            )
            self.updates += 1
            self.policy.limit_deviation(self.updates / total)
            if self.updates % 10 == 0 or self.updates == total:
                self._save()
                spent = time.monotonic() - began
                left = spent / (self.updates - first) * (total - self.updates)
                self.progress(
                    f"proposal {self.updates * per_update:7d}/{total * per_update} transitions  "
                    f"{self._recent()}  {left:4.0f} s left"
                )
        return self.policy.proposal.requires_grad_(False)

    def _begin(self, hands: NDArray[np.int64]) -> None:
        seeds = np.arange(self._next_seed, self._next_seed + len(hands))
        self._next_seed += len(hands)
        self.observation = self.cell.reset(seeds, hands=hands)
        self._steps[hands] = 0
        for hand, seed in zip(hands, seeds, strict=True):
            self._aim(int(hand), int(seed) % len(self._goals))
        self._balls, self._privileged = self._truth()
        self._angle = self._angles(self._balls)

    def _aim(self, hand: int, goal: int) -> None:
        """Give a hand one of the goals from now on."""
        aim = Baoding(self._goals[goal], self.task.config)
        seen = torch.from_numpy(self.observation[hand])
        begun = aim.begin(seen, int(self._rng.integers(2**31)))
        self._goal[hand] = torch.tensor(self.aims.vector(begun))
        self._goal_of[hand] = goal
        self._aimed[hand], self._earned[hand] = 0, 0.0

    def _recent(self) -> str:
        """Return how the last episodes went, by goal: turn [deg] or nearness in a step, drops."""
        self._ended = self._ended[-400:]
        lines = []
        for goal in dict.fromkeys(self._goals):
            mine = [(gain, dropped) for name, gain, dropped in self._ended if name == goal]
            if mine:
                gains, dropped = np.array(mine).T
                lines.append(f"{goal} {np.median(gains):.2f} dropped {dropped.mean():.0%}")
        return "  ".join(lines)

    def _truth(self) -> tuple[Array, Tensor]:
        """Return true ball positions [N, 2, 3], and what the critic sees of them [N, 12]."""
        truth = self.cell.truth()
        x, z = self.task.config.center_m
        centred = (truth.ball_position - np.array([x, -0.03, z])) * 30.0
        rows = len(centred)
        seen = np.concatenate(
            [centred.reshape(rows, 6), 5.0 * truth.ball_velocity.reshape(rows, 6)], axis=1
        )
        return truth.ball_position, torch.as_tensor(seen, dtype=torch.float32)

    @staticmethod
    def _angles(balls: Array) -> Array:
        line = balls[:, 0] - balls[:, 1]
        return np.arctan2(line[:, 2], line[:, 0])

    def _collect(self) -> Experience:
        c, policy = self.config, self.policy
        rows: dict[str, list[Tensor]] = {name: [] for name in Experience.__dataclass_fields__}
        del rows["last_value"]
        for _ in range(c.ppo.rollout):
            observation = torch.from_numpy(self.observation)
            with torch.no_grad():
                features = self._features(observation)
                action, density = policy.sample(features, self.generator)
                value = policy.value(features, self._privileged)
            rows["features"].append(features)
            rows["privileged"].append(self._privileged)
            rows["action"].append(action)
            rows["log_density"].append(density)
            rows["value"].append(value)
            reward, ended = self._step(observation, action)
            rows["reward"].append(reward)
            rows["ended"].append(ended)
        last = self._value()
        return Experience(**{k: torch.stack(v) for k, v in rows.items()}, last_value=last)

    def _features(self, observation: Tensor) -> Tensor:
        targets = self.aims.targets(observation, self._goal)
        return self.policy.proposal.features(observation, targets)

    def _value(self) -> Tensor:
        with torch.no_grad():
            features = self._features(torch.from_numpy(self.observation))
            return self.policy.value(features, self._privileged)

    def _step(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Move all hands; return rewards and where episodes ended, each [N]."""
        c = self.config
        proposal = self.policy.proposal.config
        command = observation[:, slice(*proposal.command)].double().numpy()
        wish = action.double().numpy()
        aim = self.aims.targets(observation, self._goal)
        share = self.policy.proposal.urgency(observation, aim).double().numpy()
        target = command + proposal.max_change * share * np.clip(wish, -1.0, 1.0)
        self.observation = self.cell.step(np.clip(target, HAND24.lower, HAND24.upper))
        self._balls, self._privileged = self._truth()
        angle = self._angles(self._balls)
        turn = np.degrees((angle - self._angle + np.pi) % (2 * np.pi) - np.pi)
        self._angle = angle
        self._steps += 1
        self._aimed += 1

        clearance = self.task.clearance(torch.as_tensor(self._balls)).amin(-1).numpy()
        # Episodes end by what the tracker sees, and a goal amid one begins with that.
        seen_outside = self.task.failed(torch.from_numpy(self.observation)).numpy()
        dropped = (clearance < 0) | seen_outside | ~self.cell.is_observable
        gain = self._gain(turn)
        reward = (
            gain
            - c.effort_weight * np.square(wish).mean(-1)
            - c.excess_weight * np.square(np.clip(np.abs(wish) - 1.0, 0.0, None)).mean(-1)
            - c.edge_weight * np.clip(c.edge_margin_m - clearance, 0.0, c.edge_margin_m)
            - c.drop_cost * dropped
        )
        is_over = self._steps >= c.episode_steps
        is_new_goal = (self._aimed >= c.goal_steps) & (len(set(self._goals)) > 1)
        cut = ~dropped & (is_over | is_new_goal)
        if cut.any():
            # The episode was cut, not over: what would have followed counts by its value.
            reward = reward + c.ppo.discount * self._value().double().numpy() * cut
        ended = dropped | cut
        for hand in np.flatnonzero(ended):
            goal = self._goals[self._goal_of[hand]]
            self._ended.append((goal, self._earned[hand] / self._aimed[hand], bool(dropped[hand])))
        for hand in np.flatnonzero(cut & ~is_over):
            self._aim(int(hand), int(self._rng.integers(len(self._goals))))
        over = np.flatnonzero(dropped | is_over)
        if len(over):
            self._begin(over)
        return (
            torch.as_tensor(reward, dtype=torch.float32),
            torch.as_tensor(ended, dtype=torch.float32),
        )

    def _gain(self, turn: Array) -> Array:
        """Return what the balls' motion earns, from their turn [deg] in this step [N].

        Places never cost anything: a policy that loses by being far from them drops the balls.
        """
        c = self.config
        sign, places = self._goal[:, 0].numpy(), self._goal[:, 1:].reshape(-1, 2, 2).numpy()
        away = np.linalg.norm(self._balls[..., ::2] - places, axis=-1)
        near = (c.place_scale_m / (c.place_scale_m + away)).mean(-1)
        self._earned += np.where(sign == 0.0, near, sign * turn)
        turned = c.turn_weight * np.clip(sign * turn, -c.turn_limit_deg, c.turn_limit_deg)
        return np.where(sign == 0.0, c.place_weight * near, turned)

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        state: dict[str, Any] = {
            "settings": self._settings,
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "next_seed": self._next_seed,
            "generator": self.generator.get_state(),
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._checkpoint.with_suffix(".part")
        torch.save(state, fresh)
        fresh.replace(self._checkpoint)

    def _load(self) -> bool:
        """Carry on from the checkpoint, if there is one."""
        if self._checkpoint is None or not self._checkpoint.exists():
            return False
        state = torch.load(self._checkpoint, weights_only=True)
        if state["settings"] != self._settings:
            raise ValueError(
                f"{self._checkpoint} is of a run with other settings; remove it to start anew"
            )
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.updates, self._next_seed = state["updates"], state["next_seed"]
        return True


def imitate(
    proposal: Proposal,
    goals: Goals,
    demonstrations: Sequence[Episode],
    config: ProposalTraining,
    generator: torch.Generator,
) -> float:
    """Fit a proposal to what demonstrations do; returns the last mean squared error, in units of
    the largest change.

    The end of a demonstration that lost a ball is left out.

    Raises:
        ValueError: nothing is left to imitate.
    """
    kept = []
    for episode in demonstrations:
        is_whole = episode.meta.get("stop_reason", "completed") == "completed"
        count = len(episode) - (0 if is_whole else config.bad_end)
        if count > 0:
            own = np.tile(np.asarray(goals.of(episode), dtype=np.float32), (count, 1))
            kept.append((episode.observations[:count], episode.actions[:count], own))
    if not kept:
        raise ValueError(f"none of {len(demonstrations)} demonstrations can be imitated")
    observations, actions, aim = (
        torch.from_numpy(np.concatenate(column)) for column in zip(*kept, strict=True)
    )
    targets = goals.targets(observations, aim)
    proposal.normalise(observations, targets)
    features = proposal.features(observations, targets)
    command = observations[:, slice(*proposal.config.command)]
    wish = (actions - command) / proposal.config.max_change
    optimizer = torch.optim.Adam(proposal.parameters(), 1e-3)
    error = torch.zeros(())
    for _ in range(config.imitation_epochs):
        for rows in torch.randperm(len(features), generator=generator).split(256):
            noise = torch.randn(features[rows].shape, generator=generator)
            guess = proposal.change(features[rows] + config.imitation_noise * noise)
            error = (guess - wish[rows]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            error.backward()
            optimizer.step()
    return float(error.detach())
