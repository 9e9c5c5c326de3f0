# SPDX-License-Identifier: Apache-2.0
"""Fault rows 21 to 24: nodes that are killed, crash again and again, hang, or fail in a step."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rows import Row
from supervised_cell import LABELS, SupervisedCell
from twinloop.dds import leave_domain, take_domain

from twinloop_interfaces.msg import GuardStatus

AT_REST_NS = 200_000_000  # after the ramp of a hold


@pytest.fixture(scope="module")
def running(
    is_kept: bool, repetition: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SupervisedCell]:
    domain = take_domain()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        cell = SupervisedCell(tmp_path_factory.mktemp("cell"), domain, is_patient=not is_kept)
        try:
            yield cell
        finally:
            cell.close()
            leave_domain(domain)


@pytest.fixture
def cell(running: SupervisedCell) -> SupervisedCell:
    """All nodes active, the twin in motion; restarts of earlier tests count."""
    running.wait_until_whole()
    return running


def states(cell: SupervisedCell) -> list[tuple[int, int]]:
    """Return what the guard said of its state, and when by the twin's time, ns."""
    return [
        (status.stamp.sec * 10**9 + status.stamp.nanosec, status.state)
        for status in cell.station.record.statuses
    ]


def held_ms(cell: SupervisedCell, since_ns: int) -> float:
    """Return the twin's time from a stamp to the hold that follows, in ms."""

    def holds() -> list[int]:
        return [at for at, state in states(cell) if at >= since_ns and state != GuardStatus.ACTIVE]

    cell.until(holds)
    return (holds()[0] - since_ns) * 1e-6


@pytest.mark.fault(24, "cell")
def test_row_24_a_node_that_fails_in_a_step_is_deactivated_alone_and_the_robot_held(
    row: Row, cell: SupervisedCell
) -> None:
    start = len(cell.lines)
    cell.fail()
    cell.until(lambda: cell.status("source").level == DiagnosticStatus.ERROR)
    assert cell.state("source") == "inactive"
    assert "ZeroDivisionError: in a control step" in cell.status("source").message
    failed_ns = int((cell.said("source", "failed", start) or "").split()[-1])
    late_ms = held_ms(cell, failed_ns)
    cell.wait_until_whole()
    others = sum(cell.said(name, "stopped", start) is not None for name in ("front", "side"))
    row.measured("other nodes deactivated", others, at_most=0)
    # The twin's steady watchdog against its own time, which a busy machine delays.
    row.timed("held after the failed step", late_ms, "ms", at_most=100.0)


@pytest.mark.fault(21, "the supervisor")
def test_row_21_a_killed_supervisor_comes_back_to_nodes_that_run(
    row: Row, cell: SupervisedCell
) -> None:
    """Before restarts of others, which it forgets."""
    names = [name for name in LABELS if name != "supervisor"]
    pids = [cell.pid(name) for name in names]
    cell.statuses.clear()
    killed_ns, killed_s = cell.station.now_ns, time.monotonic()
    start = cell.signal("supervisor", signal.SIGKILL)
    cell.until(lambda: cell.station.state == GuardStatus.EMERGENCY_STOP)
    assert cell.station.record.statuses[-1].reason == "emergency-stop heartbeat lost"
    cell.until(cell.is_whole)
    back_s = time.monotonic() - killed_s
    cell.until(lambda: cell.said("supervisor", "re-armed the guard", start))
    cell.wait_until_whole()
    assert [cell.pid(name) for name in names] == pids
    row.timed("robot stopped after", held_ms(cell, killed_ns), "ms", at_most=250.0)
    row.timed("supervises again after", back_s, "s", at_most=5.0)


@pytest.mark.fault(21, "a node that commands")
def test_row_21_a_killed_node_is_restarted_and_the_robot_held_meanwhile(
    row: Row, cell: SupervisedCell
) -> None:
    killed_ns, killed_s = cell.station.now_ns, time.monotonic()
    start = cell.signal("source", signal.SIGKILL)
    hold_ms = held_ms(cell, killed_ns)
    held_ns = killed_ns + round(hold_ms * 1e6)
    back_s = cell.when("source", "started", start) - killed_s

    def applied_again() -> list[int]:
        applied = cell.station.record.applied
        return [at for at, source, _ in applied if source == "source" and at > held_ns]

    cell.until(applied_again)
    cell.wait_until_whole()
    again_ns = applied_again()[0]
    # A busy machine's late heartbeat stops the robot too; re-armed, its goal is where it stands.
    held = [at for at, state in states(cell) if held_ns < at and state != GuardStatus.HOLDING]
    again_ns = min([again_ns, *held])
    between = [
        position
        for at, position in cell.station.record.setpoints
        if held_ns + AT_REST_NS < at < again_ns
    ]
    assert between
    assert cell.said("side", "stopped", start) is None
    row.measured("moved until then", float(np.ptp(between, axis=0).max()), "rad", at_most=1e-9)
    row.timed("held after", hold_ms, "ms", at_most=250.0)
    row.timed("active again after", back_s, "s", at_most=5.0)


@pytest.mark.load_sensitive
@pytest.mark.fault(21, "the twin")
def test_row_21_a_killed_twin_is_restarted_and_commanded_when_it_is_active(
    row: Row, cell: SupervisedCell
) -> None:
    killed_s = time.monotonic()
    start = cell.signal("twin", signal.SIGKILL)
    stopped_s = cell.when("source", "stopped", start)
    back_s = cell.when("source", "started", start)
    cell.wait_until_whole()
    row.timed("its dependant deactivated after", stopped_s - killed_s, "s", at_most=1.0)
    row.timed("active again, and commanded, after", back_s - killed_s, "s", at_most=5.0)


@pytest.mark.fault(23, "cell")
def test_row_23_dependants_of_a_hung_node_are_deactivated_and_it_is_replaced(
    row: Row, cell: SupervisedCell
) -> None:
    pid, hung_s = cell.pid("front"), time.monotonic()
    start = cell.signal("front", signal.SIGSTOP)
    stopped_s = cell.when("source", "stopped", start)
    cell.until(lambda: cell.station.state == GuardStatus.HOLDING)
    cell.until(lambda: cell.said("supervisor", f"{cell.space}/front, process {pid}", start))
    cell.until(lambda: cell.said("source", "started", start))
    cell.wait_until_whole()
    assert cell.pid("front") != pid
    assert cell.said("side", "stopped", start) is None
    row.timed("dependants deactivated after", stopped_s - hung_s, "s", at_most=1.0)


@pytest.mark.fault(22, "cell")
def test_row_22_a_crash_loop_ends_after_three_restarts_with_an_error(
    row: Row, cell: SupervisedCell
) -> None:
    """The last of this file: it leaves the cell as it is."""

    def is_given_up() -> bool:
        return cell.status("supervisor").level == DiagnosticStatus.ERROR

    process = cell.runner.processes[LABELS["source"]]
    while process.pid is not None:
        start = cell.signal("source", signal.SIGKILL)
        cell.statuses.clear()
        cell.until(lambda start=start: is_given_up() or cell.said("source", "started", start))
        cell.until(lambda: is_given_up() or cell.is_whole())
    cell.until(is_given_up)
    assert f"{cell.space}/source" in cell.status("supervisor").message
    assert "after 3 restarts" in cell.status("supervisor").message
    cell.until(lambda: cell.station.state == GuardStatus.HOLDING)
    for name in ("twin", "front", "side"):
        cell.until(lambda name=name: cell.state(name) == "active")
    row.measured("restarts", process.respawns, at_most=3, at_least=3)
