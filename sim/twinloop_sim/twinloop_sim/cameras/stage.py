# SPDX-License-Identifier: Apache-2.0
"""What the cameras of the cell see and from where, as the URDF and the scene's settings have it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from twinloop.perception.camera_model import CameraModel, StereoModel, pinhole
from twinloop.robots.description import cell_urdf, hand_joint_names, hand_urdf, joint_prefix
from twinloop.robots.kinematics import Chain
from twinloop.robots.panda import FINGER_JOINTS, PANDA
from twinloop.robots.rotations import matrix_from_rpy

from twinloop_sim.cameras.meshes import Mesh, capsule
from twinloop_sim.settings import STEREO, TRAY, SceneSettings

Array = NDArray[np.float64]
Kind = Literal["box", "sphere", "capsule"]
_FLOOR = "floor"


@dataclass(frozen=True)
class Piece:
    """A visible shape of the robot.

    Attributes:
        link: whose frame it is in.
        kind: box, sphere or capsule (along z).
        size: half edges of a box, or radius and half the length between a capsule's centres, m.
        offset: pose in the link [4, 4].
        material: its name in the URDF.
    """

    link: str
    kind: Kind
    size: tuple[float, ...]
    offset: Array
    material: str

    def mesh(self, fineness: int = 1) -> Mesh | None:
        """Return the triangles of a round shape, None for a box."""
        if self.kind == "box":
            return None
        radius, half = (*self.size, 0.0)[:2]
        return capsule(radius, half, 12 * fineness, 6 * fineness)


class Shapes:
    """The visible shapes of a hand, or of the cell with ramp, tray and arm, posed by its joints.

    Args:
        side: of the hand.
        arm: whether it is the cell.

    Attributes:
        joints: how many: 24 of the hand, then 7 of the arm and 2 of the fingers (m), if it has one.
        pieces: the shapes, without a floor.
        is_hand: which of them are the hand's [P].
        colors: RGB of the materials in the URDF, 0 to 1.
        floor_m: how high the floor is.
    """

    def __init__(self, side: str, arm: bool = False) -> None:
        urdf = cell_urdf(side) if arm else hand_urdf(side)
        every = pieces(urdf)
        self.pieces = [piece for piece in every if piece.link != _FLOOR]
        floor = [piece.size[2] + piece.offset[2, 3] for piece in every if piece.link == _FLOOR]
        names = (*hand_joint_names(side), *(PANDA.joint_names if arm else ()))
        slides = _slides(urdf)
        self._slide = np.zeros((len(self.pieces), 3))
        self._column = np.full(len(self.pieces), len(names))
        links, offsets = [], []
        for index, piece in enumerate(self.pieces):
            link, offset = piece.link, piece.offset
            if link in slides:
                link, origin, axis, joint = slides[link]
                offset = origin @ offset
                self._slide[index] = origin[:3, :3] @ axis
                self._column[index] += FINGER_JOINTS.index(joint)
            links.append(link)
            offsets.append(offset)
        self.joints = len(names) + (len(FINGER_JOINTS) if arm else 0)
        self._turning = len(names)
        self.is_hand = np.array([p.link.startswith(joint_prefix(side)) for p in self.pieces])
        self.colors = material_colors(urdf)
        self._chain = Chain(urdf, names, tuple(links))
        self._offset = np.stack(offsets)
        self.floor_m = 0.0
        if arm:
            ground, _ = Chain(urdf, (), (_FLOOR,)).poses(np.zeros(0))
            self.floor_m = float(ground[0, 2]) + max(floor)

    def poses(self, q: Array) -> tuple[Array, Array]:
        """Return positions [P, 3], m, and rotations [P, 3, 3] of the pieces for joints [J]."""
        position, rotation = self._chain.poses(q[: self._turning])
        offset = self._offset[:, :3, 3]
        if len(q) > self._turning:
            out = np.append(q, 0.0)[self._column]
            offset = offset + out[:, None] * self._slide
        place = position + np.einsum("pij,pj->pi", rotation, offset)
        return place, rotation @ self._offset[:, :3, :3]


def _slides(urdf: str) -> dict[str, tuple[str, Array, Array, str]]:
    """Return, of links that slide: the link above, the joint's origin and axis, and its name."""
    found = {}
    for joint in ElementTree.fromstring(urdf).findall("joint[@type='prismatic']"):
        parent, child, axis = (joint.find(tag) for tag in ("parent", "child", "axis"))
        assert parent is not None
        assert child is not None
        assert axis is not None
        way = np.array([float(part) for part in axis.attrib["xyz"].split()])
        origin = _pose(joint.find("origin"))
        found[child.attrib["link"]] = (parent.attrib["link"], origin, way, joint.attrib["name"])
    return found


