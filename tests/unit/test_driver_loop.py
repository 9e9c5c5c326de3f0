# SPDX-License-Identifier: Apache-2.0
"""The control loop of joint drivers on a clock of its own: what moves, what stops, what latches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fake_cameras import until
from fake_joints import FakeJoints
from twinloop.drivers.faults import DeviceLost, JointFault
from twinloop.drivers.loop import DriverLoop, LoopSettings
from twinloop.robots.dclaw import DCLAW
from twinloop.safety.verdict import GuardSettings, GuardState, Refusal

NAMES = list(DCLAW.joint_names)
RAISED = DCLAW.poses["raised"]


class Bench:
    """A loop whose cycles are run by hand."""

    def __init__(self, joints: FakeJoints | None = None, **guard: Any) -> None:
        self.now_s = 5.0
        self.joints = joints or FakeJoints()
        self.loop = DriverLoop(
            self.joints,
            GuardSettings(joint_speed=2.0, **guard),
            ros_now=lambda: 10**18 + round(self.now_s * 1e9),
            steady_now=lambda: self.now_s,
        )

    @property
    def guard(self) -> Any:
        return self.loop.guard

    def connect(self) -> Bench:
        self.loop.connect()
        return self

    def cycle(self, cycles: int = 1, late_s: float = 0.0) -> None:
        for _ in range(cycles):
            self.now_s += self.joints.period_s + late_s
            self.loop.cycle()

    def command(self, offset: float) -> Any:
        now_ns = 10**18 + round(self.now_s * 1e9)
        return self.loop.submit(NAMES, self.guard.goal + offset, now_ns, "tester")

    def drive(self, commands: int, offset: float = 0.1, cycles: int = 10) -> None:
        for _ in range(commands):
            assert self.command(offset).is_accepted
            self.cycle(cycles)


def speeds(written: list[np.ndarray]) -> np.ndarray:
    return np.abs(np.diff(np.array(written), axis=0)).max(axis=1) / 0.01


def test_nothing_moves_before_a_command_wherever_the_joints_stand() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        joints = FakeJoints()
        joints.position = rng.uniform(DCLAW.lower, DCLAW.upper)
        joints.position[4] = DCLAW.upper[4] + 0.06
        start = joints.position.copy()
        bench = Bench(joints).connect()
        bench.cycle(30)
        assert joints.calls == ["connect", "engage"]
        np.testing.assert_array_equal(joints.written, np.tile(start, (30, 1)))


def test_a_joint_outside_its_limits_is_led_back_without_a_jump() -> None:
    bench = Bench()
    bench.joints.position[4] = DCLAW.upper[4] + 0.08
    bench.connect()
    bench.drive(6, -0.02)
    assert speeds(bench.joints.written).max() < 2.5
    assert bench.joints.written[-1][4] <= DCLAW.upper[4]
    bench.drive(3, 0.2)
    assert np.all(np.array(bench.joints.written[-30:]) <= DCLAW.upper)


def test_a_joint_far_outside_its_limits_is_not_engaged() -> None:
    bench = Bench()
    bench.joints.position[1] = -2.0
    bench.connect()
    bench.cycle(5)
    status = bench.loop.status()
    assert status.state == "fault"
    assert "F1J2: stands at -2.000 rad, outside -1.5 to 0.7" in status.text
    assert not bench.joints.is_powered
    assert bench.command(0.1).refusal is Refusal.STOPPED


def test_commands_are_followed_and_refused_as_the_guard_says() -> None:
    bench = Bench().connect()
    bench.drive(3, 0.1)
    bench.cycle(20)
    np.testing.assert_allclose(bench.joints.position, RAISED + 0.3, atol=1e-9)
    assert bench.loop.submit(NAMES, RAISED * np.nan, 0, "x").refusal is Refusal.NON_FINITE


def test_row_9_a_stall_of_15_ms_is_lived_through_and_one_of_40_ms_ends_the_motion() -> None:
    bench = Bench().connect()
    bench.drive(3, 0.1)
    bench.cycle(late_s=0.015)
    assert bench.guard.state is GuardState.ACTIVE
    bench.drive(1, 0.1, cycles=9)
    begun = len(bench.joints.written)
    bench.cycle(late_s=0.040)
    assert bench.guard.state is GuardState.STOPPED
    assert "stalled for 40 ms" in bench.guard.reason
    bench.cycle(40)
    after = speeds(bench.joints.written[begun - 1 :])
    assert after[-1] == 0.0
    # What was missed is not caught up with.
    assert after.max() <= speeds(bench.joints.written[:begun]).max() + 1e-9
    assert bench.command(0.1).refusal is Refusal.STOPPED
    assert bench.loop.rearm() == (True, "re-armed")
    bench.drive(1)


def test_a_stall_without_a_motion_is_only_counted() -> None:
    bench = Bench().connect()
    bench.cycle(3)
    bench.cycle(late_s=0.2)
    assert bench.guard.state is GuardState.HOLDING
    assert bench.loop.status().stalls == 1


def test_row_10_a_silent_device_is_at_fault_within_100_ms() -> None:
    bench = Bench().connect()
    bench.drive(2)
    bench.joints.is_silent = True
    began_s = bench.now_s
    while bench.loop.status().state == "running":
        bench.cycle()
    assert bench.now_s - began_s <= 0.1
    assert "no good sample for 0.0" in bench.loop.status().text
    assert bench.guard.state is GuardState.STOPPED
    bench.joints.is_silent = False
    bench.cycle(30)
    assert bench.loop.status().state == "fault"
    assert bench.loop.rearm()[0] is False


def test_single_lost_samples_are_counted_and_passed_over() -> None:
    bench = Bench().connect()
    for _ in range(5):
        bench.joints.is_silent = True
        bench.cycle(3)
        bench.joints.is_silent = False
        bench.cycle(1)
    status = bench.loop.status()
    assert (status.state, status.lost) == ("running", 15)


def test_row_16_a_joint_fault_stops_within_one_cycle_and_latches() -> None:
    bench = Bench().connect()
    bench.drive(2)
    bench.joints.faults = {"F2J1": "overload"}
    bench.cycle()
    assert bench.loop.status().text == "F2J1: overload"
    assert bench.guard.state is GuardState.STOPPED
    bench.joints.faults = {}
    bench.cycle(10)
    assert bench.loop.status().state == "fault"


def test_a_lost_device_waits_for_recovery_when_it_is_back() -> None:
    bench = Bench().connect()
    bench.drive(2)
    bench.joints.is_plugged = False
    with pytest.raises(DeviceLost):
        bench.cycle()
    bench.loop._lose("fake joints are gone")
    assert bench.guard.state is GuardState.STOPPED
    bench.joints.is_plugged, bench.joints.is_powered = True, False
    bench.connect()
    bench.cycle(5)
    assert "recover to go on" in bench.loop.status().text
    assert bench.joints.calls.count("engage") == 1


def test_row_30_a_hold_begins_within_one_cycle_and_comes_to_rest() -> None:
    ways = []
    for is_held in (False, True):
        bench = Bench().connect()
        bench.command(0.2)
        bench.cycle(8)
        if is_held:
            bench.loop.hold("goal cancelled")
        bench.cycle(20)
        ways.append(np.array(bench.joints.written)[:, 0] - RAISED[0])
    going, held = ways
    np.testing.assert_array_equal(going[:8], held[:8])
    assert held[8] < going[8]
    assert 0.0 < held[-1] < 0.9 * going[-1]
    assert (np.diff(held) >= -1e-12).all()
    assert held[-1] == held[-5]
    assert bench.guard.state is GuardState.HOLDING


def test_the_emergency_stop_stands_at_once_and_only_a_re_arm_after_the_release_ends_it() -> None:
    bench = Bench(requires_emergency_stop=True).connect()
    bench.cycle(3)
    assert bench.joints.is_powered
    assert bench.command(0.1).refusal is Refusal.EMERGENCY_STOP
    bench.loop.emergency_stop(False)
    assert bench.loop.rearm()[0]
    assert bench.command(0.1).is_accepted
    bench.cycle(8)
    bench.loop.emergency_stop(True)
    stood = bench.joints.written[-1]
    bench.cycle(3)
    np.testing.assert_array_equal(bench.joints.written[-1], stood)
    bench.loop.emergency_stop(False)
    assert bench.guard.state is GuardState.EMERGENCY_STOP


def test_joints_that_were_moved_by_hand_in_an_emergency_stop_stay_where_they_are() -> None:
    bench = Bench().connect()
    bench.drive(2)
    bench.loop.emergency_stop(True)
    bench.cycle(3)
    bench.joints.position = RAISED + 0.3
    moved = bench.joints.position.copy()
    bench.connect()
    begun = len(bench.joints.written)
    bench.cycle(10)
    np.testing.assert_allclose(bench.joints.written[begun:], np.tile(moved, (10, 1)), atol=1e-12)
    assert bench.guard.state is GuardState.EMERGENCY_STOP
    bench.loop.emergency_stop(False)
    assert bench.loop.rearm()[0]
    bench.cycle(10)
    np.testing.assert_allclose(bench.joints.position, moved, atol=1e-12)
    np.testing.assert_allclose(bench.guard.goal, moved, atol=1e-12)


def test_a_re_arm_that_is_not_needed_changes_no_grip() -> None:
    bench = Bench().connect()
    bench.drive(2)
    bench.cycle(20)
    gripped = bench.joints.written[-1]
    bench.joints.position = gripped - 0.05
    bench.loop.cycle()
    bench.joints.position = gripped - 0.05
    assert bench.loop.rearm() == (True, "was not stopped")
    bench.cycle(3)
    np.testing.assert_array_equal(bench.joints.written[-1], gripped)


# With its thread.


@pytest.fixture
def running() -> Iterator[Callable[..., DriverLoop]]:
    loops: list[DriverLoop] = []

    def make(joints: FakeJoints, **settings: float) -> DriverLoop:
        import time

        # A busy machine's stalls are not what is tried here.
        loop = DriverLoop(
            joints,
            GuardSettings(),
            ros_now=time.time_ns,
            settings=LoopSettings(**({"stall_limit_s": 60.0} | settings)),
        )
        loops.append(loop)
        loop.start()
        return loop

    yield make
    for loop in loops:
        loop.halt()


def test_a_device_that_is_not_there_is_waited_for(running: Callable[..., DriverLoop]) -> None:
    joints = FakeJoints()
    joints.is_plugged = False
    loop = running(joints, first_wait_s=0.01)
    until(lambda: joints.calls.count("connect") > 2)
    assert loop.status().text == "fake joints are not there"
    assert loop.recover() == (False, "fake joints are not there")
    joints.is_plugged = True
    until(lambda: loop.status().state == "running")


def test_stop_takes_the_power_and_recover_gives_it_back_where_the_joints_are(
    running: Callable[..., DriverLoop],
) -> None:
    joints = FakeJoints()
    loop = running(joints)
    until(lambda: len(joints.written) > 3)
    assert loop.stop() == (True, "stopped")
    assert not joints.is_powered
    joints.position = RAISED + 0.05
    assert loop.rearm()[0] is False
    assert loop.recover() == (True, "recovered")
    until(lambda: len(joints.written) > 10)
    np.testing.assert_array_equal(joints.written[-1], RAISED + 0.05)
    assert loop.guard is not None
    assert loop.guard.state is GuardState.HOLDING


def test_recovery_fails_while_a_joint_is_at_fault(running: Callable[..., DriverLoop]) -> None:
    joints = FakeJoints()
    joints.faults = {"F1J1": "jammed"}
    loop = running(joints)
    until(lambda: loop.status().state == "fault")
    assert loop.recover() == (False, "F1J1: jammed")
    joints.faults = {}
    assert loop.recover() == (True, "recovered")


def test_a_device_that_cannot_be_engaged_leaves_the_guard_stopped(
    running: Callable[..., DriverLoop],
) -> None:
    joints = FakeJoints()
    loop = running(joints)
    until(lambda: loop.status().state == "running")
    assert loop.stop()[0]

    def refuse(position: np.ndarray) -> None:
        raise JointFault({"F1J1": "refuses"})

    joints.engage = refuse  # type: ignore[method-assign]
    assert loop.recover() == (False, "F1J1: refuses")
    assert loop.status().state == "fault"
    assert loop.guard is not None
    assert loop.guard.state is GuardState.STOPPED


def test_a_latched_stop_outlives_a_restart_of_the_loop(running: Callable[..., DriverLoop]) -> None:
    joints = FakeJoints()
    loop = running(joints)
    until(lambda: loop.status().state == "running")
    loop.stop()
    loop.halt()
    assert joints.calls[-1] == "close"
    loop.start()
    until(lambda: loop.status().state == "fault")
    assert not joints.is_powered
    assert loop.recover()[0]
    loop.halt()
    assert joints.is_powered


def test_an_error_in_a_driver_ends_its_loop_and_stops(running: Callable[..., DriverLoop]) -> None:
    joints = FakeJoints()
    loop = running(joints)
    until(lambda: loop.status().state == "running")
    joints.robot = None  # type: ignore[assignment]
    joints.faults = {"F1J1": "odd"}
    joints.read = None  # type: ignore[assignment, method-assign]
    until(lambda: loop.status().state == "crashed")
    assert loop.guard is not None
    assert loop.guard.state is GuardState.STOPPED
