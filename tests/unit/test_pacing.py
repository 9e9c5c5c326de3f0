# SPDX-License-Identifier: Apache-2.0
"""Simulated time keeps its pace without drift, and stands still for a planner in lock-step."""

from __future__ import annotations

import pytest
from twinloop_sim.nodes.pacing import LockStep, Pace

PERIOD_NS = 100_000_000


def test_ticks_fall_due_without_drift_however_late_they_are_asked_for() -> None:
    pace = Pace(0.01, 1.0)
    pace.restart(5.0)
    now_s, ran = 5.0, 0
    for k in range(2000):
        ran += pace.due(now_s)
        now_s += 0.004 + 0.003 * (k % 3)
    assert ran == pytest.approx((now_s - 5.0) / 0.01, abs=1.5)
    assert pace.lost_s == 0.0


@pytest.mark.parametrize("rtf", [0.1, 0.5, 4.0])
def test_the_real_time_factor_scales_the_pace(rtf: float) -> None:
    pace = Pace(0.01, rtf)
    pace.restart(0.0)
    ran = sum(pace.due(k * 0.001) for k in range(10_000))
    assert ran * 0.01 == pytest.approx(10.0 * rtf, rel=0.01)


def test_a_short_stall_is_caught_up_and_a_long_one_given_up() -> None:
    pace = Pace(0.01, 1.0)
    pace.restart(0.0)
    assert pace.due(0.0) == 1
    assert pace.due(0.095) == 9
    assert pace.due(2.0) == 1
    assert pace.lost_s == pytest.approx(1.9, abs=0.02)
    assert pace.due(2.005) == 0


def test_as_fast_as_possible_always_grants_a_burst() -> None:
    pace = Pace(0.01, 0.0, burst=7)
    assert [pace.due(s) for s in (0.0, 0.0, 9.0)] == [7, 7, 7]


def test_ticks_given_back_fall_due_again() -> None:
    pace = Pace(0.01, 1.0)
    pace.restart(0.0)
    assert pace.due(0.035) == 4
    pace.postpone(3)
    assert pace.due(0.035) == 3


def test_lock_step_stands_still_at_each_step_until_its_command_came() -> None:
    lockstep = LockStep(PERIOD_NS, timeout_s=1.0)
    assert not lockstep.must_wait(0, 0.0)
    lockstep.engage(0)
    assert lockstep.expects_commands
    assert lockstep.must_wait(0, 0.0)
    lockstep.commanded(0)
    assert not lockstep.must_wait(PERIOD_NS - 1, 0.2)
    assert lockstep.must_wait(PERIOD_NS, 0.3)
    assert lockstep.waited_s(0.8) == pytest.approx(0.5)
    assert not lockstep.has_timed_out(1.3)
    assert lockstep.has_timed_out(1.31)


def test_suspended_lock_step_runs_freely_until_the_next_command() -> None:
    lockstep = LockStep(PERIOD_NS, timeout_s=1.0)
    lockstep.engage(0)
    assert lockstep.must_wait(0, 0.0)
    lockstep.suspend()
    assert not lockstep.must_wait(5 * PERIOD_NS, 9.0)
    lockstep.commanded(7 * PERIOD_NS)
    assert not lockstep.must_wait(8 * PERIOD_NS - 1, 9.0)
    assert lockstep.must_wait(8 * PERIOD_NS, 9.0)


def test_disengaged_lock_step_ignores_commands() -> None:
    lockstep = LockStep(PERIOD_NS, timeout_s=1.0)
    lockstep.engage(0)
    lockstep.disengage()
    lockstep.commanded(0)
    assert not lockstep.must_wait(10 * PERIOD_NS, 0.0)
