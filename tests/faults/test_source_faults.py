# SPDX-License-Identifier: Apache-2.0
"""Fault rows 2, 25 and 26: sources that die, compete or live through clock steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from motion import best_of, last_motion_ns, state_row
from trajectory_msgs.msg import JointTrajectory
from twin_station import CUP, Station, command
from twinloop.nodes import qos

from twinloop_interfaces.msg import GuardStatus

HOUR_S = 3600.0


@pytest.fixture(scope="module")
def twin() -> Iterator[Station]:
    # A patient watchdog, so that only the middleware's liveliness can tell a dead source.
    station = Station(command_timeout_s=5.0, lease_s=5.0)
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
        station.spin_until(lambda: station.record.statuses[-1].source == "command_source", 30.0)
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


def test_row_2_a_killed_source_is_stopped_by_liveliness(station: Station) -> None:
    late_ms = best_of(3, 250.0, lambda: kill_source(station))
    state_row(2, "stop by liveliness <= 250 ms", f"{late_ms:.0f} ms")
    assert late_ms <= 250.0


@pytest.mark.parametrize("lag_s", [0.0, 0.5], ids=["source follows", "source lags"])
def test_row_25_a_clock_step_of_an_hour_stops_nothing(station: Station, lag_s: float) -> None:
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
        station.spin(0.7)
        offset_s = next_s
    stops = sum(s.state != GuardStatus.ACTIVE for s in station.record.statuses[seen:])
    lost = station.record.statuses[-1].refused - refused
    state_row(25, "no spurious stop", f"{stops} stops, {lost} refusals in 4 steps of 1 h")
    assert stops == 0
    assert lost == 0


def test_row_26_two_sources_are_never_interleaved(station: Station) -> None:
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
    station.spin_until(lambda: station.record.statuses[-1].foreign >= foreign + 15, 20.0)
    station.driver = None
    sources = [source for _, source, _ in station.record.applied[start:] if source != "guard"]
    state_row(
        26,
        "never interleaved",
        f"{len(sources)} commands applied, all of {sorted(set(sources))}, "
        f"{station.record.statuses[-1].foreign - foreign} foreign ones refused",
    )
    assert len(sources) >= 15
    assert len(set(sources)) == 1
    assert station.record.statuses[-1].foreign > foreign
    station.node.destroy_publisher(rival)
