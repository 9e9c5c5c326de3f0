# SPDX-License-Identifier: Apache-2.0
"""From a bag to the arrays that a learner trains on, through the contract alone."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinloop.bags.errors import BagError
from twinloop.bags.metadata import EpisodeMetadata, read_metadata
from twinloop.bags.read import BagMessage, bag_folder, read_messages
from twinloop.contract import (
    Assembler,
    Channel,
    Contract,
    MalformedMessage,
    ObservationUnavailable,
    stamp_of,
)
from twinloop.contract.sources import extract
from twinloop.learning.episode import Episode

TASK_GOAL = "task_goal"
PLAN_STATS = "plan_stats"
EPISODE_STATUS = "episode_status"
CONTROL_STATUS = "control_status"
# A step that is this share of the period off its due time does not follow the one before.
_STEP_TOLERANCE = 0.25

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class RecordedStep:
    """One control step: what the planner had, and what the bag gives for it."""

    step: int
    stamp_ns: int
    live: Vector
    """The observation [O] that the live planner had."""
    observation: Vector | None
    """The same, assembled from the recorded topics; None where a sample was not recorded."""
    action: Vector
    """The goal [A] that the guard applied."""
    after: Vector | None
    """The observation one period later, where no further step follows and samples are there."""
    is_piloted: bool = False
    """Whether a person had a hand in the action."""
    model_version: str = ""
    """Of what planned it."""


def episode(path: Path | str, contract: Contract) -> Episode:
    """Return the longest unbroken run of control steps of a bag; see `episodes`."""
    return max(episodes(path, contract), key=len)


def episodes(path: Path | str, contract: Contract) -> list[Episode]:
    """Return every unbroken run of control steps of a complete bag, in order.

    Observations are assembled from the recorded topics, from exactly the samples that the planner
    used. The action of a step is the goal that the guard applied for it, or, where the guard
    refused the command, the goal that stayed in force. The observation after the last step is the
    one with which the planner closed the episode, or else what a live node would have assembled
    one period later. A step that is missing, or one of whose samples was not recorded, ends a run.
    `meta` is the bag's metadata, `first_step`, `planned_by`, the versions that planned the run's
    steps, and, where a person had a hand in it, `piloted`: the steps of the run that he had, as
    pairs of the first and the one after the last. `stop_reason` is that of the last run alone: what
    ended the episode did not end the others.

    Raises:
        BagError: the bag is damaged, was recorded under another contract, lacks a topic or holds
            not one transition.
    """
    folder = bag_folder(path)
    about = _metadata_under(folder, contract)
    result = []
    steps = _Recorded(folder, contract, about).steps()
    runs = _unbroken(steps, contract.period_s)
    for run in runs:
        observations = [step.observation for step in run if step.observation is not None]
        if run[-1].after is not None:
            observations.append(run[-1].after)
        actions = [step.action for step in run[: len(observations) - 1]]
        if actions:
            planned_by = dict.fromkeys(step.model_version for step in run[: len(actions)])
            meta = about.model_dump(exclude={"contract"}) | {
                "first_step": run[0].step,
                "planned_by": list(planned_by),
            }
            if run is not runs[-1]:
                meta["stop_reason"] = None
            piloted = _ranges([step.is_piloted for step in run[: len(actions)]])
            if piloted:
                meta["piloted"] = piloted
            try:
                result.append(Episode(np.stack(observations), np.stack(actions), meta))
            except ValueError as error:
                raise BagError(folder, str(error)) from error
    if not result:
        raise BagError(folder, f"holds {len(steps)} control steps and no two in a row")
    return result


def recorded_steps(path: Path | str, contract: Contract) -> list[RecordedStep]:
    """Return the control steps of a bag, with the live vectors beside those of the bag.

    Steps before the first recorded goal, as where a recorder was restarted amid an episode, are
    left out: what was applied is not known for them.

    Raises:
        BagError: see `episodes`.
    """
    folder = bag_folder(path)
    return _Recorded(folder, contract, _metadata_under(folder, contract)).steps()


def _metadata_under(folder: Path, contract: Contract) -> EpisodeMetadata:
    about = read_metadata(folder).episode
    if about is None:
        raise BagError(folder, "does not say which episode it is, expected a bag of an episode")
    if about.contract_hash != contract.hash():
        raise BagError(
            folder,
            f"was recorded under contract {about.contract_hash or 'none'}, "
            f"expected {contract.name} with {contract.hash()}",
        )
    return about


class _Recorded:
    """The messages of one bag that the contract and the control steps need."""

    def __init__(self, folder: Path, contract: Contract, about: EpisodeMetadata) -> None:
        self._folder = folder
        self._contract = contract
        self._period_ns = round(contract.period_s * 1e9)
        self._assembler = Assembler(contract, history_s=None)
        self._goal = _goal_channel(contract)
        self._goals: dict[int, Vector] = {}
        self._reset_ns: int | None = None
        self._control: list[tuple[int, bool]] = []
        relative = {*self._assembler.topics, self._goal.topic, PLAN_STATS, EPISODE_STATUS}
        relative.add(CONTROL_STATUS)
        self._names = {about.topic(name): name for name in relative}
        messages = list(read_messages(folder, self._names))
        self._stats: dict[int, Any] = {}
        self._closing: dict[int, Any] = {}
        self._note_steps(messages, about.episode_id)
        self._after = self._feed(messages)

    def steps(self) -> list[RecordedStep]:
        stamps = sorted(self._goals)
        result = []
        for stamp, stats in sorted(self._stats.items()):
            in_force = bisect_right(stamps, stamp) - 1
            if in_force < 0:
                continue
            result.append(
                RecordedStep(
                    step=int(stats.step),
                    stamp_ns=stamp,
                    live=np.asarray(stats.observation, dtype=np.float32),
                    observation=self._observation(stats),
                    action=self._goals[stamps[in_force]],
                    after=self._closing_observation(stamp),
                    is_piloted=self._is_piloted(stamp),
                    model_version=str(stats.model_version),
                )
            )
        return result

    def _note_steps(self, messages: list[BagMessage], episode_id: str) -> None:
        """Keep the PlanStats of this episode by their stamp [ns]: of its steps, and of its end."""
        for message in messages:
            if self._names[message.topic] != PLAN_STATS:
                continue
            stats = self._decode(message)
            if len(stats.channel_stamps) != len(stats.channels):
                raise BagError(
                    self._folder,
                    f"step {stats.step}: {len(stats.channels)} channels and "
                    f"{len(stats.channel_stamps)} stamps",
                )
            if stats.episode_id == episode_id:
                kind = self._closing if stats.stop_reason else self._stats
                kind[self._stamp(stats, PLAN_STATS)] = stats

    def _closing_observation(self, stamp: int) -> Vector | None:
        """Return the observation after the step at `stamp`, if no step follows it."""
        for closing_stamp, stats in self._closing.items():
            if self._follows(closing_stamp, stamp) and len(stats.channels):
                return self._observation(stats)
        return self._after.get(stamp)

    def _feed(self, messages: list[BagMessage]) -> dict[int, Vector]:
        """Feed the assembler in the order of arrival.

        Returns what it gave one period after steps that no step follows, by the step's stamp. It
        is asked as soon as the trigger's sample of that time has arrived, which leaves out what
        came too late for a live node.
        """
        pending = [
            stamp
            for stamp, following in _pairs(sorted(self._stats))
            if following is None or not self._follows(following, stamp)
        ]
        after: dict[int, Vector] = {}
        for message in messages:
            name = self._names[message.topic]
            if name == PLAN_STATS:
                continue
            decoded = self._decode(message)
            if name == EPISODE_STATUS:
                self._note_reset(decoded)
                continue
            if name == CONTROL_STATUS:
                self._control.append(control_change(decoded))
                continue
            try:
                self._assembler.feed(name, decoded)
                if name == self._goal.topic:
                    values = extract(self._goal, decoded).astype(np.float32)
                    self._goals[stamp_of(decoded)] = values
            except MalformedMessage:
                # The live node took nothing from this message either.
                continue
            while (
                name == self._contract.trigger
                and pending
                and stamp_of(decoded) >= pending[0] + self._period_ns
            ):
                stamp = pending.pop(0)
                vector = self._held(stamp + self._period_ns)
                if vector is not None:
                    after[stamp] = vector
        return after

    def _is_piloted(self, stamp_ns: int) -> bool:
        """Whether a pilot commanded, alone or with the planner; the change said last counts."""
        before = [is_pilots for since_ns, is_pilots in self._control if since_ns <= stamp_ns]
        return bool(before) and before[-1]

    def _held(self, due_ns: int) -> Vector | None:
        """Return the observation at a time when nobody planned; None after a reset."""
        if self._reset_ns is not None and due_ns >= self._reset_ns:
            return None
        try:
            return self._assembler.assemble(due_ns).vector
        except ObservationUnavailable:
            return None

    def _note_reset(self, status: Any) -> None:
        """From the reset that follows the steps on, samples belong to another episode."""
        stamp = self._stamp(status, EPISODE_STATUS)
        after_start = bool(self._stats) and stamp > min(self._stats)
        if after_start and status.phase == status.RESETTING and self._reset_ns is None:
            self._reset_ns = stamp

    def _observation(self, stats: Any) -> Vector | None:
        nanoseconds = [_nanoseconds(stamp) for stamp in stats.channel_stamps]
        used = dict(zip(stats.channels, nanoseconds, strict=True))
        try:
            return self._assembler.assemble_at(stamp_of(stats), used).vector
        except ObservationUnavailable:
            return None

    def _follows(self, later_ns: int, earlier_ns: int) -> bool:
        return _follows(later_ns, earlier_ns, self._contract.period_s)

    def _stamp(self, decoded: Any, topic: str) -> int:
        try:
            return stamp_of(decoded)
        except MalformedMessage as error:
            raise BagError(self._folder, f"{topic}: {error}") from error

    def _decode(self, message: BagMessage) -> Any:
        try:
            return message.decode()
        except ValueError as error:
            raise BagError(self._folder, f"{message.topic}: {error}") from error


def control_change(status: Any) -> tuple[int, bool]:
    """Return when a ControlStatus begins to hold, ns, and whether a pilot commands from then on."""
    return _nanoseconds(status.stamp), status.who in (status.PILOT, status.SHARED)


def _ranges(marks: list[bool]) -> list[tuple[int, int]]:
    """Return the runs of marks as pairs of the first index and the one after the last."""
    edges = np.flatnonzero(np.diff(np.array([False, *marks, False]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _goal_channel(contract: Contract) -> Channel:
    action = contract.action
    return Channel(
        name="action",
        topic=action.applied_topic,
        type=action.type,
        field="positions",
        elements=action.elements,
        unit=action.unit,
        max_age_s=contract.period_s,
    )


def _unbroken(steps: list[RecordedStep], period_s: float) -> list[list[RecordedStep]]:
    """Split steps where one is missing or could not be assembled."""
    runs: list[list[RecordedStep]] = [[]]
    for step in steps:
        run = runs[-1]
        if run and not _follows(step.stamp_ns, run[-1].stamp_ns, period_s):
            run = []
            runs.append(run)
        if step.observation is None:
            runs.append([])
        else:
            run.append(step)
    return [run for run in runs if run]


def _follows(later_ns: int, earlier_ns: int, period_s: float) -> bool:
    off_s = (later_ns - earlier_ns) / 1e9 - period_s
    return abs(off_s) <= _STEP_TOLERANCE * period_s


def _pairs(stamps: list[int]) -> list[tuple[int, int | None]]:
    return list(zip(stamps, [*stamps[1:], None], strict=False))  # none for none


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
