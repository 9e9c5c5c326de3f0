# SPDX-License-Identifier: Apache-2.0
"""Fault rows 9, 10, 14 to 17 and 30: servos on a bus that fail, and a loop that stalls.

Rows are measured from the injection to what the driver says or writes, on the steady clock, which
servos, node and station share.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from driver_station import SERVOS, DriverStation
from rows import Row
from twinloop.robots.leap import LEAP

from twinloop_interfaces.msg import GuardStatus

TICK_RAD = 2 * np.pi / 4096
START_RAD = (2200 - 2048) * TICK_RAD
PERIOD_S = 0.01
JOINT = 6


@pytest.fixture(scope="module")
def lab(is_kept: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriverStation]:
    # What a free machine does with; a busy one would find faults where there are none.
    answer_s, silent_s, watchdog_s = (0.012, 0.045, 0.2) if is_kept else (0.05, 0.4, 2.0)
    with SERVOS() as servos:
        settings = servos.settings
        servos.settings = lambda **changes: settings(
            answer_timeout_s=answer_s, bus_watchdog_s=watchdog_s, **changes
        )
        with DriverStation(servos, tmp_path_factory.mktemp("lab"), silent_s=silent_s) as made:
            made.wait_for_joints()
            made.beat(False)
            yield made


@pytest.fixture
def station(lab: DriverStation) -> DriverStation:
    heal(lab)
    return lab


def heal(station: DriverStation) -> None:
    """Mend the servos, and have node and guard go on."""
    station.drive(lambda k: None)
    servos = station.servos
    servos.do("silence", ids=[])
    servos.do("damage", corrupt=0, drop=0, partial=0, refuse=0)

    def is_running() -> bool:
        station.call("rearm")
        station.call("recover")
        return state(station) == "running" and station.guard.state in (
            GuardStatus.HOLDING,
            GuardStatus.ACTIVE,
        )

    station.until(is_running, 90.0)


def state(station: DriverStation) -> str:
    return station.values().get("driver", "")


def move(station: DriverStation) -> None:
    """Begin to move to and fro, and wait until the joints do."""
    station.drive(lambda k: np.full(16, START_RAD + 0.12 * (k % 2)))
    station.until(lambda: station.guard.state == GuardStatus.ACTIVE)
    begun = len(station.joints)
    station.until(lambda: np.ptp([j[0] for _, _, j in station.joints[begun:]] or [0.0]) > 0.05)


def stopped_ms(station: DriverStation, since_s: float, word: str) -> float:
    """Wait until the guard is stopped, for a reason with a word in it; ms since the injection."""
    station.until(lambda: station.guard.state == GuardStatus.STOPPED)
    assert word in station.guard.reason
    stops = [s for s, status in station.guards if s > since_s and status.state == 2]
    return (stops[0] - since_s) * 1e3


def goals_since(station: DriverStation, since_s: float) -> list[tuple[float, np.ndarray]]:
    return [(at, np.array(goal)) for at, goal in station.servos.do("goals") if at > since_s]


def silence(station: DriverStation, ids: list[int], word: str) -> float:
    heal(station)
    move(station)
    since_s = station.servos.do("silence", ids=ids)
    return stopped_ms(station, since_s, word)


@pytest.mark.fault(10, "Dynamixel bus")
def test_row_10_a_silent_bus_is_at_fault_within_100_ms(row: Row, station: DriverStation) -> None:
    row.measure(
        "fault after",
        lambda: silence(station, list(range(16)), "no good sample"),
        "ms",
        at_most=100.0,
        busy_at_most=1000.0,
    )
    # It answers again, and waits to be recovered.
    station.servos.do("silence", ids=[])
    station.until(lambda: station.values()["driver"] == "fault")
    assert "recover first" in station.call("rearm").message


@pytest.mark.fault(15, "Dynamixel bus")
def test_row_15_a_silent_servo_is_an_error_that_names_it(row: Row, station: DriverStation) -> None:
    def error_ms() -> float:
        heal(station)
        move(station)
        since_s = station.servos.do("silence", ids=[11])
        station.until(lambda: station.level == b"\2" and "rf_dip" in station.text)
        beats = [at for at, each in station.beats if at > since_s and each.level == b"\2"]
        return (beats[0] - since_s) * 1e3

    row.measure("ERROR that names it after", error_ms, "ms", at_most=500.0, busy_at_most=2000.0)


@pytest.mark.fault(14, "Dynamixel bus")
def test_row_14_damaged_packets_are_discarded_with_one_retry(
    row: Row, station: DriverStation
) -> None:
    kinds = ("corrupt", "partial", "drop") * 4

    def lost_samples() -> float:
        """Count what is lost; without an end where the machine itself stalled the loop."""
        heal(station)
        move(station)
        lost = int(station.values()["lost"])
        seen = len(station.joints)
        for damage in kinds:
            station.servos.do("damage", **{damage: 1})
            count = len(station.joints)
            station.until(
                lambda count=count: len(station.joints) >= count + 5 or state(station) == "fault"
            )
        positions = np.array([position for _, _, position in station.joints[seen:]])
        assert np.abs(positions - START_RAD).max() < 0.3
        station.until(lambda: state(station) in ("running", "fault"))
        if state(station) == "fault" or station.guard.state != GuardStatus.ACTIVE:
            return math.nan
        return float(int(station.values()["lost"]) - lost)

    row.measure("samples lost, of 12 damaged, none wrong", lost_samples, at_most=2)


def alert(station: DriverStation) -> float:
    heal(station)
    move(station)
    since_s = station.servos.do("alert", ids=[6], bits=0x20)
    late_ms = stopped_ms(station, since_s, "mf_pip: overload")
    station.until(lambda: station.text == "mf_pip: overload")
    return late_ms


@pytest.mark.fault(16, "Dynamixel bus")
def test_row_16_an_alert_stops_within_one_cycle_and_names_the_joint(
    row: Row, station: DriverStation
) -> None:
    # A cycle, the read of the reason, and the node's look every 20 ms.
    bound_ms = 1e3 * PERIOD_S + 30.0
    row.measure(
        "told with the joint after",
        lambda: alert(station),
        "ms",
        at_most=bound_ms,
        busy_at_most=200.0,
    )


@pytest.mark.fault(17, "Dynamixel bus")
def test_row_17_an_unplugged_port_is_left_and_opened_again(
    row: Row, station: DriverStation
) -> None:
    def unplug() -> tuple[float, float]:
        heal(station)
        move(station)
        since_s = station.servos.do("unplug")
        station.until(lambda: station.values()["state"] == "inactive" and station.level == b"\2")
        assert "is gone" in station.text
        beats = [
            at
            for at, status in station.beats
            if at > since_s and {e.key: e.value for e in status.values}["state"] == "inactive"
        ]
        time.sleep(0.5)
        back_s = station.servos.do("plug")
        returned_s = station.until(lambda: state(station) == "fault")
        assert "is back: recover to go on" in station.text
        assert station.values()["state"] == "active"
        return (beats[0] - since_s) * 1e3, returned_s - back_s

    figures = []

    def inactive_ms() -> float:
        figures.append(unplug())
        return figures[-1][0]

    row.measure("inactive after", inactive_ms, "ms", at_most=100.0, busy_at_most=1000.0)
    row.measured("opened again within", max(back for _, back in figures), "s", at_most=5.0)
    # Plugged in again it stands still until it is recovered.
    assert station.servos.do("get", field="torque") == [1] * 16
    goals = station.servos.do("get", field="goal_position")
    station.until(lambda: len(station.joints) > 5)
    assert station.servos.do("get", field="goal_position") == goals
    station.until(lambda: station.call("recover").success)


def withdraw(station: DriverStation) -> tuple[float, np.ndarray]:
    """Withdraw the source of a motion; ms until its joint rests, its setpoints about then, rad."""
    heal(station)
    station.drive(lambda k: np.full(16, 0.0))
    station.until(lambda: abs(station.joints[-1][2][JOINT]) < 0.01)
    station.drive(lambda k: np.full(16, 0.15 * k))
    station.until(lambda: station.joints[-1][2][JOINT] > 0.5)
    gone_s = station.withdraw()
    station.until(lambda: station.guard.state == GuardStatus.HOLDING)
    end_s = time.monotonic() + 0.4
    station.until(lambda: time.monotonic() > end_s)
    # From before on, since the first setpoint after it may be the one to rest at.
    goals = goals_since(station, gone_s - 0.05)
    way = np.array([goal[JOINT] for _, goal in goals]) * TICK_RAD
    moving = np.flatnonzero(np.diff(way))
    return (goals[moving[-1] + 1][0] - gone_s) * 1e3, way


@pytest.mark.fault(30, "Dynamixel bus")
def test_row_30_a_withdrawn_motion_is_slowed_down_to_rest(row: Row, station: DriverStation) -> None:
    ways = []

    def rest_ms() -> float:
        late_ms, way = withdraw(station)
        ways.append(way)
        return late_ms

    # The middleware's word, a cycle, and the way to brake.
    row.measure("at rest after", rest_ms, "ms", at_most=250.0, busy_at_most=1000.0)
    changes = max(np.abs(np.diff(way, 2)).max() for way in ways) / PERIOD_S**2
    # Setpoints are whole ticks, which alone make up to two of them from cycle to cycle.
    bound = LEAP.acceleration[JOINT] + 2 * TICK_RAD / PERIOD_S**2
    row.measured("slowed down by, in whole ticks", changes, "rad/s2", at_most=bound)


@pytest.fixture
def slowness(is_kept: bool) -> float:
    """By how much longer stalls are than those of the matrix, and are allowed to be.

    A busy machine stalls by itself for tens of milliseconds; whether a loop tells stalls that it
    may live through from others is seen with longer ones too. `make faults` takes the matrix's.
    """
    return 1.0 if is_kept else 10.0


@pytest.fixture
def strict(slowness: float, tmp_path: Path) -> Iterator[DriverStation]:
    with SERVOS() as servos:
        settings = servos.settings
        # The servos' own watchdog, and that of their silence, see a stall too.
        servos.settings = lambda **changes: settings(bus_watchdog_s=0.2 * slowness, **changes)
        patience = {"silent_s": 0.4 * slowness, "command_timeout_s": 5.0}
        limit_s = 0.03 * slowness
        with DriverStation(servos, tmp_path, stall_limit_s=limit_s, **patience) as made:
            made.wait_for_joints()
            made.beat(False)
            yield made


def freeze(station: DriverStation, seconds: float) -> None:
    """Keep the node's process from running for a while."""
    os.kill(station.process.pid, signal.SIGSTOP)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass
    os.kill(station.process.pid, signal.SIGCONT)


