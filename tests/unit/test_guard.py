# SPDX-License-Identifier: Apache-2.0
"""The command guard: what it lets through, what it changes, when it stops."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinloop.robots.hand24 import HAND24, JOINT_NAMES
from twinloop.safety.guard import CommandGuard
from twinloop.safety.verdict import GuardSettings, GuardState, Refusal, Verdict

TICK_NS = 10_000_000
STEP_NS = 10 * TICK_NS
HOUR_NS = 3600 * 10**9
NAMES = list(JOINT_NAMES)
CUP = HAND24.poses["cup"]
MIDDLE = (HAND24.lower + HAND24.upper) / 2
STEP_RAD = 0.15


class Bench:
    """A guard with a hand on its clocks: ROS time and steady time advance tick by tick."""

    def __init__(self, position: np.ndarray = MIDDLE, **changes: object) -> None:
        self.now_ns = 50 * 10**9
        self.steady_s = 7.0
        self.beats: bool | None = None
        self.guard = CommandGuard(
            HAND24,
            dataclasses.replace(GuardSettings(), **changes),
            position,  # type: ignore[arg-type]
        )

    def send(self, targets: np.ndarray, source: str = "planner", **changes: object) -> Verdict:
        command = {"names": NAMES, "positions": targets, "stamp_ns": self.now_ns} | changes
        return self.guard.submit(
            source=source,
            now_ns=self.now_ns,
            steady_s=self.steady_s,
            **command,  # type: ignore[arg-type]
        )

    def tick(self, ticks: int = 1, rtf: float = 1.0) -> np.ndarray:
        """Applied positions [ticks, J], rad."""
        applied = []
        for _ in range(ticks):
            if self.beats is not None:
                self.guard.emergency_stop(self.beats, self.now_ns, self.steady_s)
            applied.append(self.guard.tick(self.now_ns, self.steady_s))
            self.now_ns += TICK_NS
            for _ in range(max(1, round(0.5 / rtf))):
                self.steady_s += min(0.02, 0.01 / rtf)
                self.guard.watch(self.now_ns, self.steady_s)
        return np.array(applied)


def moved(value: float, joint: int = 3) -> np.ndarray:
    targets = MIDDLE.copy()
    targets[joint] += value
    return targets


def test_nothing_moves_before_the_first_command() -> None:
    bench = Bench(CUP)
    np.testing.assert_array_equal(bench.tick(30), np.tile(CUP, (30, 1)))
    assert bench.guard.state is GuardState.HOLDING


def test_a_command_takes_effect_after_the_delay_and_is_reached() -> None:
    bench = Bench()
    verdict = bench.send(moved(0.1))
    assert verdict.is_accepted
    np.testing.assert_array_equal(verdict.goal, moved(0.1))
    applied = bench.tick(18)
    assert (applied[:5] == MIDDLE).all()
    assert applied[5, 3] > MIDDLE[3]
    np.testing.assert_allclose(applied[-1], moved(0.1), atol=1e-12)


def test_a_late_command_takes_effect_on_arrival() -> None:
    bench = Bench()
    bench.tick(7)
    bench.send(moved(0.1), stamp_ns=bench.now_ns - 7 * TICK_NS)
    assert bench.tick(1)[0, 3] > MIDDLE[3]


def test_until_a_new_command_takes_effect_the_last_one_goes_on() -> None:
    bench = Bench()
    bench.send(moved(STEP_RAD))
    bench.tick(10)
    bench.send(moved(0.0))
    applied = bench.tick(7)[:, 3]
    assert (np.diff(applied[:5]) >= 0).all()
    assert applied[4] > applied[0]


def test_complete_names_in_another_order_are_put_in_order() -> None:
    bench = Bench()
    order = np.random.default_rng(0).permutation(24)
    targets = MIDDLE + np.linspace(-0.1, 0.1, 24)
    targets = np.clip(targets, HAND24.lower, HAND24.upper)
    verdict = bench.send(targets[order], names=[NAMES[i] for i in order])
    np.testing.assert_allclose(verdict.goal, targets, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"positions": MIDDLE[:-1]}, Refusal.LENGTH),
        ({"positions": np.append(MIDDLE, 0.0)}, Refusal.LENGTH),
        ({"positions": []}, Refusal.LENGTH),
        ({"positions": MIDDLE[None]}, Refusal.LENGTH),
        ({"names": NAMES[:-1]}, Refusal.NAMES),
        ({"names": []}, Refusal.NAMES),
        ({"names": [*NAMES, NAMES[0]]}, Refusal.NAMES),
        ({"names": [*NAMES[:-1], NAMES[0]]}, Refusal.NAMES),
        ({"names": [*NAMES[:-1], "elbow"]}, Refusal.NAMES),
        ({"source": ""}, Refusal.UNNAMED),
    ],
)
def test_a_malformed_command_is_refused_whole(changes: dict, refusal: Refusal) -> None:
    bench = Bench()
    verdict = bench.send(**({"targets": moved(0.1)} | changes))
    assert verdict.refusal is refusal
    assert verdict.goal is None
    assert str(refusal) in bench.guard.last_refusal
    assert (bench.tick(30) == MIDDLE).all()
    assert bench.guard.counters.refused == bench.guard.counters.by_reason[refusal] == 1


@settings(max_examples=60, deadline=None)
@given(
    joints=st.sets(st.integers(0, 23), min_size=1),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_a_non_finite_element_anywhere_is_refused_and_named(joints: set[int], value: float) -> None:
    bench = Bench()
    targets = moved(0.1)
    targets[list(joints)] = value
    verdict = bench.send(targets)
    assert verdict.refusal is Refusal.NON_FINITE
    assert all(NAMES[joint] in verdict.detail for joint in joints)
    assert bench.guard.counters.non_finite == 1
    assert (bench.tick(12) == MIDDLE).all()


def test_absurd_but_finite_targets_are_clamped_and_limited() -> None:
    verdict = Bench().send(np.full(24, 1e308))
    assert verdict.clamped == verdict.limited == JOINT_NAMES
    assert (np.abs(verdict.goal - MIDDLE) <= STEP_RAD + 1e-12).all()


@pytest.mark.parametrize(
    ("offset_ns", "refusal"),
    [
        (-201_000_000, Refusal.STALE),
        (-10 * 10**9, Refusal.STALE),
        (60_000_000, Refusal.FUTURE),
        (HOUR_NS, Refusal.FUTURE),
    ],
)
def test_stale_and_future_stamps_are_refused(offset_ns: int, refusal: Refusal) -> None:
    bench = Bench()
    assert bench.send(moved(0.1), stamp_ns=bench.now_ns + offset_ns).refusal is refusal
    assert bench.guard.counters.stale == 1
    assert (bench.tick(20) == MIDDLE).all()


def test_a_repeated_or_older_stamp_is_refused() -> None:
    bench = Bench()
    stamp = bench.now_ns
    assert bench.send(moved(0.1)).is_accepted
    bench.tick(5)
    assert bench.send(moved(0.0), stamp_ns=stamp).refusal is Refusal.REPEATED
    assert bench.send(moved(0.0), stamp_ns=stamp - STEP_NS).refusal is Refusal.REPEATED
    np.testing.assert_allclose(bench.tick(13)[-1], moved(0.1), atol=1e-12)


def test_a_target_outside_the_limits_is_clamped_and_named() -> None:
    bench = Bench(HAND24.upper - 0.05)
    targets = HAND24.upper - 0.05
    targets[4] = HAND24.upper[4] + 0.3
    verdict = bench.send(targets)
    assert verdict.clamped == (NAMES[4],)
    assert verdict.goal is not None
    assert verdict.goal[4] == HAND24.upper[4]
    assert "outside the limits" in verdict.detail
    assert bench.guard.counters.clamped == 1
    assert (bench.tick(30) <= HAND24.upper).all()


def test_a_target_too_far_away_is_limited_to_one_step_and_named() -> None:
    bench = Bench()
    verdict = bench.send(moved(0.5))
    assert verdict.limited == (NAMES[3],)
    assert verdict.goal is not None
    assert verdict.goal[3] == pytest.approx(MIDDLE[3] + STEP_RAD)
    assert bench.guard.counters.limited == 1
    bench.tick(10)
    verdict = bench.send(moved(0.5))
    assert verdict.goal is not None
    assert verdict.goal[3] == pytest.approx(MIDDLE[3] + 2 * STEP_RAD)


def test_float32_rounding_of_a_full_step_is_not_reported() -> None:
    bench = Bench(MIDDLE.astype(np.float32).astype(np.float64))
    targets = (MIDDLE.astype(np.float32) + np.float32(STEP_RAD)).astype(np.float64)
    verdict = bench.send(np.minimum(targets, HAND24.upper + 1e-7))
    assert verdict.limited == verdict.clamped == ()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.05, 20.0))
def test_no_command_stream_breaks_a_limit(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    bench = Bench(CUP)
    applied = [CUP, CUP, CUP]
    for _ in range(15):
        bench.send(rng.normal(MIDDLE, spread))
        applied.extend(bench.tick(int(rng.integers(3, 14))))
    motion = np.array(applied)
    assert (motion >= HAND24.lower).all()
    assert (motion <= HAND24.upper).all()
    for order, limit in enumerate((HAND24.velocity, HAND24.acceleration, HAND24.jerk), start=1):
        assert (np.abs(np.diff(motion, order, axis=0)) <= limit * 0.01**order + 1e-12).all()


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
