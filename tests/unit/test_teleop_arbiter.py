# SPDX-License-Identifier: Apache-2.0
"""Who commands: autonomy, a pilot, nobody; and that nothing jumps where that changes."""

from __future__ import annotations

import numpy as np
import pytest
from twinloop.robots.hand24 import HAND24
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardSettings
from twinloop.teleop.arbiter import Arbiter, Order, SteeringSettings, Who

CUP = HAND24.poses["cup"]
PERIOD_NS, TICK_NS = 100_000_000, 10_000_000
START_NS = 1_000 * 10**9
SPEED = 0.8  # rad/s


class Cell:
    """Time, a planner that says the same each step, and a guard.

    Attributes:
        applied: orders that the guard let through.
        setpoints: where it had the joints, tick by tick, with their times.
    """

    def __init__(
        self, plans: bool = True, phase_ns: int = 0, late_ns: int = 0, **settings: float
    ) -> None:
        limits = {"lower": HAND24.lower, "upper": HAND24.upper}
        self.arbiter = Arbiter(SteeringSettings(**limits, pilot_speed=SPEED, **settings))
        self.now_ns = START_NS
        self.guard = CommandGuard(HAND24, GuardSettings(), CUP)
        self.setpoints: list[tuple[int, np.ndarray]] = []
        self.goal = CUP.copy()
        self.applied: list[Order] = []
        self.plans = plans
        self.planned = CUP.copy()
        self.phase_ns, self.late_ns = phase_ns, late_ns
        self.arbiter.applied(self.goal)

    @property
    def now_s(self) -> float:
        return self.now_ns * 1e-9

    def take(self, order: Order | None) -> None:
        if order is None:
            return
        if order.goal is None:
            assert self.guard.submit_hold("steering", self.now_ns, self.now_s).is_accepted
            self.tell()
            return
        assert not self.applied or order.stamp_ns > self.applied[-1].stamp_ns
        given = HAND24.joint_names, order.goal, order.stamp_ns, "steering", self.now_ns, self.now_s
        assert self.guard.submit(*given).is_accepted
        self.goal = order.goal
        self.applied.append(order)
        self.arbiter.applied(order.goal)

    def tell(self) -> None:
        """Let the arbiter know of goals that the guard has set by itself."""
        for change in self.guard.take_changes():
            self.goal = change.goal
            self.arbiter.applied(change.goal, is_guards=True)

    def run(self, seconds: float, wanted: np.ndarray | None = None) -> None:
        """Let time pass; a pilot wants targets, or says nothing."""
        for _ in range(round(seconds * 1e9 / TICK_NS)):
            self.take(self.arbiter.watch(self.now_ns, self.now_s + 0.005))
            self.setpoints.append((self.now_ns, self.guard.tick(self.now_ns, self.now_s)))
            self.now_ns += TICK_NS
            if wanted is not None and self.now_ns % (2 * TICK_NS) == 0:
                self.arbiter.pilot(wanted, self.now_ns, self.now_ns, self.now_s)
            stamp_ns = self.now_ns - self.late_ns
            if self.plans and (stamp_ns - self.phase_ns) % PERIOD_NS == 0:
                self.take(self.arbiter.autonomy(stamp_ns, self.planned, "planner", self.now_s))
            self.take(self.arbiter.sample(self.now_ns, self.now_s))

    def release(self) -> None:
        self.arbiter.released(self.now_ns, self.now_ns)

    def steps(self) -> np.ndarray:
        """Largest change from each command to the next, rad."""
        return np.abs(np.diff([CUP, *(one.goal for one in self.applied)], axis=0)).max(axis=1)


def test_autonomy_passes_unchanged_while_nobody_holds_the_dead_man() -> None:
    cell = Cell()
    cell.planned = CUP + 0.01
    cell.run(1.0)
    assert [one.stamp_ns % PERIOD_NS for one in cell.applied] == [0] * 10
    assert all((one.goal == cell.planned).all() for one in cell.applied)
    assert cell.arbiter.who is Who.AUTONOMY


@pytest.mark.parametrize("plans", [True, False])
def test_a_pilot_takes_over_at_his_own_speed_and_in_the_planners_steps(plans: bool) -> None:
    cell = Cell(plans)
    cell.run(0.55)
    cell.run(1.0, CUP + 0.5)
    assert cell.arbiter.who is Who.PILOT
    cell.applied = [one for one in cell.applied if one.stamp_ns >= cell.arbiter.since_ns]
    assert 9 <= len(cell.applied) <= 11
    assert {int(gap) for gap in np.diff([one.stamp_ns for one in cell.applied])} == {PERIOD_NS}
    assert cell.steps().max() <= SPEED * 0.1 + 1e-9
    assert cell.steps()[0] > 0.05
    if plans:
        assert {one.stamp_ns % PERIOD_NS for one in cell.applied} == {0}