@pytest.mark.fault(9, "Dynamixel bus")
def test_row_9_a_loop_that_stalls_lives_through_15_ms_and_ends_its_motion_after_40(
    row: Row, strict: DriverStation, slowness: float
) -> None:
    def survives(seconds: float) -> float:
        """Freeze the node in a motion; 0 if it goes on, 1 if the motion is ended."""
        station = strict
        station.until(lambda: station.call("rearm").success)
        station.drive(lambda k: np.full(16, START_RAD + 0.05 * (k % 2)))
        station.until(lambda: station.guard.state != GuardStatus.HOLDING)
        if station.guard.state != GuardStatus.ACTIVE:
            return 1.0
        begun_s = time.monotonic()
        freeze(station, seconds * slowness)
        end_s = time.monotonic() + 0.15 * slowness
        station.until(lambda: time.monotonic() > end_s)
        ended = [
            status.reason
            for at, status in station.guards
            if at > begun_s and status.state == GuardStatus.STOPPED
        ]
        assert all("stalled" in reason for reason in ended)
        return float(bool(ended))

    # A busy machine stalls by itself: one of several must be lived through, all long ones end.
    row.measure("ended by 15 ms", lambda: survives(0.015), at_most=0.0, attempts=12)
    lived = [1.0 - survives(0.040) for _ in range(3)]
    row.measured("not ended by 40 ms, of 3", sum(lived), at_most=0.0)
    goals = [goal for _, goal in goals_since(strict, time.monotonic() - 0.1)]
    assert all((goal == goals[-1]).all() for goal in goals[-3:])
