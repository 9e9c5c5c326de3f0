# SPDX-License-Identifier: Apache-2.0
"""The figures of one episode, from its bag: what the sensors saw, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop import tasks
from twinloop.bags.episodes import PLAN_STATS, TASK_GOAL, RecordedStep, recorded_steps
from twinloop.bags.errors import BagError
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.read import complete_bags, metadata, read_messages, unfinished_bags
from twinloop.contract import Contract, stamp_of
from twinloop.learning.episode import Episode
from twinloop.planners.control import COMPLETE, DROPPED, LOST
from twinloop.tasks.base import Task

# Reasons for the end of an episode that kept both balls: of nodes, and of rollouts in process.
ENDED_WELL = (COMPLETE, "completed")


def _no_values() -> NDArray[np.float64]:
    return np.zeros(0)


@dataclass(frozen=True)
class EpisodeFigures:
    """What is known of one episode; T control steps were commanded."""

    id: str
    bags: tuple[Path, ...]
    """More than one where the recorder was restarted amid the episode."""
    stop_reason: str
    index: int = 0
    task: str = ""
    goal: str = ""
    """The last one, where it was changed amid the episode; figures count from that change."""
    succeeded: bool = False
    """Whether the goal was reached, and both balls kept."""
    unit: str = "deg"
    """Of the progress, which is a distance from places for goals that are places."""
    seed: int = 0
    models: tuple[str, ...] = ()
    """Versions it was planned with, in order."""
    steps: int = 0
    dropped: bool = False
    rotation_deg: float = 0.0
    """Progress at the end, or at the drop; of turns, in the direction of the goal."""
    total_return: float = 0.0
    """Minus the summed cost."""
    transitions: int = 0
    """Pairs of observations that a learner can use."""
    missed_steps: int = 0
    """Control steps that were due and never planned."""
    times_s: NDArray[np.float64] = field(default_factory=_no_values, repr=False)
    """Of the observations, since the first one [T+1], up to a drop."""
    rotations_deg: NDArray[np.float64] = field(default_factory=_no_values, repr=False)
    """Progress since the first observation [T+1], up to a drop."""
    plan_ms: NDArray[np.float64] = field(default_factory=_no_values, repr=False)
    """Of each step [T]; empty where it was not measured."""
    lateness_ms: NDArray[np.float64] = field(default_factory=_no_values, repr=False)
    """Of each step [T]; empty where it was not measured, as in runs without a pace."""


def progress(one: EpisodeFigures) -> str:
    """Return an episode's progress with its unit, as people write it."""
    return f"{one.rotation_deg:.0f}°" if one.unit == "deg" else f"{one.rotation_deg:.3g} {one.unit}"


def read_run(
    record_dir: Path | str,
    contract: Contract,
    progress: Callable[[int, int], None] | None = None,
) -> list[EpisodeFigures]:
    """Return the figures of every episode with a bag in a folder, in the order they ran.

    A bag that cannot be read is an episode too: with its fault as the reason for its end.

    Args:
        record_dir: folder of bags.
        contract: of the task.
        progress: called with the number of episodes read, and of all.
    """
    parts: dict[str, list[Path]] = {}
    faults = []
    for path in complete_bags(record_dir):
        try:
            about = _episode_of(path)
        except BagError as error:
            faults.append(_unreadable(path, error))
        else:
            parts.setdefault(about.episode_id, []).append(path)
    for path in unfinished_bags(record_dir):
        faults.append(_unreadable(path, BagError(path, "its recorder did not finish it")))
    figures = []
    for paths in parts.values():
        try:
            figures.append(figures_of(paths, contract))
        except BagError as error:
            figures.append(_unreadable(paths[0], error))
        if progress is not None:
            progress(len(figures), len(parts))
    return sorted([*figures, *faults], key=lambda one: (one.index, one.bags[0].name))


