# SPDX-License-Identifier: Apache-2.0
"""The command guard: which commands it lets through, and what it changes."""

from __future__ import annotations

import numpy as np
import pytest
from guard_bench import CUP, HOUR_NS, MIDDLE, NAMES, STEP_NS, STEP_RAD, TICK_NS, Bench, moved
from hypothesis import given, settings
from hypothesis import strategies as st
from twinloop.robots.hand24 import HAND24, JOINT_NAMES
from twinloop.safety.verdict import GuardState, Refusal


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
