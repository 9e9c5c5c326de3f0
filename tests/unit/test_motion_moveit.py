# SPDX-License-Identifier: Apache-2.0
"""The adapter to MoveIt, against a stand-in for moveit_py that notes what it is told.

MoveIt itself has no wheel and was not run; the stand-in has the names and signatures of
moveit_py's bindings.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from twinloop.motion import make_planner
from twinloop.motion.errors import ExecutionFailed, GoalInCollision, NoPath
from twinloop.motion.moveit_planner import MoveItPlanner, moveit_config
from twinloop.motion.planner import Ball, Pose, Scene
from twinloop.robots.panda import PANDA

READY = PANDA.poses["ready"]
DOWN = np.diag([1.0, -1.0, -1.0])


class RobotState:
    def __init__(self, model) -> None:
        assert model == "model"
        self.joint_positions: dict[str, float] = {}
        self.updated = False

    def update(self) -> None:
        self.updated = True


class PlanRequestParameters:
    def __init__(self, moveit, namespace: str) -> None:
        self.moveit = moveit


class Result:
    def __init__(self, found: bool, code: int) -> None:
        self.found = found
        self.error_code = SimpleNamespace(val=code)
        # In MoveIt's own order of joints, which is not ours.
        names = tuple(reversed(PANDA.joint_names))
        points = [
            SimpleNamespace(
                positions=[step * 0.1] * 6 + [step * 0.5],
                velocities=[0.0] * 7,
                accelerations=[0.0] * 7,
                time_from_start=SimpleNamespace(sec=step, nanosec=500_000_000),
            )
            for step in range(2)
        ]
        message = SimpleNamespace(
            joint_trajectory=SimpleNamespace(joint_names=list(names), points=points)
        )
        self.trajectory = SimpleNamespace(get_robot_trajectory_msg=lambda: message)

    def __bool__(self) -> bool:
        return self.found


class Component:
    def __init__(self) -> None:
        self.told: dict[str, object] = {}
        self.answer = Result(True, 1)

    def set_start_state(self, robot_state=None) -> None:
        self.told["start"] = robot_state

    def set_goal_state(self, robot_state=None, pose_stamped_msg=None, pose_link=None) -> None:
        self.told["goal"] = robot_state or (pose_stamped_msg, pose_link)

    def plan(self, parameters) -> Result:
        self.told["parameters"] = parameters
        return self.answer


class MoveItPy:
    def __init__(self, node_name: str, config_dict: dict) -> None:
        self.config = config_dict
        self.component = Component()
        self.executed: list[object] = []
        self.finishes = True
        self.objects: list[object] = []
        self.attached: list[object] = []

    def get_planning_component(self, group: str) -> Component:
        assert group == "panda_arm"
        return self.component

    def get_robot_model(self) -> str:
        return "model"

    def execute(self, trajectory, controllers) -> bool:
        self.executed.append(trajectory)
        return self.finishes

    def get_planning_scene_monitor(self):
        @contextmanager
        def read_write():
            yield SimpleNamespace(
                remove_all_collision_objects=self.objects.clear,
                apply_collision_object=self.objects.append,
                process_attached_collision_object=self.attached.append,
            )

        return SimpleNamespace(read_write=read_write)


class Message(SimpleNamespace):
    """A message whose fields are made when they are first named."""

    ADD, REMOVE, SPHERE = b"\x00", b"\x01", 2

    def __getattr__(self, name: str) -> Message:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, Message())
        return self.__dict__[name]


@pytest.fixture
def planner(monkeypatch) -> MoveItPlanner:
    def module(name: str, **content) -> None:
        made = ModuleType(name)
        made.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, made)

    module("moveit")
    module("moveit.core")
    module("moveit.core.robot_state", RobotState=RobotState)
    module("moveit.planning", MoveItPy=MoveItPy, PlanRequestParameters=PlanRequestParameters)
    module("moveit_msgs")
    module("moveit_msgs.msg", CollisionObject=Message, AttachedCollisionObject=Message)
    module("shape_msgs")
    module("shape_msgs.msg", SolidPrimitive=Message)
    made = make_planner("moveit")
    assert isinstance(made, MoveItPlanner)
    return made


def test_without_moveit_the_planner_says_so() -> None:
    if importlib.util.find_spec("moveit"):
        pytest.skip("moveit_py is installed")
    with pytest.raises(ImportError, match="moveit"):
        make_planner("moveit")


def test_moveit_reads_the_same_description_semantics_and_limits() -> None:
    config = moveit_config()
    assert "<capsule" not in config["robot_description"]  # not plain URDF
    assert 'robot name="twinloop_cell"' in config["robot_description_semantic"]
    limits = config["robot_description_planning"]["joint_limits"]
    assert [limits[name]["max_jerk"] for name in PANDA.joint_names] == PANDA.jerk.tolist()
    assert config["ompl"]["panda_arm"]["default_planner_config"] == "RRTConnect"
    controller = config["moveit_simple_controller_manager"]["panda_arm_controller"]
    assert controller["joints"] == list(PANDA.joint_names)


def test_moveit_is_told_start_goal_time_and_shares_of_limits(planner) -> None:
    component = planner._moveit.component
    planner.set_start_state("rest")
    planner.set_goal_state(joint_positions=READY)
    trajectory = planner.plan(timeout_s=1.5, velocity_scaling=0.4, acceleration_scaling=0.2)
    start, goal = component.told["start"], component.told["goal"]
    assert start.updated
    assert [goal.joint_positions[name] for name in PANDA.joint_names] == READY.tolist()
    assert start.joint_positions["rh_WRJ1"] == pytest.approx(-0.398)
    parameters = component.told["parameters"]
    assert (parameters.planning_time, parameters.max_velocity_scaling_factor) == (1.5, 0.4)
    assert parameters.max_acceleration_scaling_factor == 0.2
    # MoveIt's last joint is our first.
    np.testing.assert_allclose(trajectory.position[1], [0.5] + [0.1] * 6)
    np.testing.assert_allclose(trajectory.time, [0.5, 1.5])


def test_moveit_is_given_poses_in_the_world(planner) -> None:
    planner.set_start_state("rest")
    planner.set_goal_state(pose=Pose(np.array([0.1, 0.2, 0.3]), DOWN))
    planner.plan()
    message, link = planner._moveit.component.told["goal"]
    assert (message.header.frame_id, link) == ("world", "panda_hand_tcp")
    at, turn = message.pose.position, message.pose.orientation
    assert (at.x, at.y, at.z) == (0.1, 0.2, 0.3)
    assert abs(turn.x) == pytest.approx(1.0)  # half a turn about x


def test_moveit_is_told_of_balls_and_of_the_one_held(planner) -> None:
    planner.set_scene(Scene(held_radius_m=0.028, balls=(Ball(np.array([0.0, 0.1, 0.2]), 0.03),)))
    (ball,) = planner._moveit.objects
    assert ball.primitives[0].dimensions == [0.03]
    assert ball.primitive_poses[0].position.y == pytest.approx(0.1)
    held = planner._moveit.attached[-1]
    assert held.link_name == "panda_hand_tcp"
    assert "panda_leftfinger" in held.touch_links
    assert held.object.operation == Message.ADD
    planner.set_scene(Scene())
    assert planner._moveit.objects == []
    assert planner._moveit.attached[-1].object.operation == Message.REMOVE


@pytest.mark.parametrize(("code", "kind"), [(-12, GoalInCollision), (-1, NoPath), (99999, NoPath)])
def test_moveits_errors_have_our_names(planner, code: int, kind: type[Exception]) -> None:
    planner._moveit.component.answer = Result(False, code)
    planner.set_start_state("rest")
    planner.set_goal_state("ready")
    with pytest.raises(kind, match=str(code)):
        planner.plan()


def test_moveit_carries_out_what_it_planned(planner) -> None:
    planner.set_start_state("rest")
    planner.set_goal_state("ready")
    planner.execute(planner.plan())
    assert len(planner._moveit.executed) == 1
    planner._moveit.finishes = False
    with pytest.raises(ExecutionFailed, match="MoveIt"):
        planner.execute(planner.plan())


def test_lines_come_from_the_default_planner(planner) -> None:
    planner.set_start_state(READY)
    line = planner.plan_line(planner_pose_below_ready())
    assert line.duration > 0.0


def planner_pose_below_ready() -> Pose:
    return make_planner().world.pose(READY).moved([0.0, 0.0, -0.05])
