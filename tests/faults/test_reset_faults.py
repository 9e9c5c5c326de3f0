# SPDX-License-Identifier: Apache-2.0
"""Faults while balls are brought back, over real DDS: nodes that die, and the emergency stop.

What needs no processes, a ball that slips, a camera that stalls, a planner without a path, is
injected in `tests/unit/test_resets.py`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from reset_cell import ResetCell

AT_REST = 0.02  # rad/s

pytestmark = pytest.mark.load_sensitive


@pytest.fixture(scope="module")
def cell() -> Iterator[ResetCell]:
    # A busy machine keeps this process from beating; what is tried is another fault.
    made = ResetCell(emergency_stop_timeout_s=10.0)
    made.start("cameras", "twinloop_sim.nodes.twin_cameras", arm=True, use_sim_time=True)
    made.start_reset()
    yield made
    made.close()


def carry(cell: ResetCell) -> object:
    """Drop both balls and have them fetched; returns amid the first carry."""
    assert cell.station.reset().success
    cell.spill()
    handle = cell.ask()
    cell.until(lambda: "carry" in cell.phases, 120.0)
    cell.until(lambda: np.abs(cell.arm.arm.velocity).max() > 0.3)
    return handle


def test_a_node_killed_amid_a_carry_is_followed_by_one_that_carries_on(cell) -> None:
    carry(cell)
    cell.kill_reset()
    cell.station.spin(4.0)  # the controller goes to the end of the motion that it was told
    assert np.abs(cell.arm.arm.velocity).max() < AT_REST
    assert cell.holds_ball
    cell.start_reset()
    result = cell.result(cell.ask())
    assert result.success, result.message
    assert cell.phases[:5] == ["check", "clear", "open", "look", "carry"]
    assert cell.balls_in_palm == 2


def test_an_emergency_stop_amid_a_carry_keeps_the_ball_held(cell) -> None:
    cell.station.press(False)
    handle = carry(cell)
    cell.station.press(True)
    result = cell.result(handle)
    assert result.message.startswith("stopped: ")
    cell.station.spin(3.0)
    assert np.abs(cell.arm.arm.velocity).max() < AT_REST
    assert cell.holds_ball
    cell.station.press(False)
    cell.until(lambda: cell.station.rearm().success)
    result = cell.result(cell.ask())
    assert result.success, result.message
    assert cell.balls_in_palm == 2


def test_cameras_that_stall_are_waited_for(cell) -> None:
    assert cell.station.reset().success
    cell.spill()
    cameras = cell.nodes["cameras"]
    cameras.send_signal(signal.SIGSTOP)
    try:
        handle = cell.ask()
        cell.until(lambda: "look" in cell.phases, 60.0)
        cell.station.spin(1.5)
    finally:
        cameras.send_signal(signal.SIGCONT)
    result = cell.result(handle)
    assert result.success, result.message
