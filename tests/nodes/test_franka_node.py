# SPDX-License-Identifier: Apache-2.0
"""The Franka node over DDS, on a simulated controller that speaks the arm's protocol."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from control_msgs.action import FollowJointTrajectory
from franka_station import HOME, SKIP, Controller, FrankaStation, motion_to
from std_srvs.srv import Trigger
from twinloop.robots.panda import FINGER_JOINTS, PANDA

from twinloop_interfaces.msg import GuardStatus

pytestmark = pytest.mark.skipif(bool(SKIP), reason=SKIP)

Result = FollowJointTrajectory.Result


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrankaStation]:
    folder = tmp_path_factory.mktemp("lab")
    patience = {"silent_s": 2.0, "command_max_age_s": 5.0}
    with Controller() as controller, FrankaStation(controller, folder, **patience) as made:
        made.wait_for_joints()
        yield made


@pytest.fixture
def ready(station: FrankaStation) -> FrankaStation:
    """Heard, armed and engaged, whatever the test before did."""
    station.beat(False)

    def is_running() -> bool:
        station.call("rearm")
        station.call("recover")
        return station.driver_state == "running" and station.guard.state == GuardStatus.HOLDING

    station.until(is_running)
    return station


def test_it_stands_until_it_is_armed_and_tells_of_arm_and_fingers(station: Any) -> None:
    handle = station.follow(motion_to(HOME + 0.1, HOME))
    result = station.result(handle)
    assert result.error_code == Result.INVALID_GOAL
    assert "emergency stop" in result.error_string
    station.until(lambda: station.joints[-1][1] == [*PANDA.joint_names, *FINGER_JOINTS])
    np.testing.assert_allclose(station.position, HOME, atol=1e-3)
    np.testing.assert_allclose(station.joints[-1][2][7:], 0.04, atol=1e-4)
    _, told, _ = station.told()
    assert (np.ptp(told, axis=0) == 0.0).all()


def test_a_trajectory_is_followed_and_recorded_as_what_it_comes_to(ready: Any) -> None:
    start = ready.position
    trajectory = motion_to(HOME + 0.3, start)
    ready.told()
    result = ready.result(ready.follow(trajectory))
    assert result.error_code == Result.SUCCESSFUL, result.error_string
    np.testing.assert_allclose(ready.position, HOME + 0.3, atol=5e-3)
    assert any(source == "panda_arm_controller" for _, source, _ in ready.applied)
    times, told, _ = ready.told()
    assert times[-1] - times[0] >= trajectory.duration
    lead = np.abs(told - trajectory.position[0]).max(axis=1).searchsorted(1e-4)
    way = trajectory.at((np.arange(len(told) - lead)) * 1e-3)
    assert np.abs(told[lead:] - way)[: round(trajectory.duration * 1e3)].max() < 0.02


def test_a_cancelled_trajectory_ends_at_rest_and_commands_go_on_from_there(ready: Any) -> None:
    start = ready.position
    ready.told()
    handle = ready.follow(motion_to(start - 0.4, start, velocity=0.05))
    ready.until(lambda: np.abs(ready.position - start).max() > 0.05)
    ready.cancel(handle)
    result = ready.result(handle)
    assert "cancelled" in result.error_string
    ready.until(lambda: ready.guard.state == GuardStatus.HOLDING)
    rest = ready.position
    assert np.abs(rest - start).max() < 0.4
    ready.drive(lambda k: rest + 0.02)
    ready.until(lambda: np.abs(ready.position - rest - 0.02).max() < 4e-3)
    ready.drive(lambda k: None)
    ready.until(lambda: ready.guard.state == GuardStatus.HOLDING)


def test_a_trajectory_and_commands_are_never_interleaved(ready: Any) -> None:
    start = ready.position
    handle = ready.follow(motion_to(start + 0.2, start, velocity=0.05))
    ready.until(lambda: ready.guard.state == GuardStatus.ACTIVE)
    assert ready.refused(start) == "another source holds the lease"
    assert ready.result(handle).error_code == Result.SUCCESSFUL


def test_the_gripper_holds_what_is_between_its_fingers(ready: Any) -> None:
    reached = ready.grip(0.02)
    assert reached.reached_goal
    assert not reached.stalled
    ready.grip(0.04)
    ready.controller.do("object", width=0.056)
    held = ready.grip(0.02, 20.0)
    assert held.stalled
    assert held.position == pytest.approx(0.028)
    ready.controller.do("object", width=None)
    assert ready.grip(0.04).reached_goal
    home = ready.node.create_client(Trigger, "arm/home_gripper")
    ready.until(home.service_is_ready)
    future = home.call_async(Trigger.Request())
    ready.until(future.done)
    assert future.result().success


def test_ctrl_c_amid_a_motion_leaves_the_arm_at_rest_and_held(ready: Any) -> None:
    start = ready.position
    ready.told()
    ready.follow(motion_to(start - 0.5, start, velocity=0.05))
    ready.until(lambda: np.abs(ready.position - start).max() > 0.05)
    ready.process.send_signal(signal.SIGINT)
    assert ready.process.wait(30.0) in (0, -signal.SIGINT, os.EX_OK)
    _, told, _ = ready.told()
    velocity = np.diff(told, axis=0) / 1e-3
    assert np.abs(velocity[-1]).max() < 1e-3
    assert np.abs(told[-1] - start).max() < 0.5
    assert ready.controller.do("counts")["aborts"] == []
