# SPDX-License-Identifier: Apache-2.0
"""Watchdogs expire on the steady clock, and clock steps are told from stale stamps."""

from __future__ import annotations

import pytest
from twinloop.safety.stamps import Freshness, StampJudge
from twinloop.safety.watchdog import Watchdog

SECOND = 10**9
HOUR = 3600 * SECOND


def test_it_expires_only_after_the_timeout_since_the_last_feeding() -> None:
    watchdog = Watchdog(0.2)
    watchdog.feed(10.0)
    assert not watchdog.is_expired(10.2)
    assert watchdog.is_expired(10.201)
    watchdog.feed(10.3)
    assert not watchdog.is_expired(10.45)
    assert watchdog.age_s(10.45) == pytest.approx(0.15)


def test_it_does_not_watch_before_the_first_feeding_nor_after_a_release() -> None:
    watchdog = Watchdog(0.2)
    assert not watchdog.is_expired(1e9)
    watchdog.feed(0.0)
    watchdog.release()
    assert not watchdog.is_watching
    assert not watchdog.is_expired(1e9)
    assert watchdog.age_s(5.0) == 0.0


def test_patience_scales_with_slow_simulation_and_may_be_endless() -> None:
    watchdog = Watchdog(0.2)
    watchdog.scale(10.0)
    watchdog.feed(0.0)
    assert not watchdog.is_expired(1.9)
    assert watchdog.is_expired(2.1)
    watchdog.scale(float("inf"))
    assert not watchdog.is_expired(1e9)


def test_excused_silence_does_not_count() -> None:
    watchdog = Watchdog(0.2)
    watchdog.feed(0.0)
    watchdog.excuse(0.5)
    assert not watchdog.is_expired(0.69)
    assert watchdog.is_expired(0.71)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_an_unusable_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Watchdog(timeout)


def test_an_unusable_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale"):
        Watchdog(1.0).scale(0.0)


def judge() -> StampJudge:
    return StampJudge(max_age_s=0.2, max_ahead_s=0.05, tick_s=0.01)


def test_stamps_are_fresh_within_their_age_and_stale_or_future_outside() -> None:
    stamps = judge()
    now = 1_000 * SECOND
    stamps.observe(now, 0.0)
    assert stamps.judge(now, now, 0.0) == (Freshness.FRESH, 0)
    assert stamps.judge(now - SECOND // 5, now, 0.0)[0] is Freshness.FRESH
    assert stamps.judge(now - SECOND // 5 - 1, now, 0.0)[0] is Freshness.STALE
    assert stamps.judge(now + SECOND // 20, now, 0.0)[0] is Freshness.FRESH
    assert stamps.judge(now + SECOND // 20 + 1, now, 0.0)[0] is Freshness.FUTURE


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_after_a_step_both_clocks_are_understood_for_a_second(step: int) -> None:
    stamps = judge()
    before = 10 * HOUR
    assert stamps.observe(before, 100.0) == 0
    after = before + step
    assert stamps.observe(after, 100.0) == step
    assert stamps.judge(after, after, 100.01) == (Freshness.FRESH, 0)
    assert stamps.judge(before, after, 100.01) == (Freshness.FRESH, 0)
    assert stamps.judge(before + SECOND, after + SECOND, 101.0)[0] is Freshness.FRESH
    assert stamps.judge(before + SECOND, after + SECOND, 101.02)[0] is not Freshness.FRESH
    assert stamps.judge(after + SECOND, after + SECOND, 101.02)[0] is Freshness.FRESH
    assert stamps.steps == 1


@pytest.mark.parametrize(
    ("ros_s", "steady_s"), [(0.01, 0.1), (0.0, 30.0), (0.01, 0.0005), (2.0, 2.0)]
)
def test_slow_paused_fast_and_stalled_clocks_are_no_steps(ros_s: float, steady_s: float) -> None:
    stamps = judge()
    for k in range(200):
        assert stamps.observe(round(k * ros_s * 1e9), k * steady_s) == 0
    assert stamps.steps == 0