def figures_of(paths: list[Path], contract: Contract) -> EpisodeFigures:
    """Return the figures of one episode from its bag, or from its bags in order.

    Raises:
        BagError: a bag is damaged or of another contract.
    """
    about = _episode_of(paths[0])
    last = _episode_of(paths[-1])
    steps = [step for path in paths for step in recorded_steps(path, contract)]
    stats = _messages(paths, about, PLAN_STATS)
    planned = [message for message in stats if not message.stop_reason]
    common: dict[str, Any] = {
        "id": about.episode_id,
        "bags": tuple(paths),
        "index": about.index,
        "task": about.task,
        "goal": about.goal,
        "seed": about.seed,
        "stop_reason": last.stop_reason or "its end was not recorded",
        "models": tuple(dict.fromkeys(one.model_version for one in planned if one.model_version))
        or ((about.model_version,) if about.model_version else ()),
        "dropped": bool(last.dropped) or last.stop_reason in (DROPPED, LOST),
    }
    if not steps:
        return EpisodeFigures(**common)
    times_ns, observations = _observed(steps, stats, contract)
    actions = np.stack([step.action for step in steps])
    task, since_ns = _pursued(paths, about)
    failed = task.failed(torch.from_numpy(observations)).numpy()
    common["dropped"] |= bool(failed.any())
    end = int(np.argmax(failed)) + 1 if failed.any() else len(observations)
    first = min(int(np.searchsorted(times_ns, since_ns)), end - 1)
    task = task.begin(torch.from_numpy(observations[first]), about.seed)
    progress = task.tracker()
    rotations = np.zeros(end)
    rotations[first:] = [progress.update(one) for one in observations[first:end]]
    common |= {"goal": task.goal, "unit": task.progress_unit}
    pursued = Episode(observations[first:], actions[first:], {}) if first < len(actions) else None
    ended_well = common["stop_reason"] in ENDED_WELL and not common["dropped"]
    # Bags of runs without a pace, or without a planner, hold zeros instead of times.
    plan_ms = np.array([one.plan_ms for one in planned], dtype=np.float64)
    lateness_ms = np.array([one.lateness_ms for one in planned], dtype=np.float64)
    return EpisodeFigures(
        **common,
        steps=len(steps),
        succeeded=ended_well and pursued is not None and task.succeeded(pursued),
        rotation_deg=float(rotations[-1]),
        total_return=_return(task, observations, actions),
        transitions=_transitions(steps, contract),
        missed_steps=_missed(steps, contract),
        times_s=(times_ns[:end] - times_ns[0]) / 1e9,
        rotations_deg=rotations,
        plan_ms=plan_ms if plan_ms.any() else _no_values(),
        lateness_ms=lateness_ms if lateness_ms.any() else _no_values(),
    )


def _episode_of(path: Path) -> EpisodeMetadata:
    about = metadata(path).episode
    if about is None:
        raise BagError(path, "does not say which episode it is, expected a bag of an episode")
    return about


def _unreadable(path: Path, error: BagError) -> EpisodeFigures:
    return EpisodeFigures(id=path.name, bags=(path,), stop_reason=f"unreadable: {error.problem}")


def _pursued(paths: list[Path], about: EpisodeMetadata) -> tuple[Task, int]:
    """Return what an episode was after in the end, and since when [ns]."""
    said = _messages(paths, about, TASK_GOAL)
    goal, places, since_ns = about.goal, list(about.places), 0
    if said:
        goal, places = said[-1].goal, list(said[-1].places)
        since_ns = stamp_of(said[-1]) if len(said) > 1 else 0
    try:
        return tasks.make(about.task, goal, places), since_ns
    except ValueError as error:
        raise BagError(paths[-1], f"its goal: {error}") from error


def _messages(paths: list[Path], about: EpisodeMetadata, topic: str) -> list[Any]:
    """Return the messages of a topic that are about the episode, in the order of their stamps."""
    return sorted((one for path in paths for one in _of_path(path, about, topic)), key=stamp_of)


def _of_path(path: Path, about: EpisodeMetadata, topic: str) -> list[Any]:
    messages = []
    for message in read_messages(path, [about.topic(topic)]):
        try:
            decoded = message.decode()
            stamp_of(decoded)
        except ValueError as error:
            raise BagError(path, f"{message.topic}: {error}") from error
        if decoded.episode_id == about.episode_id:
            messages.append(decoded)
    return messages


def _observed(
    steps: list[RecordedStep], stats: list[Any], contract: Contract
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the stamps [ns] and observations [T+1, O] of the steps and of what followed the last.

    The planner's own vector stands in where a sample was not recorded; the last observation is
    repeated where nothing is known of what followed.
    """
    times = [step.stamp_ns for step in steps]
    observations: list[NDArray[np.float32]] = [
        step.live if step.observation is None else step.observation for step in steps
    ]
    last = steps[-1]
    closing = next((one for one in stats if one.stop_reason and len(one.observation)), None)
    times.append(last.stamp_ns + round(contract.period_s * 1e9))
    if closing is not None and stamp_of(closing) > last.stamp_ns:
        times[-1] = stamp_of(closing)
        observations.append(np.asarray(closing.observation, dtype=np.float32))
    else:
        observations.append(observations[-1] if last.after is None else last.after)
    return np.array(times, dtype=np.int64), np.stack(observations)


def _return(task: Task, observations: NDArray[np.float32], actions: NDArray[np.float32]) -> float:
    """Return minus the summed cost, each step's against the target that was set at its start."""
    seen = torch.from_numpy(observations)
    targets = task.targets(seen[:-1], 1)[:, 0]
    return -float(task.cost(seen[1:], torch.from_numpy(actions), targets).sum())


def _transitions(steps: list[RecordedStep], contract: Contract) -> int:
    count = 0
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        after = step.after
        if following is not None and _periods(step, following, contract) == 1:
            after = following.observation
        count += step.observation is not None and after is not None
    return count


def _missed(steps: list[RecordedStep], contract: Contract) -> int:
    gaps = [_periods(*pair, contract) - 1 for pair in pairwise(steps)]
    return sum(max(gap, 0) for gap in gaps)


def _periods(earlier: RecordedStep, later: RecordedStep, contract: Contract) -> int:
    return round((later.stamp_ns - earlier.stamp_ns) / 1e9 / contract.period_s)
