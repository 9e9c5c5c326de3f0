# SPDX-License-Identifier: Apache-2.0
"""The command guard: when it holds and stops, who commands, and what it stands after."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from guard_bench import CUP, HOUR_NS, MIDDLE, STEP_NS, STEP_RAD, TICK_NS, Bench, moved
from twinloop.robots.hand24 import HAND24
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardSettings, GuardState, Refusal


def test_silence_ends_in_a_smooth_hold_from_which_the_source_goes_on() -> None:
    bench = Bench()
    for k in range(1, 5):
        assert bench.send(moved(k * STEP_RAD)).is_accepted
        bench.tick(10)
    bench.guard.take_changes()
    sent_ns = bench.now_ns - STEP_NS
    while bench.guard.state is GuardState.ACTIVE:
        bench.tick()
    # The next command was due one step after the last; held within 100 ms of that.
    assert bench.now_ns - sent_ns <= 2 * STEP_NS
    assert "silent" in bench.guard.reason
    (change,) = bench.guard.take_changes()
    rest = bench.tick(10)[-1]
    np.testing.assert_allclose(rest, change.goal, atol=1e-12)
    verdict = bench.send(rest + 0.01)
    assert verdict.is_accepted
    assert verdict.limited == ()
    assert bench.guard.state is GuardState.ACTIVE


def test_a_source_frozen_in_full_motion_is_brought_to_rest_within_limits() -> None:
    bench = Bench(command_timeout_s=0.12)
    motion = [MIDDLE] * 3
    for k in range(1, 4):
        bench.send(moved(k * STEP_RAD))
        motion.extend(bench.tick(10))
    motion.extend(bench.tick(30))
    track = np.array(motion)[:, 3]
    assert (np.abs(np.diff(track, 2)) <= HAND24.acceleration[3] * 1e-4 + 1e-12).all()
    assert track[-1] == track[-10]
    assert track[-1] < MIDDLE[3] + 3 * STEP_RAD + 1e-9


@pytest.mark.parametrize("rtf", [0.1, 0.5])
def test_a_slow_simulation_gives_its_source_more_time(rtf: float) -> None:
    bench = Bench()
    bench.guard.pace(1 / rtf)
    for k in range(1, 6):
        bench.send(moved(k * 0.02))
        bench.tick(10, rtf)
        assert bench.guard.state is GuardState.ACTIVE
    bench.tick(11, rtf)
    assert bench.guard.state is GuardState.HOLDING


def test_the_callers_own_stall_is_not_taken_for_silence() -> None:
    bench = Bench()
    bench.beats = False
    bench.tick(3)
    bench.send(moved(0.1))
    bench.tick(9)
    bench.steady_s += 0.6
    bench.beats = None
    bench.tick(1)
    assert bench.guard.state is GuardState.ACTIVE
    bench.tick(30)
    assert bench.guard.state is GuardState.EMERGENCY_STOP


def test_the_goal_is_repeated_while_held_and_never_dated_like_a_command() -> None:
    bench = Bench()
    bench.tick(40)
    changes = bench.guard.take_changes()
    assert len(changes) == 4
    assert all(change.stamp_ns % TICK_NS == TICK_NS // 2 for change in changes)
    np.testing.assert_array_equal(changes[0].goal, MIDDLE)
    bench.send(moved(0.1))
    bench.tick(15)
    assert bench.guard.take_changes() == []


def test_two_sources_never_interleave() -> None:
    bench = Bench()
    heard = []
    for k in range(40):
        bench.tick(5)
        source = ("first", "second")[k % 2]
        if source == "first" and k >= 20:
            continue
        if bench.send(moved(0.0), source).is_accepted:
            heard.append(source)
    changes = sum(a != b for a, b in pairwise(heard))
    assert changes == 1
    assert (heard[0], heard[-1]) == ("first", "second")
    assert bench.guard.counters.foreign > 0


def test_a_lost_source_is_held_and_frees_the_lease_at_once() -> None:
    bench = Bench()
    bench.send(moved(STEP_RAD), "first")
    bench.tick(8)
    bench.guard.lose_source(bench.now_ns)
    assert bench.guard.state is GuardState.HOLDING
    track = bench.tick(10)[:, 3]
    assert track[-1] == track[-2] < MIDDLE[3] + STEP_RAD
    assert bench.send(moved(0.0), "second").is_accepted


def test_the_emergency_stop_freezes_at_once_latches_and_needs_release_and_rearm() -> None:
    bench = Bench()
    bench.beats = False
    bench.tick(2)
    bench.send(moved(STEP_RAD))
    before = bench.tick(9)[-1]
    assert before[3] > MIDDLE[3]
    bench.beats = True
    assert (bench.tick(20) == before).all()
    assert bench.guard.state is GuardState.EMERGENCY_STOP
    assert bench.send(moved(0.0)).refusal is Refusal.EMERGENCY_STOP
    assert not bench.guard.rearm(before, bench.now_ns, bench.steady_s)[0]
    bench.beats = False
    assert (bench.tick(20) == before).all()
    assert bench.send(moved(0.0)).refusal is Refusal.EMERGENCY_STOP
    done, _ = bench.guard.rearm(before, bench.now_ns, bench.steady_s)
    assert done
    assert (bench.tick(5) == before).all()
    assert bench.send(moved(0.0)).is_accepted


def test_a_lost_emergency_stop_heartbeat_is_a_press() -> None:
    bench = Bench()
    bench.beats = False
    bench.tick(10)
    bench.beats = None
    bench.tick(21)
    assert bench.guard.state is GuardState.HOLDING
    bench.tick(3)
    assert bench.guard.state is GuardState.EMERGENCY_STOP
    assert not bench.guard.rearm(MIDDLE, bench.now_ns, bench.steady_s)[0]
    bench.beats = False
    bench.tick(20)
    assert bench.guard.state is GuardState.EMERGENCY_STOP
    assert bench.guard.rearm(MIDDLE, bench.now_ns, bench.steady_s)[0]


def test_a_slow_simulation_does_not_slow_the_emergency_stop() -> None:
    bench = Bench()
    bench.guard.pace(float("inf"))
    bench.beats = False
    bench.tick(1)
    for _ in range(25):
        bench.steady_s += 0.01
        bench.guard.watch(bench.now_ns, bench.steady_s)
    assert bench.guard.state is GuardState.EMERGENCY_STOP


def test_a_required_emergency_stop_must_be_heard_and_rearmed_first() -> None:
    bench = Bench(requires_emergency_stop=True)
    assert bench.send(moved(0.1)).refusal is Refusal.EMERGENCY_STOP
    assert not bench.guard.rearm(MIDDLE, bench.now_ns, bench.steady_s)[0]
    bench.beats = False
    bench.tick(3)
    assert bench.guard.rearm(MIDDLE, bench.now_ns, bench.steady_s)[0]
    assert bench.send(moved(0.1)).is_accepted


def test_a_fault_stops_until_rearmed_and_survives_a_scene_reset() -> None:
    bench = Bench()
    bench.send(moved(STEP_RAD))
    bench.tick(8)
    bench.guard.stop("servo overheated", bench.now_ns)
    assert bench.send(moved(0.0)).refusal is Refusal.STOPPED
    with pytest.raises(RuntimeError, match="servo overheated"):
        bench.guard.restart(MIDDLE, bench.now_ns, "scene reset")
    rest = bench.tick(12)
    assert (rest[-1] == rest[-2]).all()
    assert bench.guard.rearm(rest[-1], bench.now_ns, bench.steady_s)[0]
    assert bench.send(moved(0.0)).is_accepted


def test_a_rearm_stands_where_the_joints_are_not_where_they_were_sent() -> None:
    bench = Bench()
    bench.guard.stop("fault", bench.now_ns)
    sagged = MIDDLE - 0.05
    bench.guard.rearm(sagged, bench.now_ns, bench.steady_s)
    np.testing.assert_array_equal(bench.tick(5), np.tile(sagged, (5, 1)))


def test_after_a_restart_that_took_time_commands_from_before_are_stale() -> None:
    bench = Bench()
    bench.tick(3)
    before_ns = bench.now_ns
    bench.now_ns += 12 * STEP_NS
    bench.guard.restart(CUP, bench.now_ns, "scene reset")
    bench.tick(1)
    assert bench.send(CUP, stamp_ns=before_ns).refusal is Refusal.STALE
    assert bench.send(CUP).is_accepted


def test_a_restart_forgets_source_and_motion_but_not_the_order_of_stamps() -> None:
    bench = Bench()
    bench.send(moved(STEP_RAD), "first")
    bench.tick(8)
    bench.guard.restart(CUP, bench.now_ns, "scene reset")
    assert (bench.tick(20) == CUP).all()
    assert bench.send(CUP, "second").is_accepted
    assert bench.send(CUP, "second").refusal is Refusal.REPEATED


@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.parametrize("lag_ticks", [0, 40])
def test_a_clock_step_neither_stops_nor_moves_anything(hours: int, lag_ticks: int) -> None:
    """The source follows the step at once, or goes on with the old clock for 0.4 s."""
    steady, stepped = Bench(), Bench()
    steady.beats = stepped.beats = False
    source_offset = 0
    for k in range(12):
        if k == 4:
            stepped.now_ns += hours * HOUR_NS
        if k * 10 >= 40 + lag_ticks:
            source_offset = hours * HOUR_NS
        stamp = steady.now_ns + source_offset
        assert steady.send(moved(0.02 * k)).is_accepted
        assert stepped.send(moved(0.02 * k), stamp_ns=stamp).is_accepted
        np.testing.assert_array_equal(steady.tick(10), stepped.tick(10))
        assert stepped.guard.state is GuardState.ACTIVE
    assert stepped.guard.counters.refused == stepped.guard.counters.holds == 0


@pytest.mark.parametrize(
    "bad", [np.zeros(23), np.full(24, np.nan), np.zeros((24, 1))], ids=["length", "nan", "shape"]
)
def test_an_unusable_position_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="position"):
        CommandGuard(HAND24, GuardSettings(), bad)


def test_unusable_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="lease_s"):
        GuardSettings(lease_s=0.01)
    with pytest.raises(ValueError, match="joint_speed"):
        GuardSettings(joint_speed=float("nan"))


def test_a_source_that_asks_for_a_hold_is_braked_at_once_and_may_go_on() -> None:
    bench = Bench()
    for k in range(1, 4):
        bench.send(moved(k * STEP_RAD))
        bench.tick(10)
    assert bench.guard.submit_hold("other", bench.now_ns, bench.steady_s).refusal is Refusal.FOREIGN
    assert bench.guard.submit_hold("", bench.now_ns, bench.steady_s).refusal is Refusal.UNNAMED
    assert bench.guard.state is GuardState.ACTIVE
    bench.guard.take_changes()
    verdict = bench.guard.submit_hold("planner", bench.now_ns, bench.steady_s)
    assert verdict.is_accepted
    assert bench.guard.state is GuardState.HOLDING
    (change,) = bench.guard.take_changes()
    rest = bench.tick(8)
    # The last command was not in force yet.
    np.testing.assert_array_equal(rest[3:], np.tile(change.goal, (5, 1)))
    assert bench.send(change.goal + 0.01).is_accepted
    assert bench.guard.state is GuardState.ACTIVE


def test_a_hold_that_is_asked_for_while_held_tells_the_goal_again() -> None:
    bench = Bench()
    bench.tick(2)
    bench.guard.take_changes()
    assert bench.guard.submit_hold("planner", bench.now_ns, bench.steady_s).is_accepted
    (change,) = bench.guard.take_changes()
    np.testing.assert_array_equal(change.goal, MIDDLE)
    bench.guard.stop("fault", bench.now_ns)
    bench.guard.submit_hold("planner", bench.now_ns, bench.steady_s)
    assert bench.guard.state is GuardState.STOPPED


def test_a_command_in_the_midst_of_braking_begins_from_rest() -> None:
    bench = Bench()
    motion = [MIDDLE] * 3
    for k in range(1, 4):
        bench.send(moved(k * STEP_RAD))
        motion.extend(bench.tick(10))
    motion.extend(bench.tick(6))
    bench.guard.submit_hold("planner", bench.now_ns, bench.steady_s)
    motion.extend(bench.tick(1))
    assert bench.send(bench.guard.goal - STEP_RAD, stamp_ns=bench.now_ns).is_accepted
    motion.extend(bench.tick(30))
    for order, limit in enumerate((HAND24.velocity, HAND24.acceleration, HAND24.jerk), start=1):
        assert (np.abs(np.diff(motion, order, axis=0)) <= limit * 0.01**order + 1e-12).all()
