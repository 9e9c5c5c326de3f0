# SPDX-License-Identifier: Apache-2.0
"""The arm among everything it may touch: kinematics and collision checks by pinocchio and coal."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any

import coal
import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from twinloop.motion.planner import Pose, Scene
from twinloop.motion.semantics import TOOL, Semantics
from twinloop.robots.description import arm_cell_urdf, joint_prefix
from twinloop.robots.hand24 import HAND24
from twinloop.robots.panda import FINGER_JOINTS, PANDA

Array = NDArray[np.float64]

# How far a point of arm, gripper or held ball moves at most per radian of each joint, m: the sum of
# the links' lengths beyond it.
REACH = np.array([1.0, 1.0, 0.85, 0.72, 0.45, 0.32, 0.17])
_MAY_HOLD = ("panda_hand", "panda_leftfinger", "panda_rightfinger", "panda_link7")
_HELD = "held ball"


@dataclass
class _Checker:
    """What one check with one margin needs; the manager keeps pointers into the data."""

    data: Any
    manager: Any
    callback: Any


class World:
    """Arm and surroundings in one scene; `arrange` changes the scene.

    Args:
        semantics: which links may touch.
        side: of the hand.
        cell: that the arm stands in, `hand` or `bins`, where there is no hand.
    """

    def __init__(self, semantics: Semantics, side: str = "right", cell: str = "hand") -> None:
        self._semantics = semantics
        self._prefix = joint_prefix(side)
        # Capsules are no plain URDF: shapes are read from the one text, joints from the other.
        self._whole = pin.buildModelFromXML(arm_cell_urdf(cell, side, capsules=False))
        self._shapes = _shapes(self._whole, arm_cell_urdf(cell, side))
        self.arrange(Scene())

    def arrange(self, scene: Scene) -> None:
        """Put hand, gripper and balls as in a scene."""
        posture = pin.neutral(self._whole)
        names = [self._prefix + name[3:] for name in HAND24.joint_names]
        fingers = [(name, scene.finger_m) for name in FINGER_JOINTS]
        placed = [*zip(names, scene.hand, strict=True), *fingers]
        for name, value in placed:
            if not self._whole.existJointName(name):
                continue  # a cell without a hand
            posture[self._whole.joints[self._whole.getJointId(name)].idx_q] = value
        locked = [
            index
            for index, name in enumerate(self._whole.names)
            if index > 0 and name not in PANDA.joint_names
        ]
        self.model, self.shapes = pin.buildReducedModel(self._whole, self._shapes, locked, posture)
        self._data = self.model.createData()
        self._tool = self.model.getFrameId(TOOL)
        self._add_balls(scene)
        self._pair_up()
        self._checkers: dict[float, _Checker] = {}

    def pose(self, q: Array, link: str = TOOL) -> Pose:
        """Return a link's pose; raises ValueError for a link that is not there."""
        if not self.model.existFrame(link):
            raise ValueError(f"the cell's URDF has no link {link!r}")
        pin.framesForwardKinematics(self.model, self._data, q)
        placement = self._data.oMf[self.model.getFrameId(link)]
        return Pose(placement.translation.copy(), placement.rotation.copy())

    def tool_error(self, q: Array, wanted: Any) -> tuple[Array, Array]:
        """Return the twist [6] that leads the tool to a placement (pin.SE3), and the Jacobian.

        Both in the tool's frame, translation first; the Jacobian is [6, 7].
        """
        jacobian = pin.computeFrameJacobian(self.model, self._data, q, self._tool)
        pin.forwardKinematics(self.model, self._data, q)
        placement = pin.updateFramePlacement(self.model, self._data, self._tool)
        return pin.log6(placement.actInv(wanted)).vector, jacobian

    def is_free(self, q: Array, margin_m: float) -> bool:
        """Whether nothing is nearer than the margin to anything it may not touch."""
        checker = self._checker(margin_m)
        return not pin.computeCollisions(
            self.model, self._data, checker.manager, checker.callback, q
        )

    def touching(self, q: Array, margin_m: float) -> list[str]:
        """Return what is nearer than the margin, as `link and link`."""
        data = self._checker(margin_m).data
        pin.computeCollisions(self.model, self._data, self.shapes, data, q, False)
        found = {
            " and ".join(self._links(index))
            for index, result in enumerate(data.collisionResults)
            if result.isCollision()
        }
        return sorted(found)

    def clearance(self, q: Array) -> float:
        """Return the least distance of all pairs that may not touch, m; negative: depth."""
        data = pin.GeometryData(self.shapes)
        index = pin.computeDistances(self.model, self._data, self.shapes, data, q)
        return float(data.distanceResults[index].min_distance)

    def _checker(self, margin_m: float) -> _Checker:
        if margin_m not in self._checkers:
            data = pin.GeometryData(self.shapes)
            for request in data.collisionRequests:
                request.security_margin = margin_m
            # Compares all boxes around shapes: for some fifty, quicker than any tree.
            manager = pin.BroadPhaseManager_NaiveCollisionManager(self.model, self.shapes, data)
            callback = pin.CollisionCallBackDefault(self.shapes, data, True)
            self._checkers[margin_m] = _Checker(data, manager, callback)
        return self._checkers[margin_m]

    def _add_balls(self, scene: Scene) -> None:
        if scene.held_radius_m > 0.0:
            frame = self.model.frames[self._tool]
            self._add(_HELD, frame.parentJoint, frame.placement, scene.held_radius_m)
        for index, ball in enumerate(scene.balls):
            place = pin.SE3(np.eye(3), np.asarray(ball.position, dtype=np.float64))
            self._add(f"ball {index}", 0, place, ball.radius_m)

    def _add(self, name: str, joint: int, placement: Any, radius_m: float) -> None:
        shape = coal.Sphere(radius_m)
        self.shapes.addGeometryObject(pin.GeometryObject(name, joint, placement, shape))

    def _pair_up(self) -> None:
        objects = list(self.shapes.geometryObjects)
        mine = [_link(one).startswith("panda") or one.name == _HELD for one in objects]
        for i, first in enumerate(objects):
            for j, second in enumerate(objects[:i]):
                links = frozenset((_link(first), _link(second)))
                holds = _HELD in links and bool(links & set(_MAY_HOLD))
                may_touch = len(links) == 1 or holds or links in self._semantics.allowed
                if (mine[i] or mine[j]) and not may_touch and not _both_stand(first, second):
                    self.shapes.addCollisionPair(pin.CollisionPair(i, j))

    def _links(self, pair: int) -> list[str]:
        both = self.shapes.collisionPairs[pair]
        return sorted(_link(self.shapes.geometryObjects[i]) for i in (both.first, both.second))


