# SPDX-License-Identifier: Apache-2.0
"""What the cameras of the cell see and from where, as the URDF and the scene's settings have it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from twinloop.perception.camera_model import CameraModel, StereoModel, pinhole
from twinloop.robots.description import hand_joint_names, hand_urdf
from twinloop.robots.kinematics import Chain
from twinloop.robots.rotations import matrix_from_rpy

from twinloop_sim.cameras.meshes import Mesh, capsule
from twinloop_sim.settings import STEREO, SceneSettings

Array = NDArray[np.float64]
Kind = Literal["box", "sphere", "capsule"]


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


class Hand:
    """The visible shapes of a hand, posed by its joints.

    Attributes:
        pieces: the shapes.
        colors: RGB of the materials in the URDF, 0 to 1.
    """

    def __init__(self, side: str) -> None:
        urdf = hand_urdf(side)
        self.pieces = pieces(urdf)
        self.colors = material_colors(urdf)
        links = tuple(piece.link for piece in self.pieces)
        self._chain = Chain(urdf, hand_joint_names(side), links)
        self._offset = np.stack([piece.offset for piece in self.pieces])

    def poses(self, q: Array) -> tuple[Array, Array]:
        """Return positions [P, 3], m, and rotations [P, 3, 3] of the pieces for joints [24]."""
        position, rotation = self._chain.poses(q)
        place = position + np.einsum("pij,pj->pi", rotation, self._offset[:, :3, 3])
        return place, rotation @ self._offset[:, :3, :3]


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


def camera_poses(scene: SceneSettings) -> dict[str, Array]:
    """Return the nominal poses [4, 4] of the cameras on the robot's links: optical frames, world.

    They stand on the hand's mount, which does not move.
    """
    links = {name: camera.link for name, camera in scene.cameras.items() if camera.link}
    chain = Chain(hand_urdf(scene.side), (), tuple(links.values()))
    position, rotation = chain.poses(np.zeros(0))
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
