# SPDX-License-Identifier: Apache-2.0
"""Fault rows 7 to 11 on a Franka arm, whose simulated controller has the arm's own checks.

Motions are judged by what the controller was told in each of its cycles, in its own time. A motion
that breaks a limit of the arm, or comes too late too often, is ended by the controller itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from control_msgs.action import FollowJointTrajectory
from franka_station import HOME, SKIP, Controller, FrankaStation, motion_to
from rows import Row
from twinloop.drivers.franka_arm.limits import LIMITS

from twinloop_interfaces.msg import GuardStatus

pytestmark = pytest.mark.skipif(bool(SKIP), reason=SKIP)

CYCLE_S = 0.001
ACCELERATION, JERK = 10.0, 5000.0  # rad/s^2, rad/s^3: libfranka's, of each joint
ENTRY = "Franka arm"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrankaStation]:
    folder = tmp_path_factory.mktemp("lab")
    yield from station_in(folder, silent_s=2.0)


def station_in(folder: Path, **parameters: float) -> Iterator[FrankaStation]:
    parameters |= {"command_max_age_s": 5.0, "gripper": False}
    with Controller() as controller, FrankaStation(controller, folder, **parameters) as made:
        made.wait_for_joints()
        made.beat(False)
        yield made


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[FrankaStation]:
    yield from station_in(tmp_path, silent_s=0.045)


@pytest.fixture
def station(lab: FrankaStation) -> FrankaStation:
    heal(lab)
    return lab


def heal(station: FrankaStation) -> None:
    """Have controller, node and guard go on, from where the arm stands."""
    station.drive(lambda k: None)
    station.controller.freeze(False)

    def is_running() -> bool:
        station.call("rearm")
        station.call("recover")
        return station.driver_state == "running" and station.guard.state == GuardStatus.HOLDING

    station.until(is_running, 90.0)
    station.told()


def aborts(station: FrankaStation) -> list[str]:
    return list(station.controller.do("counts")["aborts"])


def go(station: FrankaStation, goal: np.ndarray) -> None:
    """Follow a trajectory to a place, and stand there."""
    if np.abs(goal - station.position).max() > 1e-3:
        handle = station.follow(motion_to(goal, station.position))
        result = station.result(handle)
        assert result.error_code == FollowJointTrajectory.Result.SUCCESSFUL, result.error_string
        station.until(lambda: station.guard.state == GuardStatus.HOLDING)


def to_and_fro(station: FrankaStation, size: float = 0.15) -> None:
    """Begin to command steps to and fro, and wait until the arm moves."""
    start = station.position
    station.drive(lambda k: start + size * (1 - k % 2))
    station.until(lambda: np.abs(station.position - start).max() > 0.02)


@pytest.mark.fault(7, ENTRY)
def test_row_7_steps_of_velocity_are_limited_to_what_the_arm_can(
    row: Row, station: FrankaStation
) -> None:
    before = len(aborts(station))
    start = station.position
    steps = np.random.default_rng(5).uniform(-0.3, 0.3, (20, 7))
    station.drive(lambda k: start + steps[k] if k < len(steps) else None)
    begun = len(station.applied)
    station.until(lambda: len(station.applied) >= begun + len(steps))
    station.until(lambda: station.guard.state == GuardStatus.HOLDING)
    _, told, _ = station.told()
    velocity = np.diff(told, axis=0) / CYCLE_S
    acceleration = np.diff(velocity, axis=0) / CYCLE_S
    jerk = np.diff(acceleration, axis=0) / CYCLE_S
    assert np.abs(velocity).max() > 0.1
    row.measured("acceleration", np.abs(acceleration).max(), "rad/s2", at_most=ACCELERATION)
    row.measured("jerk", np.abs(jerk).max(), "rad/s3", at_most=JERK)
    row.measured("reflexes", len(aborts(station)) - before, at_most=0)


@pytest.mark.fault(8, ENTRY)
def test_row_8_full_speed_at_a_limit_stops_inside_it(row: Row, station: FrankaStation) -> None:
    before = len(aborts(station))
    start = HOME.copy()
    start[0], start[3] = 2.0, -1.0
    go(station, start)
    station.told()
    ahead = np.zeros(7)
    ahead[0], ahead[3] = 0.15, 0.15
    station.drive(lambda k: start + ahead * min(k, 20))
    station.until(lambda: np.abs(station.position - start).max() > 0.65)
    rest = [station.position, 0.0]

    def is_at_rest() -> bool:
        if np.abs(station.position - rest[0]).max() > 1e-4:
            rest[:] = station.position, time.monotonic()
        return rest[1] > 0.0 and time.monotonic() > rest[1] + 0.3

    station.until(is_at_rest)
    _, told, measured = station.told()
    speed = np.abs(np.diff(told, axis=0)).max() / CYCLE_S
    left = min((LIMITS.upper - each).min() for each in (told, measured))
    assert speed > 1.0
    row.measured("left to the limit", left, "rad", at_least=0.0)
    row.measured("reflexes", len(aborts(station)) - before, at_most=0)
    heal(station)
    go(station, HOME)


def process_of(station: FrankaStation) -> int:
    """The process that talks to the arm."""
    (found,) = [
        child.pid
        for child in psutil.Process(station.process.pid).children()
        if "twinloop.drivers.franka_arm.process" in child.cmdline()
    ]
    return found


@pytest.mark.fault(9, ENTRY)
def test_row_9_a_stalled_loop_lives_through_15_cycles_and_ends_cleanly_after_40(
    row: Row, station: FrankaStation
) -> None:
    before = len(aborts(station))
    to_and_fro(station)
    for _ in range(3):
        missed = station.controller.do("stall", pid=process_of(station), cycles=15)
        assert missed >= 15
        moved = station.position
        station.until(lambda moved=moved: np.abs(station.position - moved).max() > 0.01)
    row.measured("ended by 15 ms", len(aborts(station)) - before, at_most=0)
    station.controller.do("stall", pid=process_of(station), cycles=40)
    station.until(lambda: station.driver_state == "fault")
    found = aborts(station)[before:]
    row.measured("ended by 40 ms", len(found), at_least=1, at_most=1)
    assert "communication_constraints_violation" in found[0]
    station.until(lambda: "communication_constraints_violation" in station.text)
    assert station.guard.state == GuardStatus.STOPPED


@pytest.mark.fault(10, ENTRY)
def test_row_10_a_silent_controller_is_a_fault_within_100_ms(
    row: Row, impatient: FrankaStation
) -> None:
    station = impatient

    def silence() -> float:
        heal(station)
        to_and_fro(station, 0.05)
        station.controller.freeze(True)
        since_s = time.monotonic()
        station.until(lambda: station.guard.state == GuardStatus.STOPPED)
        assert "no good sample" in station.guard.reason
        stops = [at for at, each in station.guards if at > since_s and each.state == 2]
        return (stops[0] - since_s) * 1e3

    row.measure("fault after", silence, "ms", at_most=100.0)
    station.controller.freeze(False)
    # It answers again, and waits to be recovered.
    station.until(lambda: station.driver_state == "fault")
    assert "recover first" in station.call("rearm").message


@pytest.mark.fault(11, ENTRY)
def test_row_11_after_a_reflex_nothing_is_commanded_until_it_is_recovered(
    row: Row, station: FrankaStation
) -> None:
    to_and_fro(station)
    station.controller.do("reflex", name="cartesian_reflex")
    station.until(lambda: station.driver_state == "fault")
    assert "cartesian_reflex" in station.text
    station.told()
    before = station.controller.do("counts")
    refused = station.guard.refused
    station.until(lambda: station.guard.refused > refused + 3)  # commands go on coming
    result = station.result(station.follow(motion_to(HOME, station.position)))
    assert "cartesian_reflex" in result.error_string
    after = station.controller.do("counts")
    row.measured("commands before the recovery", after["commands"], at_most=0)
    row.measured("motions begun before it", after["moves"] - before["moves"], at_most=0)
    heal(station)
    to_and_fro(station)


@pytest.mark.load_sensitive
@pytest.mark.fault(9, "Franka arm, 60 s of trajectories")
def test_a_minute_of_trajectories_has_no_communication_reflex(
    row: Row, station: FrankaStation
) -> None:
    before = len(aborts(station))
    go(station, HOME)
    station.told()
    begin_s = station.controller.do("counts")["time_s"]
    rng = np.random.default_rng(9)
    off, missing = [], 0.0
    while station.controller.do("counts")["time_s"] < begin_s + 60.0:
        go(station, HOME + rng.uniform(-0.4, 0.4, 7))
        times, told, measured = station.told()
        off.append(np.abs(told - measured).max(axis=1))
        missing += float((np.diff(times) > 1.5 * CYCLE_S).sum())
    errors = np.concatenate(off)
    row.measured("reflexes", len(aborts(station)) - before, at_most=0)
    row.measured("greatest tracking error", errors.max(), "rad", at_most=0.1)
    row.measured("root mean square of it", float(np.sqrt((errors**2).mean())), "rad", at_most=0.02)
    row.measured("share of cycles missed", missing / len(errors), at_most=0.01)


@pytest.mark.fault(21, "Franka arm's driver")
def test_row_21_the_arm_comes_to_rest_when_its_node_is_killed(
    row: Row, station: FrankaStation
) -> None:
    """The last of this file: the node is gone after it."""
    before = len(aborts(station))
    go(station, HOME)
    station.told()
    station.follow(motion_to(HOME + 0.5, HOME, velocity=0.1))
    station.until(lambda: np.abs(station.position - HOME).max() > 0.05)
    process = psutil.Process(process_of(station))
    station.process.kill()
    process.wait(30.0)
    _, told, _ = station.told()
    velocity = np.abs(np.diff(told, axis=0)).max(axis=1) / CYCLE_S
    moving = np.flatnonzero(velocity > 1e-3)
    peak = np.flatnonzero(velocity > 0.95 * velocity.max())[-1]
    row.measured("at rest after braking for", (moving[-1] - peak) * 1.0, "ms", at_most=500.0)
    row.measured("reflexes", len(aborts(station)) - before, at_most=0)
    assert velocity[-1] < 1e-3
    assert np.abs(told[-1] - HOME).max() < 0.5
