# SPDX-License-Identifier: Apache-2.0
"""Fault row 30 on the twin's arm, and what a stop of the cell does to it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from arm_station import LIMITS, ArmStation, move
from motion import TICK_NS, peak_rates
from rows import Row
from twinloop.motion.trajectory import Trajectory

from twinloop_interfaces.msg import GuardStatus

# Slow, so that what a request takes to arrive is little beside a tick.
RTF = 0.25


@pytest.fixture(scope="module")
def live() -> Iterator[ArmStation]:
    # Its heartbeat is this process's, which a busy machine may delay: that is another row.
    station = ArmStation(rtf=RTF, emergency_stop_timeout_s=10.0)
    yield station
    station.close()


@pytest.fixture
def cell(live: ArmStation) -> ArmStation:
    live.station.press(False)
    live.station.rearm()
    live.reset()
    live.told.clear()
    return live


def left_path_ns(told: list[tuple[int, np.ndarray]], motion: Trajectory) -> int:
    """Stamp of the first setpoint that is not the motion's."""
    start = next(i for i, (_, q) in enumerate(told) if np.abs(q - motion.position[0]).max() > 0.0)
    begin_ns = told[start][0]
    # The first setpoint that moved tells how far the motion had come.
    path = motion.at(np.arange(0.0, motion.duration, 0.001))
    offset_s = 0.001 * int(np.abs(path - told[start][1]).max(axis=1).argmin())
    for stamp, q in told[start:]:
        expected = motion.at(offset_s + (stamp - begin_ns) * 1e-9)
        if np.abs(q - expected).max() > 1e-7:
            return stamp
    raise AssertionError("it never left its path")


def cancel(cell: ArmStation) -> float:
    """Cancel amid a motion; ticks that go by as planned between that and the first that brakes."""
    cell.reset()
    cell.told.clear()
    motion = move(0.9)
    goal = cell.begin(motion)
    cell.until(lambda: np.abs(cell.arm.velocity).max() > 0.5)
    cancelled_ns = cell.measured[-1][0]
    goal.cancel()
    cell.ended(goal)
    assert goal.was_cancelled
    assert np.abs(cell.arm.velocity).max() < 0.025
    held = cell.told[-1][1]
    cell.station.spin(0.1)
    np.testing.assert_array_equal(cell.told[-1][1], held)
    assert np.abs(held - motion.position[-1]).max() > 0.1
    velocity, acceleration, jerk = peak_rates(cell.told)
    assert (velocity <= LIMITS.velocity * 1.01).all()
    assert (acceleration <= LIMITS.acceleration * 1.01).all()
    assert (jerk <= LIMITS.jerk * 1.01).all()
    return (left_path_ns(cell.told, motion) - cancelled_ns) / TICK_NS - 1.0


@pytest.mark.fault(30, "twin's arm")
def test_row_30_a_cancelled_goal_brakes_within_a_cycle_to_a_hold(
    row: Row, cell: ArmStation
) -> None:
    row.measure("braking begun after", lambda: cancel(cell), "cycles", at_most=1.0, most=5)


def test_an_emergency_stop_brakes_the_arm_and_holds_it_until_it_is_re_armed(
    cell: ArmStation,
) -> None:
    goal = cell.begin(move(0.9))
    cell.until(lambda: np.abs(cell.arm.velocity).max() > 0.5)
    cell.station.press(True)
    cell.ended(goal)
    assert not goal.succeeded
    assert "stopped: emergency stop pressed" in goal.why
    cell.until(lambda: np.abs(cell.arm.velocity).max() < 0.02)
    _, acceleration, jerk = peak_rates(cell.told)
    assert (acceleration <= LIMITS.acceleration * 1.01).all()
    assert (jerk <= LIMITS.jerk * 1.01).all()
    # Released alone it stays stopped: both actions refuse, with the reason.
    cell.station.press(False)
    cell.station.spin(0.1)
    assert cell.station.state == GuardStatus.EMERGENCY_STOP
    where = cell.arm.position
    refused = cell.ended(cell.arm.execute(move(0.1, start=cell.told[-1][1])))
    assert "the cell is stopped (emergency stop pressed): re-arm it first" in refused.why
    assert not cell.ended(cell.arm.grip(0.02)).succeeded
    np.testing.assert_allclose(cell.arm.position, where, atol=1e-3)
    assert cell.station.rearm().success
    again = cell.ended(cell.arm.execute(move(0.02, start=cell.told[-1][1])))
    assert again.succeeded, again.why


def test_a_motion_goes_on_while_nobody_commands_the_hand(cell: ArmStation) -> None:
    goal = cell.begin(move(0.1))
    cell.station.drive(lambda k: np.zeros(24) if k < 2 else None)
    assert cell.ended(goal).succeeded