def pieces(urdf: str) -> list[Piece]:
    """Return the visual shapes of a URDF.

    Raises:
        ValueError: a shape that is neither box, sphere nor capsule.
    """
    found = []
    for link in ElementTree.fromstring(urdf).findall("link"):
        for visual in link.findall("visual"):
            shape, material = visual.find("geometry/*"), visual.find("material")
            name = link.attrib["name"]
            if shape is None or shape.tag not in ("box", "sphere", "capsule"):
                kind = None if shape is None else shape.tag
                raise ValueError(f"link {name} looks like a {kind}, which cannot be drawn")
            found.append(
                Piece(
                    name,
                    shape.tag,  # type: ignore[arg-type]
                    _size(shape),
                    _pose(visual.find("origin")),
                    "" if material is None else material.attrib["name"],
                )
            )
    return found


def material_colors(urdf: str) -> dict[str, tuple[float, float, float]]:
    """Return the RGB colours of a URDF's materials by name, 0 to 1."""
    colors = {}
    for material in ElementTree.fromstring(urdf).findall("material"):
        color = material.find("color")
        if color is not None:
            r, g, b, _ = (float(part) for part in color.attrib["rgba"].split())
            colors[material.attrib["name"]] = (r, g, b)
    return colors


def camera_poses(scene: SceneSettings, arm: bool = False) -> dict[str, Array]:
    """Return the nominal poses [4, 4] of the cameras on links: optical frames, world.

    They stand on mounts that do not move. The tray's camera is there with the arm only.
    """
    links = {
        name: camera.link
        for name, camera in scene.cameras.items()
        if camera.link and (arm or name != TRAY)
    }
    urdf = cell_urdf(scene.side) if arm else hand_urdf(scene.side)
    position, rotation = Chain(urdf, (), tuple(links.values())).poses(np.zeros(0))
    poses = {}
    for index, name in enumerate(links):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation[index], position[index]
        poses[name] = pose
    return poses


def camera_model(scene: SceneSettings, name: str) -> CameraModel:
    """Return the nominal calibration of a camera of the scene."""
    camera = scene.cameras[name]
    baseline_m = 0.0
    if name == STEREO[1]:
        left, right = (camera_poses(scene)[eye] for eye in STEREO)
        baseline_m = float(np.linalg.norm(right[:3, 3] - left[:3, 3]))
    return pinhole(name, camera.size, camera.horizontal_fov_deg, baseline_m)


def stereo_model(scene: SceneSettings) -> StereoModel:
    """Return the nominal calibration of the stereo pair."""
    left, right = (camera_model(scene, name) for name in STEREO)
    return StereoModel(left, right)


def _size(shape: ElementTree.Element) -> tuple[float, ...]:
    if shape.tag == "box":
        return tuple(float(edge) / 2 for edge in shape.attrib["size"].split())
    radius = float(shape.attrib["radius"])
    return (radius, float(shape.attrib["length"]) / 2) if shape.tag == "capsule" else (radius,)


def _pose(origin: ElementTree.Element | None) -> Array:
    attributes = {} if origin is None else origin.attrib
    pose = np.eye(4)
    rpy = [float(part) for part in attributes.get("rpy", "0 0 0").split()]
    pose[:3, :3] = matrix_from_rpy(np.array(rpy))
    pose[:3, 3] = [float(part) for part in attributes.get("xyz", "0 0 0").split()]
    return pose
