# SPDX-License-Identifier: Apache-2.0
"""Fault rows 1 and 3 to 8: bad commands, and commands that cease, against a twin over DDS."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from motion import last_motion_ns, peak_rates, since
from rows import Row
from twin_station import CUP, NAMES, PERIOD_NS, Station, command
from twinloop.robots.hand24 import HAND24

from twinloop_interfaces.msg import GuardStatus

STEP_RAD = 0.15
LOWER, UPPER = HAND24.lower, HAND24.upper
MIDDLE = (LOWER + UPPER) / 2


@pytest.fixture(scope="module")
def twin() -> Iterator[Station]:
    station = Station()
    yield station
    station.close()


@pytest.fixture
def station(twin: Station) -> Station:
    assert twin.reset().success
    twin.spin(0.2)
    return twin


def assert_still(station: Station, since_ns: int, seconds: float = 0.3) -> None:
    station.spin(seconds)
    positions = since(station.record.setpoints, since_ns)
    assert len(positions) > 10
    assert np.isfinite(positions).all()
    assert (positions == positions[0]).all()


def freeze(station: Station) -> float:
    """Drive at full speed, cease; ms from the missed turn to the end of all motion."""
    station.drive(lambda k: MIDDLE + (k + 1) * STEP_RAD if k < 4 else None)
    station.spin_until(lambda: station.commanded and station.driver is None)
    due_ns = station.commanded[-1] + PERIOD_NS
    seen = len(station.record.statuses)
    station.spin(0.5)
    holds = [s for s in station.record.statuses[seen:] if s.state == GuardStatus.HOLDING]
    assert holds
    assert "silent" in holds[0].reason
    held_ns = holds[0].stamp.sec * 10**9 + holds[0].stamp.nanosec
    stopped_ns = last_motion_ns(station.record.setpoints, due_ns - PERIOD_NS)
    return max(held_ns, stopped_ns) * 1e-6 - due_ns * 1e-6


@pytest.mark.fault(1, "twin")
def test_row_1_a_frozen_source_is_held(row: Row, station: Station) -> None:
    row.measure("hold after the missed turn", lambda: freeze(station), "ms", at_most=100.0)
    station.drive(lambda k: station.record.setpoints[-1][1] if k < 3 else None)
    station.spin_until(lambda: station.driver is None)
    station.spin_until(lambda: station.state == GuardStatus.ACTIVE)


@pytest.mark.fault(3, "twin")
def test_row_3_no_element_that_is_not_finite_gets_through(row: Row, station: Station) -> None:
    start_ns = station.now_ns
    counted = station.record.statuses[-1].non_finite
    values = (np.nan, np.inf, -np.inf)
    for joint, name in enumerate(NAMES):
        targets = CUP + 0.1
        targets[joint] = values[joint % 3]
        reason = station.send_refused(command(targets, station.now_ns, "tester"))
        assert "non-finite" in reason
        assert name in reason
    assert_still(station, start_ns)
    got = station.record.statuses[-1].non_finite - counted
    row.measured("refused without motion and counted, of 24", got, at_least=24)
    assert got == 24


@pytest.mark.fault(4, "twin")
def test_row_4_wrong_lengths_and_names_are_refused_whole(row: Row, station: Station) -> None:
    start_ns = station.now_ns
    goal = list(CUP + 0.1)
    bad = [
        (goal[:-1], NAMES),
        ([*goal, 0.0], NAMES),
        ([], NAMES),
        (goal[:-1], NAMES[:-1]),
        (goal, []),
        (goal, [*NAMES[:-1], "elbow"]),
        (goal, [*NAMES[:-1], NAMES[0]]),
        ([*goal, 0.0], [*NAMES, NAMES[0]]),
    ]
    for targets, names in bad:
        reason = station.send_refused(command(targets, station.now_ns, "tester", names))
        assert reason.startswith(("wrong length", "wrong joint names"))
    several = command(goal, station.now_ns, "tester")
    several.points *= 2
    assert "one trajectory point" in station.send_refused(several)
    assert_still(station, start_ns)
    row.measured("refused without motion, of 9", len(bad) + 1, at_least=9)


@pytest.mark.fault(5, "twin")
def test_row_5_stale_stamps_are_dropped(row: Row, station: Station) -> None:
    start_ns = station.now_ns
    ages_s = (0.25, 0.5, 1.0, 3600.0, -0.2, -3600.0)
    for age_s in ages_s:
        stamp = station.now_ns - round(age_s * 1e9)
        reason = station.send_refused(command(CUP + 0.1, stamp, "tester"))
        assert "stale" in reason if age_s > 0 else "future" in reason
    assert_still(station, start_ns)
    row.measured("dropped without motion, of 6", len(ages_s), at_least=6)


@pytest.fixture(scope="module")
def sweep(twin: Station) -> list[tuple[int, np.ndarray]]:
    """Ask for 10 rad beyond all limits, up and down; setpoints since the start."""
    assert twin.reset().success
    twin.spin(0.2)
    start_ns = twin.now_ns
    clamped = twin.record.statuses[-1].clamped
    twin.drive(lambda k: np.full(24, 10.0 if k < 15 else -10.0) if k < 30 else None)
    twin.spin_until(lambda: twin.commanded and twin.driver is None)
    twin.spin(0.5)
    assert twin.record.statuses[-1].clamped > clamped
    return [sample for sample in twin.record.setpoints if sample[0] > start_ns]


@pytest.mark.fault(6, "twin")
def test_row_6_targets_beyond_a_limit_are_clamped(
    row: Row, sweep: list[tuple[int, np.ndarray]]
) -> None:
    setpoints = since(sweep, 0)
    outside = int(((setpoints < LOWER) | (setpoints > UPPER)).sum())
    row.measured(f"samples outside, of {setpoints.size}", outside, at_most=0)
    assert len(setpoints) > 250
    np.testing.assert_allclose(setpoints.max(axis=0), UPPER, atol=1e-9)
    np.testing.assert_allclose(setpoints.min(axis=0), LOWER, atol=1e-9)


@pytest.mark.fault(8, "twin")
def test_row_8_full_speed_ends_inside_the_limit(
    row: Row, sweep: list[tuple[int, np.ndarray]]
) -> None:
    setpoints = since(sweep, 0)
    overrun = max(float((setpoints - UPPER).max()), float((LOWER - setpoints).max()))
    row.measured("speed on the way", peak_rates(sweep)[0].max(), "rad/s", at_least=1.4)
    row.measured("beyond the limit", max(overrun, 0.0), "rad", at_most=0.0)


@pytest.mark.fault(7, "twin")
def test_row_7_a_velocity_step_is_limited_to_acceleration_and_jerk(
    row: Row, station: Station
) -> None:
    start_ns = station.now_ns
    limited = station.record.statuses[-1].limited
    station.drive(lambda k: MIDDLE + (1.0 if k % 4 < 2 else -1.0) if k < 20 else None)
    station.spin_until(lambda: station.commanded and station.driver is None)
    station.spin(0.5)
    assert station.record.statuses[-1].limited > limited
    samples = [sample for sample in station.record.setpoints if sample[0] > start_ns]
    shares = [
        float((peak / limit).max())
        for peak, limit in zip(
            peak_rates(samples), (HAND24.velocity, HAND24.acceleration, HAND24.jerk), strict=True
        )
    ]
    for name, share in zip(("velocity", "acceleration", "jerk"), shares, strict=True):
        row.measured(f"{name} in its limit", 100 * share, "%", at_most=100.0 + 1e-4)
    assert shares[1] > 0.5
