# SPDX-License-Identifier: Apache-2.0
"""The twin's arm over real DDS: trajectories, tolerances, preemption, refusals, the gripper."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from arm_station import REST, ArmStation, move
from control_msgs.action import FollowJointTrajectory, GripperCommand
from control_msgs.msg import JointTolerance
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from twinloop.motion.trajectory import Trajectory
from twinloop.nodes.arm_client import ArmClient, trajectory_message
from twinloop.nodes.trajectory_action import ARM_ACTION

from twinloop_interfaces.action import ResetScene

Result = FollowJointTrajectory.Result


@pytest.fixture(scope="module")
def live() -> Iterator[ArmStation]:
    station = ArmStation(rtf=3.0)
    yield station
    station.close()


@pytest.fixture
def cell(live: ArmStation) -> ArmStation:
    live.reset()
    return live


def test_a_trajectory_is_carried_out_and_the_joints_are_told(cell: ArmStation) -> None:
    motion = move(0.2)
    goal = cell.ended(cell.arm.execute(motion))
    assert goal.succeeded
    assert goal.result.error_code == Result.SUCCESSFUL
    np.testing.assert_allclose(cell.arm.position, motion.position[-1], atol=0.01)
    assert cell.arm.width_m == pytest.approx(0.08, abs=1e-3)


def test_a_client_is_told_how_it_goes_on(cell: ArmStation) -> None:
    heard = []
    client = ActionClient(cell.station.node, FollowJointTrajectory, ARM_ACTION)
    cell.until(client.server_is_ready)
    request = FollowJointTrajectory.Goal(trajectory=trajectory_message(move(0.4)))
    client.send_goal_async(request, lambda message: heard.append(message.feedback))
    cell.until(lambda: len(heard) >= 3)
    feedback = heard[-1]
    assert feedback.joint_names == list(move(0.4).joint_names)
    np.testing.assert_allclose(
        np.array(feedback.error.positions),
        np.array(feedback.desired.positions) - np.array(feedback.actual.positions),
    )
    assert np.abs(feedback.error.positions).max() < 0.05
    client.destroy()


def test_a_second_client_takes_over(cell: ArmStation) -> None:
    other = ArmClient(cell.station.node)
    cell.until(lambda: not other.missing)
    first = cell.begin(move(0.8))
    # Joined from a moving arm, as its first point lies in the future.
    away = move(-0.1)
    later = Trajectory(
        away.joint_names,
        np.array([1.5]),
        away.position[-1:],
        np.zeros((1, 7)),
        np.zeros((1, 7)),
    )
    second = other.execute(later)
    cell.ended(first)
    assert not first.succeeded
    assert "preempted: a newer one took over" in first.why
    assert cell.ended(second).succeeded
    np.testing.assert_allclose(cell.arm.position, away.position[-1], atol=0.01)
    other.close()


def test_a_planner_in_a_thread_of_its_own_may_wait(cell: ArmStation) -> None:
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(cell.arm.carry_out(move(0.1))))
    thread.start()
    cell.until(lambda: done)
    thread.join()
    assert done == [True]


REFUSED = {
    "joints": (
        replace(move(0.1), joint_names=("a", *move(0.1).joint_names[1:])),
        Result.INVALID_JOINTS,
        "it is of joints ['a'",
    ),
    "NaN": (
        replace(move(0.1), velocity=move(0.1).velocity * np.nan),
        Result.INVALID_GOAL,
        "velocity of panda_joint1, panda_joint2",
    ),
    "start": (
        move(0.1, start=REST + 0.05),
        Result.INVALID_GOAL,
        "it begins too far from where the arm is",
    ),
    "limits": (
        replace(move(0.3), time=move(0.3).time / 4),
        Result.INVALID_GOAL,
        "exceeds a limit",
    ),
    "times": (
        replace(move(0.1), time=move(0.1).time[::-1].copy()),
        Result.INVALID_GOAL,
        "times do not increase",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_trajectory_is_refused_by_name(cell: ArmStation, name: str) -> None:
    bad, code, why = REFUSED[name]
    goal = cell.ended(cell.arm.execute(bad))
    assert not goal.succeeded
    assert goal.result.error_code == code
    assert why in goal.why
    np.testing.assert_allclose(cell.arm.position, REST, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        ("old", Result.OLD_HEADER_TIMESTAMP, "it was to begin"),
        ("future", Result.INVALID_GOAL, "it is to begin in"),
        ("ragged", Result.INVALID_GOAL, "its point 3 has 6 positions, expected 7"),
        ("tolerance", Result.INVALID_JOINTS, "a goal tolerance is of joint 'elbow'"),
        ("velocity", Result.INVALID_GOAL, "only positions are watched on the way"),
        ("empty", Result.INVALID_GOAL, "it has no point"),
    ],
)
def test_a_bad_message_is_refused_by_name(
    cell: ArmStation, change: str, code: int, why: str
) -> None:
    request = FollowJointTrajectory.Goal(trajectory=trajectory_message(move(0.1)))
    if change in ("old", "future"):
        stamp = cell.station.now_ns + (-(10**10) if change == "old" else 10**10)
        header = request.trajectory.header.stamp
        header.sec, header.nanosec = divmod(stamp, 10**9)
    elif change == "ragged":
        request.trajectory.points[3].positions = [0.0] * 6
    elif change == "tolerance":
        request.goal_tolerance = [JointTolerance(name="elbow", position=0.1)]
    elif change == "velocity":
        request.path_tolerance = [JointTolerance(name="panda_joint1", velocity=0.1)]
    else:
        request.trajectory.points = []
    client = ActionClient(cell.station.node, FollowJointTrajectory, ARM_ACTION)
    cell.until(client.server_is_ready)
    answer = cell.station._wait(client.send_goal_async(request))
    result = cell.station._wait(answer.get_result_async()).result
    client.destroy()
    assert result.error_code == code
    assert why in result.error_string


@pytest.mark.parametrize(
    ("which", "code", "why"),
    [
        ("path_tolerance", Result.PATH_TOLERANCE_VIOLATED, "rad off its path, 0.0001 allowed"),
        ("goal_tolerance", Result.GOAL_TOLERANCE_VIOLATED, "rad off its goal, 0.0000 allowed"),
    ],
)
def test_tolerances_of_a_goal_are_kept_to(
    cell: ArmStation, which: str, code: int, why: str
) -> None:
    request = FollowJointTrajectory.Goal(trajectory=trajectory_message(move(0.3)))
    size = 1e-4 if which == "path_tolerance" else 1e-9
    setattr(request, which, [JointTolerance(name="panda_joint2", position=size)])
    request.goal_time_tolerance.nanosec = 100_000_000
    client = ActionClient(cell.station.node, FollowJointTrajectory, ARM_ACTION)
    cell.until(client.server_is_ready)
    answer = cell.station._wait(client.send_goal_async(request))
    outcome = cell.station._wait(answer.get_result_async())
    client.destroy()
    assert outcome.status == GoalStatus.STATUS_ABORTED
    assert outcome.result.error_code == code
    assert "panda_joint2 is " in outcome.result.error_string
    assert why in outcome.result.error_string


def test_the_gripper_closes_opens_and_is_told_from_holding(cell: ArmStation) -> None:
    goal = cell.ended(cell.arm.grip(0.02, max_effort_n=20.0))
    assert goal.succeeded
    assert goal.result.reached_goal
    assert not goal.result.stalled
    assert cell.arm.width_m == pytest.approx(0.02, abs=0.002)
    assert 2 * goal.result.position == pytest.approx(0.02, abs=0.002)
    assert cell.ended(cell.arm.grip(0.08)).result.reached_goal


def test_a_gripper_command_is_refused_and_given_up(cell: ArmStation) -> None:
    wide = cell.ended(cell.arm.grip(0.2))
    assert not wide.succeeded
    assert isinstance(wide.result, GripperCommand.Result)
    assert not wide.result.reached_goal
    goal = cell.arm.grip(0.0)
    cell.until(lambda: cell.arm.width_m < 0.075)
    goal.cancel()
    assert cell.ended(goal).was_cancelled
    width_m = cell.arm.width_m
    cell.station.spin(0.3)
    assert width_m > 0.005
    assert cell.arm.width_m == pytest.approx(width_m, abs=0.01)


def test_a_scene_reset_ends_a_motion_with_its_reason(cell: ArmStation) -> None:
    goal = cell.begin(move(0.8))
    cell.reset()
    cell.ended(goal)
    assert not goal.succeeded
    assert "stopped: scene reset" in goal.why


def test_an_episode_may_begin_with_everything_where_it_is(cell: ArmStation) -> None:
    goal = cell.ended(cell.arm.execute(move(0.2)))
    assert goal.succeeded
    before, now_ns = cell.arm.position, cell.station.now_ns
    result = cell.station.reset(start="present")
    assert isinstance(result, ResetScene.Result)
    assert result.success
    cell.station.spin(0.1)
    assert cell.station.now_ns - now_ns < 10**9
    np.testing.assert_allclose(cell.arm.position, before, atol=1e-3)


def test_a_deactivated_twin_ends_a_motion_and_takes_none(cell: ArmStation) -> None:
    client = cell.station.node.create_client(ChangeState, "twin/change_state")
    cell.until(client.service_is_ready)

    def change(transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert cell.station._wait(client.call_async(request)).success

    goal = cell.begin(move(0.8))
    change(Transition.TRANSITION_DEACTIVATE)
    assert "stopped: the twin is not active" in cell.ended(goal).why
    refused = cell.ended(cell.arm.execute(move(0.1)))
    assert "the twin is not active" in refused.why
    change(Transition.TRANSITION_ACTIVATE)
    cell.reset()
    assert cell.ended(cell.arm.execute(move(0.05))).succeeded
