# SPDX-License-Identifier: Apache-2.0
"""Fault rows 2, 25 and 26: sources that die, compete or live through clock steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from motion import last_motion_ns
from rows import Row
from trajectory_msgs.msg import JointTrajectory
from twin_station import CUP, Station, command
from twinloop.nodes import qos

from twinloop_interfaces.msg import GuardStatus

HOUR_S = 3600.0


@pytest.fixture(scope="module")
def twin() -> Iterator[Station]:
    # Patient watchdogs, so that only the middleware's liveliness can tell a dead source; a step of
    # the clock by an hour would set them off all the same.
    station = Station(command_timeout_s=5.0, lease_s=5.0, emergency_stop_timeout_s=5.0)
    yield station
    station.close()


@pytest.fixture
def station(twin: Station) -> Station:
    twin.press(False)
    twin.spin(0.1)
    assert twin.rearm().success
    assert twin.reset().success
    twin.spin(0.2)
    return twin


def kill_source(station: Station) -> float:
    """Kill a source in motion; ms from then to the stop."""
    source = station.start("command_source")
    try:
        station.spin_until(lambda: station.record.statuses[-1].source == "command_source", 120.0)
        count = len(station.record.applied)
        station.spin_until(lambda: len(station.record.applied) >= count + 3)
    finally:
        source.send_signal(signal.SIGKILL)
        killed_ns = station.now_ns
        source.wait()
    station.spin_until(lambda: station.state == GuardStatus.HOLDING)
    status = station.record.statuses[-1]
    assert status.reason == "command source lost"
    assert status.source == ""
    station.spin(0.2)
    stopped_ns = last_motion_ns(station.record.setpoints, killed_ns)
    held_ns = status.stamp.sec * 10**9 + status.stamp.nanosec
    return (max(stopped_ns, held_ns) - killed_ns) * 1e-6


@pytest.mark.fault(2, "twin")
def test_row_2_a_killed_source_is_stopped_by_liveliness(row: Row, station: Station) -> None:
    row.measure("still after", lambda: kill_source(station), "ms", at_most=250.0)


@pytest.mark.fault(25, "twin")
@pytest.mark.parametrize("lag_s", [0.0, 0.5], ids=["source follows", "source lags"])
def test_row_25_a_clock_step_of_an_hour_stops_nothing(
    row: Row, station: Station, lag_s: float
) -> None:
    """Up an hour and back and down, while a source commands and the emergency stop beats."""
    station.drive(lambda k: CUP + 0.05 * np.sin(0.5 * k))
    station.spin_until(lambda: station.state == GuardStatus.ACTIVE)
    seen = len(station.record.statuses)
    refused = station.record.statuses[-1].refused
    offset_s = 0.0
    for next_s in (HOUR_S, 0.0, -HOUR_S, 0.0):
        before_ns = station.now_ns
        if lag_s:
            station.clock_lag_ns = round((next_s - offset_s) * 1e9)
        station.set_parameter("clock_offset_s", next_s)
        station.spin_until(lambda before=before_ns: abs(station.now_ns - before) > 10**12)
        station.spin(lag_s)
        station.clock_lag_ns = 0
        station.spin(0.4)
        offset_s = next_s
    stops = sum(s.state != GuardStatus.ACTIVE for s in station.record.statuses[seen:])
    lost = station.record.statuses[-1].refused - refused
    source = "a source that lags" if lag_s else "a source that follows"
    row.measured(f"stops in 4 steps, {source}", stops, at_most=0)
    row.measured(f"refusals, {source}", lost, at_most=0)


@pytest.mark.fault(26, "twin")
def test_row_26_two_sources_are_never_interleaved(row: Row, station: Station) -> None:
    rival = station.node.create_publisher(JointTrajectory, "command", qos.COMMAND)
    station.spin_until(lambda: rival.get_subscription_count() > 0)
    start = len(station.record.applied)
    foreign = station.record.statuses[-1].foreign

    def both(k: int) -> np.ndarray:
        stamp_ns = station.now_ns
        rival.publish(command(CUP - 0.1, stamp_ns, "rival"))
        return CUP + 0.1

    station.drive(both)
    # The rival is heard from when the middleware has made it known, and refused or obeyed then on.
    station.spin_until(lambda: station.record.statuses[-1].foreign >= foreign + 15, 120.0)
    station.driver = None
    sources = [source for _, source, _ in station.record.applied[start:] if source != "guard"]
    row.measured("sources obeyed", len(set(sources)), at_most=1)
    row.measured("commands applied", len(sources), at_least=15)
    row.measured("foreign ones refused", station.record.statuses[-1].foreign - foreign, at_least=15)
    station.node.destroy_publisher(rival)