def _link(shape: Any) -> str:
    return str(shape.name).partition("/")[0]


def _both_stand(first: Any, second: Any) -> bool:
    return first.parentJoint == 0 and second.parentJoint == 0


def _shapes(model: Any, urdf: str) -> Any:
    """Collision shapes of a URDF with capsules; each is named LINK/NUMBER."""
    found = pin.GeometryModel()
    for link in ElementTree.fromstring(urdf).findall("link"):
        frame_id = model.getFrameId(link.attrib["name"])
        frame = model.frames[frame_id]
        for index, collision in enumerate(link.findall("collision")):
            origin = collision.find("origin")
            attributes = {} if origin is None else origin.attrib
            xyz = _numbers(attributes.get("xyz", "0 0 0"))
            turn = pin.rpy.rpyToMatrix(_numbers(attributes.get("rpy", "0 0 0")))
            found.addGeometryObject(
                pin.GeometryObject(
                    f"{link.attrib['name']}/{index}",
                    frame.parentJoint,
                    frame_id,
                    frame.placement * pin.SE3(turn, xyz),
                    _shape(collision.find("geometry/*")),
                )
            )
    return found


def _shape(element: ElementTree.Element | None) -> Any:
    kind = None if element is None else element.tag
    if element is not None and kind == "box":
        return coal.Box(*_numbers(element.attrib["size"]))
    if element is not None and kind == "sphere":
        return coal.Sphere(float(element.attrib["radius"]))
    if element is not None and kind == "capsule":
        return coal.Capsule(float(element.attrib["radius"]), float(element.attrib["length"]))
    raise ValueError(f"collision shape {kind!r}, expected box, sphere or capsule")


def _numbers(text: str) -> Array:
    return np.array([float(part) for part in text.split()])
