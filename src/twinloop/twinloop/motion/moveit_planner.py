# SPDX-License-Identifier: Apache-2.0
"""The arm by MoveIt, where moveit_py is installed.

It is given the cell's URDF and the files under config/moveit, as the default planner.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from twinloop.motion.errors import (
    ExecutionFailed,
    GoalInCollision,
    MotionError,
    NoPath,
    StartInCollision,
    Unreachable,
)
from twinloop.motion.planner import ArmPlanner, Pose, Scene
from twinloop.motion.semantics import ARM, srdf
from twinloop.motion.trajectory import Trajectory
from twinloop.paths import share
from twinloop.robots.description import cell_urdf
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_JOINTS, PANDA
from twinloop.robots.rotations import quaternion_from_matrix
from twinloop.yaml_files import read_yaml

_WORLD = "world"
_HELD = "held_ball"
_GRIPPER = ("panda_hand", "panda_leftfinger", "panda_rightfinger", "panda_link7")
# moveit_msgs/MoveItErrorCodes
_ERRORS: dict[int, type[MotionError]] = {
    -10: StartInCollision,
    -12: GoalInCollision,
    -31: Unreachable,
}


def moveit_config(side: str = "right") -> dict[str, Any]:
    """Return what `MoveItPy` wants to know, as one dictionary of parameters."""

    def read(name: str) -> Any:
        return read_yaml(share("config", "moveit", f"{name}.yaml"))

    ompl = read("ompl_planning")
    return {
        "robot_description": cell_urdf(side, capsules=False),
        "robot_description_semantic": srdf(side),
        "robot_description_kinematics": read("kinematics"),
        "robot_description_planning": read("joint_limits"),
        "planning_pipelines": {"pipeline_names": ["ompl"]},
        "ompl": ompl,
        "plan_request_params": {
            "planning_pipeline": "ompl",
            "planner_id": "RRTConnect",
            "planning_attempts": 1,
            "planning_time": 2.0,
            "max_velocity_scaling_factor": 1.0,
            "max_acceleration_scaling_factor": 1.0,
        },
        **read("moveit_controllers"),
    }


class MoveItPlanner(ArmPlanner):
    """See `ArmPlanner`. Motions are carried out by MoveIt's controllers unless `execute` is given.

    Args:
        moveit: a `MoveItPy` that is up already.

    Raises:
        ImportError: moveit_py is not installed.
    """

    name = "moveit"

    def __init__(
        self,
        current: Callable[[], ArrayLike] | None = None,
        execute: Callable[[Trajectory], bool] | None = None,
        side: str = "right",
        moveit: Any = None,
    ) -> None:
        super().__init__(current, execute, side)
        self._planning = importlib.import_module("moveit.planning")
        self._robot_state = importlib.import_module("moveit.core.robot_state")
        self._moveit = moveit or self._planning.MoveItPy(
            node_name="arm_planner", config_dict=moveit_config(side)
        )
        self._component = self._moveit.get_planning_component(ARM)
        self._model = self._moveit.get_robot_model()
        self._scene = Scene()
        self._planned: tuple[Trajectory, Any] | None = None

    def set_scene(self, scene: Scene) -> None:
        from geometry_msgs.msg import Pose as PoseMessage

        # They come with MoveIt, as moveit_py itself.
        messages = importlib.import_module("moveit_msgs.msg")
        CollisionObject = messages.CollisionObject
        SolidPrimitive = importlib.import_module("shape_msgs.msg").SolidPrimitive
        self._scene = scene

        def sphere(name: str, frame: str, place: ArrayLike, radius: float) -> Any:
            thing = CollisionObject(id=name, operation=CollisionObject.ADD)
            thing.header.frame_id = frame
            thing.primitives = [SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[radius])]
            pose = PoseMessage()
            pose.position.x, pose.position.y, pose.position.z = map(float, np.asarray(place))
            thing.primitive_poses = [pose]
            return thing

        with self._moveit.get_planning_scene_monitor().read_write() as planning_scene:
            planning_scene.remove_all_collision_objects()
            for index, ball in enumerate(scene.balls):
                planning_scene.apply_collision_object(
                    sphere(f"ball_{index}", _WORLD, ball.position, ball.radius_m)
                )
            held = messages.AttachedCollisionObject(link_name="panda_hand_tcp")
            held.touch_links = list(_GRIPPER)
            held.object = sphere(_HELD, "panda_hand_tcp", (0, 0, 0), scene.held_radius_m)
            if scene.held_radius_m == 0.0:
                held.object.operation = CollisionObject.REMOVE
            planning_scene.process_attached_collision_object(held)

    def plan(
        self,
        timeout_s: float = 2.0,
        velocity_scaling: float = 1.0,
        acceleration_scaling: float = 1.0,
    ) -> Trajectory:
        if self.start is None or self.goal is None:
            raise ValueError("arm planner: start and goal states must be set")
        self._component.set_start_state(robot_state=self._state(self.start))
        if isinstance(self.goal, Pose):
            self._component.set_goal_state(
                pose_stamped_msg=_stamped(self.goal), pose_link=self.goal_link
            )
        else:
            self._component.set_goal_state(robot_state=self._state(self.goal))
        parameters = self._planning.PlanRequestParameters(self._moveit, "")
        parameters.planning_time = timeout_s
        parameters.max_velocity_scaling_factor = velocity_scaling
        parameters.max_acceleration_scaling_factor = acceleration_scaling
        result = self._component.plan(parameters)
        if not result:
            code = int(getattr(result.error_code, "val", 0))
            raise _ERRORS.get(code, NoPath)(f"MoveIt found no motion: error code {code}")
        trajectory = _points(result.trajectory)
        self._planned = (trajectory, result.trajectory)
        return trajectory

    def plan_line(
        self, goal: Pose, speed: float = 0.15, margin_m: float = 0.002, acceleration: float = 0.3
    ) -> Trajectory:
        # moveit_py has no Cartesian interpolator: lines come from the default planner.
        from twinloop.motion.ompl_planner import OmplPlanner

        planner = OmplPlanner(side=self.side)
        planner.set_scene(self._scene)
        if self.start is None:
            raise ValueError("arm planner: no start state was set")
        planner.set_start_state(self.start)
        return planner.plan_line(goal, speed, margin_m, acceleration)

    def execute(self, trajectory: Trajectory) -> None:
        if self._execute is None and self._planned and self._planned[0] is trajectory:
            status = self._moveit.execute(self._planned[1], controllers=[])
            if status is not None and not status:
                raise ExecutionFailed(f"MoveIt did not finish the motion: {status}")
            return
        super().execute(trajectory)

    def _state(self, q: np.ndarray) -> Any:
        state = self._robot_state.RobotState(self._model)
        prefix = "rh_" if self.side == "right" else "lh_"
        hand = {
            prefix + name[3:]: float(value)
            for name, value in zip(HAND24.joint_names, self._scene.hand, strict=True)
        }
        fingers = dict.fromkeys(FINGER_JOINTS, self._scene.finger_m)
        arm = dict(zip(PANDA.joint_names, map(float, q), strict=True))
        state.joint_positions = {**hand, **fingers, **arm}
        state.update()
        return state


def _stamped(pose: Pose) -> Any:
    from geometry_msgs.msg import PoseStamped

    message = PoseStamped()
    message.header.frame_id = _WORLD
    at, turn = message.pose.position, message.pose.orientation
    at.x, at.y, at.z = map(float, pose.position)
    turn.w, turn.x, turn.y, turn.z = map(float, quaternion_from_matrix(pose.rotation))
    return message


def _points(planned: Any) -> Trajectory:
    """The arm's trajectory of MoveIt's, joints in our order."""
    message = planned.get_robot_trajectory_msg().joint_trajectory
    order = [message.joint_names.index(name) for name in PANDA.joint_names]

    def column(kind: str) -> np.ndarray:
        return np.array([getattr(point, kind) for point in message.points])[:, order]

    stamps = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points]
    return Trajectory(
        PANDA.joint_names,
        np.array(stamps),
        column("positions"),
        column("velocities"),
        column("accelerations"),
    )
