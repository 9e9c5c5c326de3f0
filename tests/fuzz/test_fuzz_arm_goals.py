# SPDX-License-Identifier: Apache-2.0
"""Bad goals for an arm and its gripper: refused with a reason, and nothing moves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import rclpy
from control_msgs.action import FollowJointTrajectory, GripperCommand
from hypothesis import given
from hypothesis import strategies as st
from messages import FLOATS, broken
from tally import TALLY, examples
from trajectory_msgs.msg import JointTrajectoryPoint
from twinloop.dds import leave_domain, take_domain
from twinloop.motion.gripper_controller import GripperController, GripperSettings
from twinloop.motion.semantics import arm_limits
from twinloop.motion.trajectory_controller import TrajectoryController
from twinloop.nodes.gripper_action import GripperAction
from twinloop.nodes.trajectory_action import TrajectoryAction
from twinloop.robots.panda import PANDA

READY = PANDA.poses["ready"]
NOW_NS = 1_700_000_000 * 10**9


class Handle:
    """Stands in for the handle of a goal that was sent; keeps what is to be executed."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.goal_id = object()
        self.answer: Any = None

    def execute(self, call: partial[Any]) -> None:
        self.answer = call.args[0]

    def reason(self) -> str:
        """What the goal was refused with; empty where it was begun."""
        if not self.answer.done():
            return ""
        result = self.answer.result()[1]
        return getattr(result, "error_string", "") or "refused"


@pytest.fixture
def node() -> Iterator[Any]:
    domain = take_domain()
    rclpy.init(domain_id=domain)
    made = rclpy.create_node("fuzz_arm")
    yield made
    made.destroy_node()
    rclpy.try_shutdown()
    leave_domain(domain)


@pytest.fixture
def arm(node: Any) -> Iterator[TrajectoryAction]:
    follower = TrajectoryController(PANDA.joint_names, arm_limits(), READY)
    action = TrajectoryAction(node, follower, lambda: NOW_NS)
    yield action
    action.close()


def goal() -> FollowJointTrajectory.Goal:
    made = FollowJointTrajectory.Goal()
    made.trajectory.joint_names = list(PANDA.joint_names)
    for number, share in enumerate((0.0, 0.05, 0.1)):
        point = JointTrajectoryPoint(positions=(READY + share).tolist(), velocities=[0.0] * 7)
        point.time_from_start.sec = 2 * number
        made.trajectory.points.append(point)
    return made


@examples(300)
@given(data=st.data())
def test_bad_trajectories_are_refused(arm: TrajectoryAction, data: st.DataObject) -> None:
    follower = TrajectoryController(PANDA.joint_names, arm_limits(), READY)
    # The server is the same each time: to make one takes longer than all the rest.
    arm._follower, arm._goal = follower, None
    request = data.draw(broken(goal)) if data.draw(st.booleans()) else goal()
    if data.draw(st.integers(0, 4)):
        request.trajectory = data.draw(broken(lambda: goal().trajectory))
    handle: Any = Handle(request)

    def reason() -> str:
        arm._on_accepted(handle)
        return str(handle.reason())

    refused = TALLY.ask("arm's goal", reason)
    told = [follower.step(0.01 * tick, READY, np.zeros(7)).position for tick in range(30)]
    assert np.isfinite(told).all()
    if refused:
        np.testing.assert_array_equal(told, [READY] * 30)
    else:
        limits = arm_limits()
        assert (np.array(told) >= limits.lower - 1e-3).all()
        assert (np.array(told) <= limits.upper + 1e-3).all()


def test_trajectories_that_take_for_ever_are_no_hang(node: Any) -> None:
    for sec in (10**5, 2**31 - 1):
        follower = TrajectoryController(PANDA.joint_names, arm_limits(), READY)
        action = TrajectoryAction(node, follower, lambda: NOW_NS, f"fuzz_{sec}")
        made = goal()
        made.trajectory.points = made.trajectory.points[:1]
        made.trajectory.points[0].time_from_start.sec = sec
        handle: Any = Handle(made)

        def reason(handle: Any = handle, action: TrajectoryAction = action) -> str:
            action._on_accepted(handle)
            return str(handle.reason())

        TALLY.ask("arm's goal", reason)
        action.close()


@examples(300)
@given(position=FLOATS, effort=FLOATS)
def test_bad_gripper_commands_are_refused(node: Any, position: float, effort: float) -> None:
    gripper = GripperController(GripperSettings(), 0.04)
    action = GripperAction(node, gripper, f"grip_{id(gripper)}")
    made = GripperCommand.Goal()
    made.command.position, made.command.max_effort = position, effort
    handle: Any = Handle(made)

    def reason() -> str:
        action._on_accepted(handle)
        return str(handle.reason())

    refused = TALLY.ask("gripper's goal", reason)
    target = [gripper.step(0.01 * tick, 0.04).width_m for tick in range(10)]
    assert np.isfinite(target).all()
    assert min(target) >= 0.0
    assert max(target) <= GripperSettings().widest_m
    if refused:
        assert target == [0.04] * 10
    action.close()


def test_a_point_beyond_all_numbers_on_the_way_is_refused_by_joint(arm: TrajectoryAction) -> None:
    """Its way is not finite where its points are, and comparisons with NaN are all false."""
    request = goal()
    request.trajectory.points[1].positions[2] = 1e308
    handle: Any = Handle(request)
    arm._on_accepted(handle)
    assert "panda_joint3" in handle.reason()
