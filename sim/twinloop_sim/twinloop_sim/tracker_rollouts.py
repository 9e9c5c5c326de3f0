# SPDX-License-Identifier: Apache-2.0
"""Episodes as cameras see them: the true states at every exposure, drops included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from twinloop.learning.model_file import load_model
from twinloop.learning.rollout import Actor, PlannedActor, ProposalActor
from twinloop.paths import share

from twinloop import planners, tasks
from twinloop_sim.cell import Cell
from twinloop_sim.tracker_standin import FRAME_TICKS, PERIOD_TICKS
from twinloop_sim.twin import State

Array = NDArray[np.float64]
FRAMES_PER_STEP = len(FRAME_TICKS)
_AFTER_DROP_STEPS = 3


@dataclass(frozen=True)
class Exposures:
    """True states of one episode at the exposures of a 30 Hz camera; frame world.

    Attributes:
        time: of the exposures [T], s.
        q: joint positions [T, 24], rad.
        ball_position: [T, 2, 3], m.
        ball_quaternion: [T, 2, 4].
        ball_velocity: [T, 2, 3], m/s.
        dropped: whether the episode ended with a drop.
    """

    time: Array
    q: Array
    ball_position: Array
    ball_quaternion: Array
    ball_velocity: Array
    dropped: bool


class WatchedCell(Cell):
    """A cell that keeps its true states at the ticks at which cameras expose."""

    exposed: list[tuple[float, State]]

    def _follow(self, before: State):  # type: ignore[no-untyped-def]
        if self.tick_count % PERIOD_TICKS in FRAME_TICKS:
            self.exposed.append((self.tick_count * self.tick_s, before))
        return super()._follow(before)


def roll_out(
    seeds: Sequence[int],
    steps: int,
    source: str = "proposal",
    noises: Sequence[float] = (0.0,),
    goal: str = "",
    hands: int = 16,
    engine: str = "mujoco",
) -> list[Exposures]:
    """Let the shipped model turn the balls; returns one episode a seed, in their order.

    Args:
        seeds: of starts and noise.
        steps: control steps of an episode; one that drops a ball goes on for a moment and ends.
        source: `model`: planning as the planner node does; `proposal`: its policy alone, quicker.
        noises: disturbances as of `PlannedActor`.
        goal: of the task.
        hands: how many run side by side.
        engine: of the twin.

    Raises:
        ValueError: an unknown source, or a model without a policy.
    """
    episodes: list[Exposures] = []
    for first in range(0, len(seeds), hands):
        batch = list(seeds[first : first + hands])
        episodes += _batch(batch, steps, source, noises, goal, engine)
    return episodes


def _batch(
    seeds: list[int], steps: int, source: str, noises: Sequence[float], goal: str, engine: str
) -> list[Exposures]:
    task = tasks.make("baoding", goal)
    cell = WatchedCell(len(seeds), engine)
    cell.exposed = []
    observations = cell.reset(seeds)
    actor = _actor(source, task, len(seeds), noises)
    for hand, seed in enumerate(seeds):
        actor.start(hand, seed)
        actor.aim(hand, task.begin(torch.from_numpy(observations[hand]), seed))
    left = np.full(len(seeds), steps)
    length = np.full(len(seeds), steps)
    dropped = np.zeros(len(seeds), dtype=bool)
    for step in range(1, steps + 1):
        observations = cell.step(actor.act(observations)[0])
        failed = task.failed(torch.from_numpy(observations)).numpy() & ~dropped
        dropped |= failed
        left[failed] = np.minimum(_AFTER_DROP_STEPS, steps - step)
        length[failed] = step + left[failed]
        if (length <= step).all():
            break
    cell.close()
    return [
        _episode(cell.exposed[: FRAMES_PER_STEP * length[hand]], hand, bool(dropped[hand]))
        for hand in range(len(seeds))
    ]


def _actor(source: str, task: tasks.Task, hands: int, noises: Sequence[float]) -> Actor:
    folder = share("models", "baoding")
    model = load_model(folder / (folder / "current").read_text().strip(), task.contract).model
    if source == "model":
        return PlannedActor(planners.make(planners.DEFAULT, model, task, 0), task, hands, noises)
    if source == "proposal" and model.proposal is not None:
        return ProposalActor(model.proposal, task, hands, noises)
    raise ValueError(f"source is {source!r}, expected 'model', or 'proposal' where a policy ships")


def _episode(exposed: list[tuple[float, State]], hand: int, dropped: bool) -> Exposures:
    def column(name: str) -> Array:
        return np.stack([getattr(state, name)[hand] for _, state in exposed])

    return Exposures(
        np.array([time for time, _ in exposed]),
        column("q"),
        column("ball_position"),
        column("ball_quaternion"),
        column("ball_velocity"),
        dropped,
    )