def test_who_follows_a_pilot_starts_from_his_last_command() -> None:
    cell = Cell()
    cell.run(0.5)
    cell.run(1.0, CUP + 0.3)
    reached = cell.goal
    assert reached.max() > CUP.max() + 0.1
    cell.planned = reached + 0.02  # a planner observes the command in force
    cell.release()
    cell.run(0.5)
    assert cell.arbiter.who is Who.AUTONOMY
    assert (cell.goal == cell.planned).all()
    assert cell.steps().max() <= SPEED * 0.1 + 1e-9


@pytest.mark.parametrize("late_ms", [10, 30, 70])
def test_a_planner_that_is_late_finds_its_step_commanded(late_ms: int) -> None:
    cell = Cell(late_ns=late_ms * 1_000_000)
    cell.run(0.5 + 0.04)
    count = len(cell.applied)
    cell.run(1.0, CUP + 0.5)
    own = cell.applied[count:]
    # Each step once, its own the moment that it is due; his from the first one without a command.
    assert np.diff([one.stamp_ns for one in cell.applied]).tolist() == [PERIOD_NS] * (
        len(cell.applied) - 1
    )
    assert own[0].stamp_ns >= cell.arbiter.since_ns > own[0].stamp_ns - PERIOD_NS
    cell.planned = CUP + 0.5
    last = cell.goal
    cell.release()
    cell.run(0.5)
    his = [one for one in cell.applied[count:] if one.stamp_ns < cell.arbiter.since_ns]
    assert (his[-1].goal == last).all()
    assert all((one.goal == cell.planned).all() for one in cell.applied[count + len(his) :])


def test_where_time_waits_a_planner_is_waited_for() -> None:
    cell = Cell(late_ns=0, wait_s=10.0)
    cell.run(0.5)
    cell.run(0.05, CUP + 0.5)
    due_ns = cell.applied[-1].stamp_ns + PERIOD_NS
    cell.plans = False
    for waited_s in (0.0, 1.0, 5.0):  # the twin stands still at the step
        cell.arbiter.pilot(CUP + 0.5, due_ns, due_ns, cell.now_s + waited_s)
        assert cell.arbiter.sample(due_ns, cell.now_s + waited_s) is None
    order = cell.arbiter.autonomy(due_ns, CUP, "planner", cell.now_s + 5.0)
    assert order is not None
    assert order.stamp_ns == due_ns
    assert (order.goal > CUP).any()


def test_each_step_has_one_command_whoever_gives_it() -> None:
    cell = Cell()
    rng = np.random.default_rng(0)
    for _ in range(40):
        cell.run(rng.uniform(0.02, 0.3), CUP + rng.uniform(-0.3, 0.3, 24))
        if rng.random() < 0.7:
            cell.release()
        cell.run(rng.uniform(0.02, 0.05))
        if rng.random() < 0.7:
            cell.release()
    on_time = [one.stamp_ns for one in cell.applied if one.stamp_ns % PERIOD_NS == 0]
    assert len(on_time) == len(set(on_time)) >= (cell.now_ns - START_NS) // PERIOD_NS - 2


@pytest.mark.parametrize("offset_ms", range(0, 100, 10))
def test_a_hand_whose_pilot_falls_silent_is_at_rest_within_100_ms(offset_ms: int) -> None:
    cell = Cell()
    cell.run(0.5)
    cell.run(0.7 + offset_ms * 1e-3, CUP + 0.5)
    silent_since_ns = cell.now_ns - cell.now_ns % (2 * TICK_NS)
    cell.planned = CUP - 0.5
    cell.run(1.0)
    assert cell.arbiter.who is Who.NOBODY
    places = np.array([place for _, place in cell.setpoints])
    moved = np.abs(np.diff(places, axis=0)).max(axis=1) > 0
    # The end of the last tick that moved it.
    rested_ns = cell.setpoints[int(np.flatnonzero(moved)[-1]) + 1][0] + TICK_NS
    # 10 ms are left for messages to go from one process to the other.
    assert silent_since_ns < rested_ns <= silent_since_ns + 90_000_000
    assert np.abs(places[-1] - CUP).max() > 0.3


def test_a_goal_that_is_not_in_force_yet_is_taken_back() -> None:
    cell = Cell()
    cell.run(0.5)
    cell.run(0.5, CUP + 0.5)
    assert cell.now_ns == cell.applied[-1].stamp_ns
    wanted, stands = cell.goal, cell.guard.applied
    cell.take(cell.arbiter.lost("the line is dead", cell.now_ns))
    assert (cell.goal < wanted).any()
    assert np.abs(cell.goal - stands).max() < 0.02
    held = cell.goal
    cell.run(0.5)
    np.testing.assert_array_equal(cell.goal, held)
    np.testing.assert_array_equal(cell.guard.applied, held)


