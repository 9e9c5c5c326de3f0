# SPDX-License-Identifier: Apache-2.0
"""Control steps on stamps: due times, jumps, missed steps and lateness."""

import pytest
from twinloop.planners.schedule import Lateness, StepSchedule

MS = 1_000_000


def test_a_step_is_due_once_a_period_whatever_the_sensor_rate() -> None:
    schedule = StepSchedule(100 * MS)
    stamps = range(5_030 * MS, 6_030 * MS, 10 * MS)
    due = [d for s in stamps for repeat in (s, s) if (d := schedule.due(repeat)) is not None]
    assert due == list(range(5_030 * MS, 6_030 * MS, 100 * MS))
    assert schedule.skipped == 0


def test_missed_steps_are_skipped_and_counted_and_the_grid_stays() -> None:
    schedule = StepSchedule(100 * MS)
    schedule.due(0)
    assert schedule.due(450 * MS) == 400 * MS
    assert schedule.skipped == 3
    assert schedule.due(490 * MS) is None
    assert schedule.due(500 * MS) == 500 * MS


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_jump_of_the_clock_starts_the_schedule_anew(jump_s: int) -> None:
    schedule = StepSchedule(100 * MS)
    start = 10_000 * 10**9
    schedule.due(start)
    after = start + jump_s * 10**9 + 37 * MS
    assert schedule.due(after) == after
    assert schedule.due(after + 90 * MS) is None
    assert schedule.due(after + 100 * MS) == after + 100 * MS
    assert schedule.skipped == 0


@pytest.mark.parametrize("pace", [0.1, 1.0, 4.0])
def test_lateness_is_the_delay_over_the_quickest_delivery(pace: float) -> None:
    lateness = Lateness(pace)
    for k in range(300):
        jitter = 0.0 if k % 7 == 0 else 0.004
        lateness.observe(k * 10 * MS, 50.0 + k * 0.01 / pace + 0.001 + jitter)
    assert lateness.of(3_000 * MS, 50.0 + 3.0 / pace + 0.001) == pytest.approx(0.0, abs=1e-6)
    assert lateness.of(3_000 * MS, 50.0 + 3.0 / pace + 0.013) == pytest.approx(0.012, abs=1e-6)


def test_lateness_forgets_deliveries_outside_its_window() -> None:
    lateness = Lateness(1.0, window=10)
    lateness.observe(0, 0.0)
    for k in range(1, 20):
        lateness.observe(k * 10 * MS, k * 0.01 + 0.005)
    assert lateness.of(200 * MS, 0.205) == pytest.approx(0.0, abs=1e-9)
