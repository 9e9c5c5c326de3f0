# SPDX-License-Identifier: Apache-2.0
"""Fault rows 12 and 13: the emergency stop, pressed and silent, against a twin over DDS."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from motion import last_motion_ns, since
from rows import Row
from twin_station import Station, command
from twinloop.robots.hand24 import HAND24

from twinloop_interfaces.msg import GuardStatus

MIDDLE = (HAND24.lower + HAND24.upper) / 2


@pytest.fixture(scope="module")
def twin() -> Iterator[Station]:
    station = Station()
    yield station
    station.close()


@pytest.fixture
def station(twin: Station) -> Station:
    assert twin.reset().success
    twin.press(False)
    twin.spin(0.2)
    return twin


def set_in_motion(station: Station) -> None:
    """All joints swing; returns amid a motion."""
    station.drive(lambda k: MIDDLE + (1.0 if k % 8 < 4 else -1.0))
    station.spin_until(lambda: len(station.commanded) >= 3, 120.0)
    station.spin_until(lambda: is_moving(station), 120.0)


def is_moving(station: Station) -> bool:
    (_, before), (_, now) = station.record.setpoints[-2:]
    return bool(np.abs(now - before).max() > 0.005)


def stays_stopped(station: Station) -> None:
    """Commands go on and are refused; nothing moves."""
    start_ns, refused = station.now_ns, station.record.statuses[-1].refused
    station.spin(0.6)
    positions = since(station.record.setpoints, start_ns)
    assert (positions == positions[0]).all()
    assert station.state == GuardStatus.EMERGENCY_STOP
    assert station.record.statuses[-1].refused > refused
    assert "emergency stop" in station.record.statuses[-1].last_refusal


def rearm_and_move(station: Station) -> None:
    """An explicit re-arm ends it; no joint jumps by it, and commands are applied again."""
    answer = station.rearm()
    assert answer.success, answer.message
    station.spin_until(lambda: station.state != GuardStatus.EMERGENCY_STOP)
    station.spin_until(lambda: station.state == GuardStatus.ACTIVE)
    station.spin_until(lambda: is_moving(station), 120.0)
    station.driver = None


def press(station: Station) -> float:
    """Press amid a motion; ms from then to the end of all motion."""
    set_in_motion(station)
    pressed_ns = station.now_ns
    station.press(True)
    station.spin_until(lambda: station.state == GuardStatus.EMERGENCY_STOP)
    stays_stopped(station)
    stopped_ns = last_motion_ns(station.record.setpoints, pressed_ns)
    assert not station.rearm().success
    station.press(False)
    stays_stopped(station)
    rearm_and_move(station)
    return (stopped_ns - pressed_ns) * 1e-6


@pytest.mark.fault(12, "twin")
def test_row_12_a_press_stops_within_a_cycle_and_latches(row: Row, station: Station) -> None:
    row.measure("latched and still after", lambda: press(station), "ms", at_most=100.0)


def fall_silent(station: Station) -> float:
    """Let the heartbeat cease amid a motion; ms from the last beat to the stop."""
    set_in_motion(station)
    station.press(False)
    station.beats = None
    silent_ns = station.now_ns
    station.spin_until(lambda: station.state == GuardStatus.EMERGENCY_STOP)
    status = station.record.statuses[-1]
    assert status.reason == "emergency-stop heartbeat lost"
    stopped_ns = status.stamp.sec * 10**9 + status.stamp.nanosec
    stays_stopped(station)
    stopped_ns = max(stopped_ns, last_motion_ns(station.record.setpoints, silent_ns))
    assert not station.rearm().success
    station.press(False)
    stays_stopped(station)
    rearm_and_move(station)
    return (stopped_ns - silent_ns) * 1e-6


@pytest.mark.fault(13, "twin")
def test_row_13_a_lost_heartbeat_is_a_press(row: Row, station: Station) -> None:
    row.measure("latched and still after", lambda: fall_silent(station), "ms", at_most=250.0)


def test_a_scene_reset_does_not_end_an_emergency_stop(station: Station) -> None:
    station.press(True)
    station.spin_until(lambda: station.state == GuardStatus.EMERGENCY_STOP)
    result = station.reset()
    assert not result.success
    assert "re-arm" in result.message
    assert station.state == GuardStatus.EMERGENCY_STOP
    station.press(False)
    assert station.rearm().success
    reason = station.send_refused(command(MIDDLE, 0, "tester"))
    assert "stale" in reason