def test_nobody_commands_a_goal_that_a_hold_has_taken_back() -> None:
    cell = Cell()
    cell.run(0.5)
    cell.run(0.5, CUP + 0.5)
    order = cell.arbiter.lost("the line is dead", cell.now_ns)
    assert order is not None
    assert order.goal is None
    late_s = cell.now_s + 1.0
    cell.arbiter.applied(CUP + 0.5)  # of the pilot's last command, on its way meanwhile
    assert cell.arbiter.sample(cell.now_ns + PERIOD_NS, late_s) is None
    cell.arbiter.applied(CUP + 0.1, is_guards=True)
    order = cell.arbiter.sample(cell.now_ns + PERIOD_NS, late_s)
    assert order is not None
    np.testing.assert_array_equal(order.goal, CUP + 0.1)


def test_after_a_loss_autonomy_goes_on_only_when_told_or_when_the_pilot_is_back() -> None:
    cell = Cell()
    cell.run(0.5)
    cell.run(0.5, CUP + 0.2)
    cell.run(0.5)
    assert cell.arbiter.who is Who.NOBODY
    cell.release()  # a device that comes back says that it is released
    cell.run(0.3)
    assert cell.arbiter.who is Who.NOBODY
    held = cell.goal
    assert cell.arbiter.resume(cell.now_ns) == (True, "autonomy goes on")
    cell.planned = held
    cell.run(0.3)
    assert cell.arbiter.who is Who.AUTONOMY
    assert not cell.arbiter.resume(cell.now_ns)[0]

    cell.run(0.5, CUP + 0.2)
    cell.run(0.5)
    assert cell.arbiter.who is Who.NOBODY
    cell.run(0.2, CUP)  # whoever held on all the time does not move on by himself
    assert cell.arbiter.who is Who.NOBODY
    cell.release()
    cell.run(0.2, CUP)
    assert cell.arbiter.who is Who.PILOT
    cell.release()
    assert cell.arbiter.who is Who.AUTONOMY


def test_sharing_leaves_the_command_to_the_planner_until_the_pilot_is_lost() -> None:
    cell = Cell()
    cell.arbiter.sharing = True
    cell.run(0.5)
    cell.planned = CUP + 0.02
    cell.run(0.5, CUP + 0.5)
    assert cell.arbiter.who is Who.SHARED
    assert (cell.goal == cell.planned).all()
    cell.planned = CUP + 0.1
    cell.run(0.3)
    assert cell.arbiter.who is Who.NOBODY
    np.testing.assert_allclose(cell.goal, np.minimum(CUP + 0.02, HAND24.upper), atol=1e-9)


def test_words_that_his_release_has_overtaken_count_no_more() -> None:
    cell = Cell()
    cell.run(0.5)
    cell.run(0.3, CUP + 0.2)
    said_ns = cell.now_ns
    cell.now_ns += TICK_NS
    cell.release()
    cell.arbiter.pilot(CUP + 0.2, said_ns, cell.now_ns, cell.now_s)
    assert cell.arbiter.who is Who.AUTONOMY
    cell.now_ns += TICK_NS
    cell.arbiter.pilot(CUP + 0.2, cell.now_ns, cell.now_ns, cell.now_s)
    assert cell.arbiter.who is Who.PILOT
    cell.arbiter.released(said_ns, cell.now_ns)
    assert cell.arbiter.who is Who.PILOT


def test_a_planner_that_begins_meanwhile_sets_the_steps() -> None:
    cell = Cell(plans=False)
    cell.run(0.53, CUP + 0.1)
    cell.plans, cell.phase_ns = True, 30_000_000
    cell.run(1.0, CUP + 0.1)
    assert {one.stamp_ns % PERIOD_NS for one in cell.applied[-5:]} == {30_000_000}


def test_values_that_are_none_and_a_second_source_are_refused() -> None:
    cell = Cell()
    cell.run(0.5)
    broken = CUP.copy()
    broken[3] = np.nan
    cell.arbiter.pilot(broken, cell.now_ns, cell.now_ns, cell.now_s)
    assert cell.arbiter.who is Who.AUTONOMY
    now_s = cell.now_s
    assert cell.arbiter.autonomy(cell.now_ns + PERIOD_NS, broken, "planner", now_s) is None
    assert cell.arbiter.autonomy(cell.now_ns + PERIOD_NS, CUP, "another", now_s) is None
    assert cell.arbiter.refused == 3
    assert cell.arbiter.autonomy(cell.now_ns + PERIOD_NS, CUP, "another", now_s + 0.6) is not None


def test_a_scene_that_was_reset_does_not_pull_the_hand_back() -> None:
    cell = Cell(plans=False)
    cell.run(1.0, CUP + 0.5)
    cell.now_ns += 1_200_000_000
    cell.guard.restart(CUP, cell.now_ns, "scene reset")
    cell.tell()
    cell.run(0.05, CUP + 0.5)
    assert np.abs(cell.goal - CUP).max() <= SPEED * 0.1 + 1e-9


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="pilot_timeout_s is 0.0, expected a positive number"):
        SteeringSettings(HAND24.lower, HAND24.upper, pilot_timeout_s=0.0)
