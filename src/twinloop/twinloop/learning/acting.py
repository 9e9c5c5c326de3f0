# SPDX-License-Identifier: Apache-2.0
"""The robot's side of learning while it works: it acts at its own pace, and writes bags.

It waits for no gradient step: a newer policy is read beside its work and taken between two control
steps. What it does is on the disk chunk by chunk, so that being killed loses one chunk at most; the
next start mends the bag that was left behind and goes on with the next episode.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.bags.episodes import PLAN_STATS
from twinloop.bags.errors import BagError
from twinloop.bags.metadata import EpisodeMetadata
from twinloop.bags.read import complete_bags, metadata
from twinloop.bags.repair import repair_unfinished
from twinloop.bags.rollouts import RolloutWriter
from twinloop.learning import checkpoint
from twinloop.learning.action_units import units_of
from twinloop.learning.checkpoint import CheckpointInvalid
from twinloop.learning.episode import Episode
from twinloop.learning.network_actor import NetworkActor
from twinloop.learning.rollout import Hands, random_motion
from twinloop.models.actor import Actor
from twinloop.planners.control import DROPPED
from twinloop.tasks.base import Task

POLICY = "policy"  # file of the learner's newest one, without its ending
_POLL_S = 0.1


@dataclass(frozen=True)
class ActingSettings:
    """How a robot acts while a learner learns.

    Attributes:
        steps: control steps of an episode.
        transitions: after which it has done enough; 0: never.
        period_s: from a step to the next, s; 0: as fast as it can, which no robot does.
        smoothing: see `NetworkActor`.
        first: transitions of random motion.
        about_pose: see `OffPolicySettings`.
        chunk_s: of the robot's time, after which steps are on the disk.
    """

    steps: int
    transitions: int = 0
    period_s: float = 0.0
    smoothing: float = 0.0
    first: int = 100
    about_pose: bool = False
    chunk_s: float = 1.0


@dataclass
class Acted:
    """What acting gave.

    Attributes:
        periods_s: from each step to the next within its episode.
        returns: summed reward of each episode.
        swaps: how often a newer policy was taken.
    """

    transitions: int = 0
    periods_s: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    swaps: int = 0


class NewestPolicy:
    """Reads the learner's policy whenever its file is a new one, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"{POLICY}.safetensors"
        self._newest: Actor | None = None
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="newest_policy", daemon=True)
        self._thread.start()

    def take(self) -> Actor | None:
        """Return a policy once, None while there is no newer one."""
        with self._lock:
            newest, self._newest = self._newest, None
        return newest

    def close(self) -> None:
        """End the thread."""
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        seen = None
        while not self._ends.wait(_POLL_S):
            with contextlib.suppress(FileNotFoundError):  # there is none yet
                about = self._path.stat()
                stamp = (about.st_mtime_ns, about.st_ino)
                if stamp == seen:
                    continue
                seen = stamp
                try:
                    found = checkpoint.load_model(self._folder, POLICY)
                except CheckpointInvalid as error:
                    warnings.warn(f"the policy before goes on: {error}", stacklevel=1)
                    continue
                if found is not None and isinstance(found[0], Actor):
                    with self._lock:
                        self._newest = found[0].requires_grad_(False)


def act(
    folder: Path,
    task: Task,
    cell: Hands,
    settings: ActingSettings,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Acted:
    """Act until enough is done, or `stop` says so; bags go to `folder/bags`.

    Args:
        folder: of the run, which the learner shares.
        cell: one robot, or the twin of one.
        seed: times a million, plus the number of an episode, sets its start and noise.

    Raises:
        BagWriteError: the disk refused.
        ValueError: more than one robot.
    """
    if cell.hands != 1:
        raise ValueError(f"one robot acts, got {cell.hands}")
    torch.set_num_threads(1)
    bags = folder / "bags"
    bags.mkdir(parents=True, exist_ok=True)
    for outcome in repair_unfinished(bags):
        if isinstance(outcome, BagError):
            warnings.warn(f"a killed process left what is no bag: {outcome}", stacklevel=2)
    first = random_motion(task, 1) if settings.about_pose else None
    actor = NetworkActor(units_of(task), 1, smoothing=settings.smoothing, first=first)
    robot = _Robot(task, cell, settings, actor, NewestPolicy(folder), stop)
    done = complete_bags(bags)
    robot.done.transitions = sum(_steps(path) for path in done)
    index = 1 + max((int(path.name.split("_")[1]) for path in done), default=-1)
    try:
        while not stop() and not robot.is_done:
            robot.episode(bags / f"episode_{index:06d}", index, 1_000_000 * seed + index)
            index += 1
    finally:
        robot.newest.close()
    return robot.done


def _steps(path: Path) -> int:
    """Return how many control steps a bag holds, mended ones included."""
    return sum(t.message_count for t in metadata(path).topics if t.name == f"/{PLAN_STATS}")


@dataclass
class _Robot:
    task: Task
    cell: Hands
    settings: ActingSettings
    actor: NetworkActor
    newest: NewestPolicy
    stop: Callable[[], bool]
    done: Acted = field(default_factory=Acted)

    @property
    def is_done(self) -> bool:
        return 0 < self.settings.transitions <= self.done.transitions

    def episode(self, path: Path, index: int, seed: int) -> None:
        """Run one episode, or as much of it as there is time for."""
        observation = self.cell.reset([seed])
        self.actor.start(0, seed)
        about = EpisodeMetadata(
            episode_id=path.name,
            index=index,
            task=self.task.name,
            goal=self.task.goal,
            robot=self.task.contract.robot,
            source="twin",
            seed=seed,
        )
        rows = [observation[0].copy()]
        actions = []
        writer = RolloutWriter(path, self.task.contract, about, chunk_age_s=self.settings.chunk_s)
        with writer:
            due_s = last_s = time.monotonic()
            reason = "completed"
            for step in range(self.settings.steps):
                self._take_newest()
                targets, _ = self.actor.act(observation)
                observation = self.cell.step(targets)
                rows.append(observation[0].copy())
                actions.append(self.cell.command[0].astype(np.float32))
                writer.step(rows[-2], actions[-1])
                due_s += self.settings.period_s
                if self.settings.period_s:
                    time.sleep(max(0.0, due_s - time.monotonic()))
                now_s = time.monotonic()
                if step:
                    self.done.periods_s.append(now_s - last_s)
                last_s = now_s
                self.done.transitions += 1
                if bool(self.task.failed(torch.from_numpy(rows[-1]))):
                    reason = DROPPED
                    break
                if self.is_done or self.stop():
                    break
            writer.end(rows[-1])
            writer.close(stop_reason=reason, dropped=reason == DROPPED)
        self.done.returns.append(self._total(np.array(rows), np.array(actions)))

    def _take_newest(self) -> None:
        """Act by the learner's newest policy from now on, once random motion is over."""
        if self.done.transitions < self.settings.first:
            return
        newest = self.newest.take()
        if newest is not None:
            self.actor.actor = newest
            self.done.swaps += 1

    def _total(self, rows: NDArray[np.float32], actions: NDArray[np.float32]) -> float:
        units = units_of(self.task).of(Episode(rows, actions))
        seen = torch.from_numpy(rows)
        return float(self.task.reward(seen[:-1], torch.from_numpy(units), seen[1:]).sum())


def lives(parent: int) -> Callable[[], bool]:
    """Return what tells that the process with this number is no longer the parent of this one."""
    return lambda: os.getppid() != parent
