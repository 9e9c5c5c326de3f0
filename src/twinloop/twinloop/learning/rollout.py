# SPDX-License-Identifier: Apache-2.0
"""Episodes in process: N hands of a cell side by side, each started anew when its episode ends.

What acts sees the sensors' observations and nothing else, unless it is an oracle made for
demonstrations. An episode ends after `steps`, at a drop, or where the balls were lost from view for
longer than the contract allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinloop import planners
from twinloop.learning.episode import Episode
from twinloop.models.proposal import Proposal
from twinloop.planners.base import Planner, PlanStats
from twinloop.planners.control import DROPPED, LOST
from twinloop.tasks.base import Task

Array = NDArray[np.floating]
# Random motion: standard deviation of targets about the task's pose, as a share of half the joint
# range.
_RANDOM_SPREAD = 0.35


class Hands(Protocol):
    """What a rollout needs of a cell of `twinloop_sim.cells`."""

    hands: int
    command: NDArray[np.float64]

    def reset(self, seeds: Any, start: Any = ..., hands: Any = None) -> NDArray[np.float32]: ...

    def step(self, action: Any) -> NDArray[np.float32]: ...

    @property
    def is_observable(self) -> NDArray[np.bool_]: ...


class Actor(Protocol):
    """Chooses actions for N hands."""

    def start(self, hand: int, seed: int) -> None:
        """Begin an episode of one hand."""
        ...

    def aim(self, hand: int, task: Task) -> None:
        """Let a hand pursue this task from now on; told once its episode has begun."""
        ...

    def act(self, observations: Array) -> tuple[NDArray[np.float64], list[PlanStats] | None]:
        """Return actions: [N, O] -> [N, A], and what planning them took."""
        ...


@dataclass(frozen=True)
class EpisodeRecord:
    """An episode and what is known about it beside the data that is learned from."""

    episode: Episode
    stop_reason: str  # completed | dropped | balls_lost
    score: float  # the task's measure of it, in its unit
    total_return: float  # minus the summed cost
    plan_ms: list[float] = field(default_factory=list)  # of each step
    disagreement: list[float] = field(default_factory=list)
    succeeded: bool = False

    @property
    def rotation_deg(self) -> float:
        """The score of tasks that turn things: how far."""
        return self.score


class Aims:
    """The targets of N hands whose episodes may differ in what they are after."""

    def __init__(self, task: Task, hands: int) -> None:
        self._tasks = [task] * hands

    def set(self, hand: int, task: Task) -> None:
        """Let a hand pursue this task."""
        self._tasks[hand] = task

    def targets(self, observations: Tensor, horizon: int) -> Tensor:
        """Return what each hand is to aim at: [N, O] -> [N, H, T]."""
        first = self._tasks[0]
        if all(task is first for task in self._tasks):
            return first.targets(observations, horizon)
        return torch.stack(
            [
                task.targets(row, horizon)
                for task, row in zip(self._tasks, observations, strict=True)
            ]
        )


@dataclass
class _Running:
    seed: int
    task: Task
    observations: list[Array]
    actions: list[Array] = field(default_factory=list)
    plan_ms: list[float] = field(default_factory=list)
    disagreement: list[float] = field(default_factory=list)


class PlannedActor:
    """Plans all hands in one batch, with noise on top where data is wanted.

    Args:
        noises: standard deviations of the correlated noise on an action, in units of the largest
            change in a step; an episode takes the one at its seed modulo their number.
        see: what an oracle plans from instead of the sensors' observations [N, O].
    """

    def __init__(
        self,
        planner: Planner,
        task: Task,
        hands: int,
        noises: Sequence[float] = (0.0,),
        see: Callable[[], Array] | None = None,
    ) -> None:
        self.planner = planner
        self._aims = Aims(task, hands)
        self._see = see
        self._noise = CorrelatedNoise(
            hands, task.action_size, [noise * planner.largest_change for noise in noises]
        )
        planner.reset_batch([0] * hands)

    def start(self, hand: int, seed: int) -> None:
        self.planner.reset_row(hand, seed)
        self._noise.start(hand, seed)

    def aim(self, hand: int, task: Task) -> None:
        self._aims.set(hand, task)

    def act(self, observations: Array) -> tuple[NDArray[np.float64], list[PlanStats] | None]:
        if self._see is not None:
            observations = self._see()
        seen = torch.as_tensor(observations, dtype=torch.float32)
        targets = self._aims.targets(seen, self.planner.horizon)
        actions, stats = self.planner.plan_batch(seen, targets)
        return actions.double().numpy() + self._noise.draw(), stats


class ProposalActor:
    """Does what a proposal policy proposes, with noise on top; arguments as of PlannedActor."""

    def __init__(
        self, proposal: Proposal, task: Task, hands: int, noises: Sequence[float] = (0.0,)
    ) -> None:
        self.proposal = proposal
        self._aims = Aims(task, hands)
        config = proposal.config
        self._noise = CorrelatedNoise(
            hands, config.action_size, [noise * config.max_change for noise in noises]
        )

    def start(self, hand: int, seed: int) -> None:
        self._noise.start(hand, seed)

    def aim(self, hand: int, task: Task) -> None:
        self._aims.set(hand, task)

    def act(self, observations: Array) -> tuple[NDArray[np.float64], list[PlanStats] | None]:
        seen = torch.as_tensor(observations, dtype=torch.float32)
        with torch.no_grad():
            actions = self.proposal(seen, self._aims.targets(seen, 1)[:, 0])
        return actions.double().numpy() + self._noise.draw(), None


class RandomActor:
    """Moves about a pose with correlated noise: the first data of a model that learns from nothing.

    Args:
        center: pose [A], rad.
        spread: standard deviation of the targets about it [A], rad.
        speed: largest change in a step, rad.
    """

    def __init__(self, center: Array, spread: Array, command: slice, speed: float, hands: int):
        self._center, self._spread, self._command, self._speed = center, spread, command, speed
        self._noise = CorrelatedNoise(hands, len(center), [1.0])

    def start(self, hand: int, seed: int) -> None:
        self._noise.start(hand, seed)

    def aim(self, hand: int, task: Task) -> None:
        """Nothing is aimed at."""

    def act(self, observations: Array) -> tuple[NDArray[np.float64], list[PlanStats] | None]:
        previous = observations[:, self._command].astype(np.float64)
        goal = self._center + self._spread * self._noise.draw()
        return previous + np.clip(goal - previous, -self._speed, self._speed), None


def random_motion(task: Task, hands: int) -> RandomActor:
    """Return random motion about a task's pose.

    Raises:
        ValueError: the command in force is not in the task's observation.
    """
    if task.command.stop <= task.command.start:
        raise ValueError(
            f"task {task.name} does not observe its command, which random motion about a pose needs"
        )
    space = planners.action_space(task)
    spread = _RANDOM_SPREAD * 0.5 * (space.upper - space.lower).double().numpy()
    center = np.asarray(task.center)
    return RandomActor(center, spread, task.command, space.largest_change, hands)


class CorrelatedNoise:
    """First-order noise for each hand and joint, with a memory of a few steps."""

    _MEMORY = 0.7

    def __init__(self, hands: int, size: int, deviations: Sequence[float]) -> None:
        self._deviations = deviations
        self._deviation = np.zeros((hands, 1))
        self._rng = [np.random.default_rng(0) for _ in range(hands)]
        self._value = np.zeros((hands, size))

    def start(self, hand: int, seed: int) -> None:
        self._rng[hand] = np.random.default_rng([seed, 1])
        self._deviation[hand] = self._deviations[seed % len(self._deviations)]
        self._value[hand] = 0.0

    def draw(self) -> NDArray[np.float64]:
        size = self._value.shape[1]
        fresh = np.stack([rng.normal(size=size) for rng in self._rng])
        self._value = self._MEMORY * self._value + np.sqrt(1 - self._MEMORY**2) * fresh
        return self._deviation * self._value


def roll_out(
    cell: Hands,
    actor: Actor,
    task: Task,
    seeds: Sequence[int],
    steps: int,
    meta: dict[str, Any] | None = None,
    sink: Callable[[EpisodeRecord], None] | None = None,
    start: Callable[[int], Any] | None = None,
) -> list[EpisodeRecord]:
    """Run one episode a seed and return them in the order of `seeds`.

    `sink` is called with each episode as it ends. For the rest see `episodes_as_they_end`.

    Raises:
        ValueError: no seeds, repeated seeds, or fewer than one step.
    """
    done: dict[int, EpisodeRecord] = {}
    for record in episodes_as_they_end(cell, actor, task, seeds, steps, meta, start):
        done[int(record.episode.meta["seed"])] = record
        if sink is not None:
            sink(record)
    return [done[seed] for seed in seeds]


def episodes_as_they_end(
    cell: Hands,
    actor: Actor,
    task: Task,
    seeds: Sequence[int],
    steps: int,
    meta: dict[str, Any] | None = None,
    start: Callable[[int], Any] | None = None,
) -> Iterator[EpisodeRecord]:
    """Run one episode a seed; those that end in one step come in the order of their hands.

    A seed sets an episode's start, sensor noise and planner noise. Hands that have no episode left
    go on moving unrecorded until the last one ends. `start` gives a seed's start state (default:
    the cell's own); `meta` goes into every episode's, with its id, seed, stop reason and score.

    Raises:
        ValueError: no seeds, repeated seeds, or fewer than one step.
    """
    if not seeds or len(set(seeds)) != len(seeds) or steps < 1:
        raise ValueError(f"a rollout needs distinct seeds and steps >= 1, got {seeds}, {steps}")
    waiting = iter(seeds)
    running: dict[int, _Running] = {}
    observations = np.zeros((cell.hands, task.observation_size), dtype=np.float32)
    idle = list(range(cell.hands))

    while True:
        for hand in idle:
            seed = next(waiting, None)
            if seed is None:
                continue
            begin = {} if start is None else {"start": start(seed)}
            observations = cell.reset([seed], hands=[hand], **begin)
            actor.start(hand, seed)
            begun = task.begin(torch.from_numpy(observations[hand]), seed)
            if begun is not task:
                actor.aim(hand, begun)
            running[hand] = _Running(seed, begun, [observations[hand].copy()])
        idle = []
        if not running:
            break
        actions, stats = actor.act(observations)
        observations = cell.step(actions)
        observable = cell.is_observable
        failed = task.failed(torch.from_numpy(observations)).numpy()
        for hand, run in list(running.items()):
            run.observations.append(observations[hand].copy())
            run.actions.append(cell.command[hand].astype(np.float32))
            if stats is not None:
                run.plan_ms.append(stats[hand].plan_ms)
                run.disagreement.append(stats[hand].disagreement)
            reason = _end(bool(failed[hand]), bool(observable[hand]), len(run.actions) >= steps)
            if reason:
                del running[hand]
                idle.append(hand)
                yield _record(run, reason, meta or {})


def episode_id(source: str, seed: int) -> str:
    """Return the name of an episode, unique among those of a run."""
    return f"{source}-{seed:06d}"


def _end(failed: bool, is_observable: bool, is_over: bool) -> str:
    if failed:
        return DROPPED
    if not is_observable:
        return LOST
    return "completed" if is_over else ""


def _record(run: _Running, reason: str, meta: dict[str, Any]) -> EpisodeRecord:
    task = run.task
    observations = np.array(run.observations)
    actions = np.array(run.actions)
    seen = torch.from_numpy(observations)
    targets = task.targets(seen[:-1], 1)[:, 0]
    cost = task.cost(seen[1:], torch.from_numpy(actions), targets)
    score = task.score(observations)
    episode = Episode(
        observations,
        actions,
        {
            "episode_id": episode_id(str(meta.get("source", "rollout")), run.seed),
            "task": task.name,
            "goal": task.goal,
            "places": list(task.goal_values),
            "robot": task.contract.robot,
            "contract_hash": task.contract.hash(),
            "seed": run.seed,
            "dropped": reason == "dropped",
            "stop_reason": reason,
            "score": score,
            **({"rotation_deg": score} if task.progress_unit == "deg" else {}),
            **meta,
        },
    )
    return EpisodeRecord(
        episode,
        reason,
        score,
        -float(cost.sum()),
        run.plan_ms,
        run.disagreement,
        succeeded=reason == "completed" and task.succeeded(episode),
    )
