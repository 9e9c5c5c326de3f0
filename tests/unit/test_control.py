# SPDX-License-Identifier: Apache-2.0
"""The control loop: one step a period, named ends, model swaps between steps."""

from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import torch
from twinloop.planners.base import PlanStats
from twinloop.planners.control import COMPLETE, DROPPED, LOST, ControlLoop, Step

from twinloop import contract as contracts
from twinloop import tasks

MS = 1_000_000
CONTRACT = contracts.load("baoding")
JOINTS = list(CONTRACT.action.elements)
PALM = ((0.03, -0.03, 0.07), (-0.03, -0.03, 0.07))  # two balls in the cup, palm frame


class FixedPlanner:
    """Asks for the same pose at every step and remembers what it was shown."""

    horizon = 3

    def __init__(self) -> None:
        self.model: Any = "first"
        self.task: Any = None
        self.seen: list[tuple[Any, torch.Tensor, torch.Size]] = []

    def reset(self, seed: int) -> None:
        self.seed = seed

    def plan(self, observation: torch.Tensor, target: torch.Tensor) -> tuple[Any, PlanStats]:
        self.seen.append((self.model, observation, target.shape))
        return torch.full((24,), 0.25), PlanStats(1.0, -1.0, -2.0, 0.1, 8, 3, 0)


