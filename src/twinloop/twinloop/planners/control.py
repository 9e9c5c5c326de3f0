# SPDX-License-Identifier: Apache-2.0
"""The control loop of one robot: samples in, one command a step out. No ROS in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.contract import Assembler, Contract, Observation, ObservationUnavailable
from twinloop.models.base import DynamicsModel
from twinloop.planners.base import Planner, PlanStats
from twinloop.planners.schedule import StepSchedule
from twinloop.tasks.base import Task

COMPLETE = "complete"
DROPPED = "dropped"
LOST = "balls_lost"  # the sensors work, and see no evidence of what is worked on any more
ENDS = (COMPLETE, DROPPED, LOST)  # what ends an episode that nothing was wrong with
FIRST_SAMPLES_S = 1.0  # how long a start waits for channels that have not come yet


@dataclass(frozen=True)
class Step:
    """What the loop did at one due time.

    A step with a `stop_reason` is the last one and commands nothing; its observation, where there
    is one, closes the episode.
    """

    due_ns: int
    index: int
    observation: Observation | None = None
    action: NDArray[np.float64] | None = None
    stats: PlanStats | None = None
    stop_reason: str = ""
    begun: Task | None = None  # what is pursued from this step on, where that is new


class ControlLoop:
    """Runs a planner on a contract's samples.

    Call `feed` for every message and then `trigger` with the stamp of each sample of the
    contract's trigger topic.

    Args:
        contract: what is observed and commanded.
        planner: what plans.
        fresh_s: topics, and how old their newest sample may be when a step begins, s. A step
            waits for it: where a twin waits for the step, nothing else brings slow sensors into
            the order that they have in real time. Default: steps take what there is.
    """

    def __init__(
        self, contract: Contract, planner: Planner, fresh_s: Mapping[str, float] | None = None
    ) -> None:
        self.contract = contract
        self.planner = planner
        self._assembler = Assembler(contract)
        self._schedule = StepSchedule(round(contract.period_s * 1e9))
        self._task: Task | None = None
        self._is_new = False  # the task has not begun yet
        self._seed = 0
        self._steps = 0
        self._index = 0
        self._patience = 0
        self._fresh_ns = {topic: round(s * 1e9) for topic, s in (fresh_s or {}).items()}
        self._waits_since_ns: int | None = None  # stamp at which the step that waits was due
        self._waits_at_ns = 0  # newest stamp since

    @property
    def is_running(self) -> bool:
        return self._task is not None

    @property
    def topics(self) -> dict[str, str]:
        return self._assembler.topics

    @property
    def skipped_steps(self) -> int:
        return self._schedule.skipped

    def start(self, task: Task, seed: int, steps: int) -> None:
        """Plan from the next sample on, for `steps` steps (0: until stopped)."""
        self.planner.task = task
        self.planner.reset(seed)
        self._schedule.start()
        self._task, self._is_new = task, True
        self._seed, self._steps, self._index = seed, steps, 0
        self._patience = round(FIRST_SAMPLES_S / self.contract.period_s)
        self._waits_since_ns = None

    def change_task(self, task: Task) -> None:
        """Pursue another goal of the task from the next step on.

        Raises:
            RuntimeError: nothing is being planned.
        """
        if self._task is None:
            raise RuntimeError("nothing is being planned")
        self._task, self._is_new = task, True

    def stop(self) -> None:
        """Plan no more."""
        self._task = None

    def use_model(self, model: DynamicsModel) -> None:
        """Plan with another model from the next step on."""
        self.planner.model = model

    def feed(self, topic: str, message: Any) -> None:
        """Take a sample; raises MalformedMessage and takes nothing if it is not as agreed."""
        self._assembler.feed(topic, message)

    def trigger(self, stamp_ns: int) -> Step | None:
        """Do the step that is due at this stamp, if one is."""
        if self._task is None:
            return None
        if self._must_wait(stamp_ns):
            return None
        due = self._schedule.due(stamp_ns)
        if due is None:
            return None
        step = self._do(self._task, due, stamp_ns, self._index)
        if step.index == 0 and step.observation is None and self._patience > 0:
            # A node that has just come up may not have heard every channel yet.
            self._patience -= 1
            return None
        self._index += 1
        if step.stop_reason:
            self._task = None
        return step

    def retry(self) -> Step | None:
        """Do the step that waits for fresh samples, if there is one and they have come."""
        return None if self._waits_since_ns is None else self.trigger(self._waits_at_ns)

    def _must_wait(self, stamp_ns: int) -> bool:
        """Whether a step is due that waits for fresh samples: while time stands still, and for a
        few of its own when it does not."""
        late = [
            topic
            for topic, fresh_ns in self._fresh_ns.items()
            if stamp_ns - (self._assembler.newest(topic, stamp_ns) or 0) > fresh_ns
        ]
        if not late or not self._schedule.is_due(stamp_ns):
            self._waits_since_ns = None
            return False
        if self._waits_since_ns is None:
            self._waits_since_ns = stamp_ns
        self._waits_at_ns = stamp_ns
        longest_s = min(c.max_age_s for c in self.contract.observation if c.topic in late)
        if stamp_ns - self._waits_since_ns <= longest_s * 1e9:
            return True
        self._waits_since_ns = None
        return False

    def _do(self, task: Task, due: int, stamp_ns: int, index: int) -> Step:
        try:
            # Samples may have been lost: what triggered the step is the newest there is.
            observation = self._assembler.assemble(stamp_ns)
        except ObservationUnavailable as unavailable:
            return Step(due, index, stop_reason=LOST if unavailable.is_lost else str(unavailable))
        vector = torch.from_numpy(observation.vector)
        if bool(task.failed(vector)):
            return Step(due, index, observation, stop_reason=DROPPED)
        if self._steps and index >= self._steps:
            return Step(due, index, observation, stop_reason=COMPLETE)
        begun = None
        if self._is_new:
            begun = task = self._task = self.planner.task = task.begin(vector, self._seed)
            self._is_new = False
        horizon = self.planner.horizon
        action, stats = self.planner.plan(vector, task.targets(vector, horizon))
        return Step(due, index, observation, action.double().numpy(), stats, begun=begun)
