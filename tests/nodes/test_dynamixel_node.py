# SPDX-License-Identifier: Apache-2.0
"""The Dynamixel node over DDS, on servos that speak Protocol 2.0 on a pseudo-terminal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bag_processes import Processes
from driver_station import SERVOS, DriverStation
from twinloop.dds import take_domain
from twinloop.robots.leap import LEAP

from twinloop_interfaces.msg import GuardStatus

START_RAD = (2200 - 2048) * 2 * np.pi / 4096


@pytest.fixture
def station(tmp_path: Path) -> Iterator[DriverStation]:
    with SERVOS() as servos:
        settings = servos.settings
        # A busy machine may not speak to them for longer than their own watchdog waits.
        servos.settings = lambda **changes: settings(bus_watchdog_s=2.0, **changes)
        with DriverStation(servos, tmp_path) as made:
            yield made


def test_the_node_speaks_as_a_robot_does_and_holds_at_the_end(station: DriverStation) -> None:
    station.wait_for_joints()
    names, position = station.joints[-1][1:3]
    assert names == list(LEAP.joint_names)
    np.testing.assert_allclose(position, START_RAD)
    assert station.guard.state == GuardStatus.EMERGENCY_STOP
    station.until(lambda: station.servos.do("get", field="torque") == [1] * 16)

    # Nothing moves before the emergency stop was heard and the guard re-armed.
    assert station.refused(np.full(16, START_RAD + 0.1)).startswith("emergency stop")
    station.beat(False)
    assert station.call("rearm").success
    station.drive(lambda k: np.full(16, START_RAD + 0.1 * (k + 1)) if k < 4 else None)
    station.until(lambda: np.allclose(station.joints[-1][2], START_RAD + 0.4, atol=0.003))
    assert {source for _, source, _ in station.applied} >= {"tester", "guard"}
    np.testing.assert_allclose(
        [goal for _, source, goal in station.applied if source == "tester"][-1], START_RAD + 0.4
    )
    values = station.values()
    assert values["driver"] == "running"
    assert float(values["cycle_ms"]) >= 9.0
    assert int(values["connects"]) == 1
    assert values["temperature if_rot"] == "35"

    # Ctrl-C in the middle of a motion: come to rest, and hold.
    station.drive(lambda k: np.full(16, START_RAD + 0.4 + 0.15 * (k + 1)))
    station.until(lambda: station.joints[-1][2][0] > START_RAD + 0.5)
    station.process.send_signal(signal.SIGINT)
    assert station.process.wait(60.0) == 0
    assert station.servos.do("get", field="torque") == [1] * 16
    assert station.servos.do("get", field="watchdog") == [0] * 16
    goals = np.array([goal for _, goal in station.servos.do("goals")])
    steps = np.abs(np.diff(goals, axis=0)).max(axis=1)
    # It moved until the end, and came to rest by the ramp, whose jerk allows 0.01 rad, or 7 ticks,
    # in the last cycle, and whose acceleration so much from cycle to cycle.
    assert steps[-20:].max() > 7
    assert steps[-1] <= 7
    assert np.abs(np.diff(steps.astype(int))).max() <= 8


def test_stop_recover_and_the_faults_of_joints(station: DriverStation) -> None:
    station.wait_for_joints()
    station.beat(False)
    assert station.call("rearm").success
    assert station.call("stop").message == "stopped"
    assert station.servos.do("get", field="torque") == [0] * 16
    assert "recover first" in station.call("rearm").message
    assert station.call("recover").message == "recovered"
    assert station.servos.do("get", field="torque") == [1] * 16

    station.servos.do("alert", ids=[7], bits=0x20)
    station.until(lambda: station.guard.state == GuardStatus.STOPPED)
    assert station.guard.reason == "mf_dip: overload"
    station.until(lambda: station.level == b"\2")
    assert station.text == "mf_dip: overload"
    assert station.refused(np.full(16, START_RAD)).startswith("stopped")
    station.until(lambda: station.call("recover").success)
    station.until(lambda: station.level == b"\0")
    assert station.guard.state == GuardStatus.HOLDING


def test_a_wrong_hardware_file_keeps_the_node_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("leap: {driver: dynamixel}")
    with Processes(take_domain()) as processes:
        process = processes.node("twinloop.nodes.dynamixel", hardware=path)
        process.wait(timeout=120)
        said = processes.said(process)
    assert process.returncode == 2
    assert "lab.yaml: leap.port is missing" in said