def feed(
    loop: ControlLoop,
    stamp_ns: int,
    places: Any = PALM,
    with_balls: bool = True,
    stale: bool = False,
) -> None:
    stamp = Message(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    header = Message(stamp=stamp, frame_id="rh_palm")
    zeros = [0.0] * len(JOINTS)
    loop.feed("joint_states", Message(header=header, name=JOINTS, position=zeros, velocity=zeros))
    loop.feed(
        "applied_command",
        Message(header=header, joint_names=JOINTS, points=[Message(positions=zeros)]),
    )
    if with_balls:
        still = Message(x=0.0, y=0.0, z=0.0)
        balls = [
            Message(id=i, position=Message(x=x, y=y, z=z), velocity=still, stale=stale)
            for i, (x, y, z) in enumerate(places)
        ]
        loop.feed("balls", Message(header=header, balls=balls))


def running(steps: int = 0, fresh_s: float = 0.0) -> tuple[ControlLoop, FixedPlanner]:
    planner = FixedPlanner()
    loop = ControlLoop(CONTRACT, planner, {"balls": fresh_s} if fresh_s else None)
    loop.start(tasks.make("baoding", "ccw"), seed=7, steps=steps)
    return loop, planner


def drive(loop: ControlLoop, milliseconds: range, **kwargs: Any) -> list[Step]:
    steps = []
    for ms in milliseconds:
        feed(loop, ms * MS, **kwargs)
        step = loop.trigger(ms * MS)
        if step is not None:
            steps.append(step)
    return steps


def test_nothing_is_commanded_before_the_start() -> None:
    loop = ControlLoop(CONTRACT, FixedPlanner())
    assert drive(loop, range(0, 300, 10)) == []


def test_one_step_a_period_until_the_episode_is_complete() -> None:
    loop, planner = running(steps=5)
    steps = drive(loop, range(1_000, 3_000, 10))
    assert [s.due_ns // MS for s in steps] == [1_000, 1_100, 1_200, 1_300, 1_400, 1_500]
    assert [s.index for s in steps] == [0, 1, 2, 3, 4, 5]
    assert [s.stop_reason for s in steps] == ["", "", "", "", "", COMPLETE]
    assert steps[-1].action is None
    assert steps[-1].observation is not None
    assert np.all(steps[0].action == 0.25)
    assert planner.seed == 7
    assert [shape for _, _, shape in planner.seen] == [(3, 4)] * 5
    assert not loop.is_running


def test_lost_samples_delay_a_step_but_do_not_end_the_episode() -> None:
    loop, _ = running(steps=3)
    drive(loop, range(1_000, 1_010, 10))
    (step,) = drive(loop, range(1_160, 1_180, 10))
    assert step.due_ns == 1_100 * MS
    assert step.stop_reason == ""
    assert step.observation is not None
    assert step.observation.sample_stamps_ns["joint_position"] == 1_160 * MS


def test_a_dropped_ball_ends_the_episode_without_a_command() -> None:
    loop, _ = running()
    drive(loop, range(1_000, 1_050, 10))
    fallen = (PALM[0], (0.3, 0.2, 0.0))
    (step,) = drive(loop, range(1_050, 1_110, 10), places=fallen)
    assert (step.stop_reason, step.action) == (DROPPED, None)
    assert step.observation is not None
    assert not loop.is_running


def test_a_channel_that_dries_up_stops_the_planner_by_name() -> None:
    loop, _ = running()
    drive(loop, range(1_000, 1_010, 10))
    steps = drive(loop, range(1_010, 2_000, 10), with_balls=False)
    assert "channel ball_position is 0.300 s old" in steps[-1].stop_reason
    assert steps[-1].action is None
    assert not loop.is_running


def test_balls_that_nobody_sees_any_more_are_lost_and_no_fault() -> None:
    loop, _ = running()
    drive(loop, range(1_000, 1_010, 10))
    steps = drive(loop, range(1_010, 2_000, 10), stale=True)
    assert steps[-1].stop_reason == LOST
    assert steps[-1].action is None


def test_a_start_waits_for_channels_that_have_not_come_yet() -> None:
    loop, _ = running(steps=2)
    assert drive(loop, range(1_000, 1_400, 10), with_balls=False) == []
    steps = drive(loop, range(1_400, 2_000, 10))
    assert [s.stop_reason for s in steps] == ["", "", COMPLETE]


def test_a_start_does_not_wait_for_ever() -> None:
    loop, _ = running()
    steps = drive(loop, range(1_000, 3_000, 10), with_balls=False)
    assert [s.due_ns // MS for s in steps] == [2_000]
    assert "ball_position has no sample" in steps[0].stop_reason


def test_a_step_waits_for_fresh_balls_while_time_stands_still() -> None:
    loop, planner = running(fresh_s=0.05)
    feed(loop, 1_000 * MS)
    feed(loop, 1_060 * MS, with_balls=False)
    assert loop.trigger(1_060 * MS) is None
    assert loop.trigger(1_060 * MS) is None
    assert loop.retry() is None
    feed(loop, 1_030 * MS)
    step = loop.retry()
    assert step is not None
    assert step.observation is not None
    assert step.observation.sample_stamps_ns["ball_position"] == 1_030 * MS
    assert len(planner.seen) == 1
    assert loop.retry() is None


def test_a_step_takes_a_blind_tracker_for_an_answer() -> None:
    loop, _ = running(fresh_s=0.05)
    feed(loop, 1_000 * MS)
    feed(loop, 1_060 * MS, stale=True)
    step = loop.trigger(1_060 * MS)
    assert step is not None
    assert step.action is not None


def test_a_step_does_not_wait_for_balls_while_time_goes_by() -> None:
    loop, _ = running(fresh_s=0.05)
    drive(loop, range(1_000, 1_010, 10))
    steps = drive(loop, range(1_010, 2_000, 10), with_balls=False)
    assert steps[-1].due_ns <= 1_400 * MS
    assert "channel ball_position is" in steps[-1].stop_reason


def test_a_new_model_counts_from_the_next_step_on() -> None:
    loop, planner = running()
    drive(loop, range(1_000, 1_150, 10))
    loop.use_model("second")  # type: ignore[arg-type]
    drive(loop, range(1_150, 1_250, 10))
    assert [model for model, _, _ in planner.seen] == ["first", "first", "second"]


@pytest.mark.parametrize("goal", ["left", "up", "CCW"])
def test_an_unknown_goal_is_refused(goal: str) -> None:
    with pytest.raises(ValueError, match="goal"):
        tasks.make("baoding", goal)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="no task 'juggling'.*baoding"):
        tasks.make("juggling", "ccw")


def test_a_task_begins_with_its_first_observation_and_is_told_once() -> None:
    loop, planner = running()
    loop.start(tasks.make("baoding", "hold"), seed=0, steps=0)
    first, second = drive(loop, range(0, 110, 10))
    assert first.begun is planner.task
    assert first.begun.goal_values == pytest.approx((0.03, 0.07, -0.03, 0.07))
    assert second.begun is None


def test_a_goal_changed_amid_an_episode_holds_from_the_next_step_on() -> None:
    loop, planner = running()
    drive(loop, range(0, 10, 10))
    loop.change_task(tasks.make("baoding", "move", (0.0, 0.1)))
    (step,) = drive(loop, range(10, 110, 10))
    assert step.index == 1
    assert step.begun.goal == "move"
    assert planner.task.goal_values[:2] == pytest.approx((0.0, 0.1))


def test_the_goal_of_nothing_cannot_be_changed() -> None:
    loop, _ = running()
    loop.stop()
    with pytest.raises(RuntimeError, match="nothing is being planned"):
        loop.change_task(tasks.make("baoding", "cw"))


def test_places_are_refused_where_goals_have_none() -> None:
    with pytest.raises(ValueError, match="its goals take no numbers"):
        tasks.make("valve", "", (0.1,))
