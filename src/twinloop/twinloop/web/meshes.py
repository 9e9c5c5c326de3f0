# SPDX-License-Identifier: Apache-2.0
"""The visual shapes of a URDF as triangles."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from twinloop.robots.rotations import matrix_from_rpy

_GREY = (180, 180, 180)
_ROUND = (12, 12)  # segments about and along a capsule


@dataclass(frozen=True)
class Shape:
    """Triangles in their link's frame.

    Attributes:
        vertices: [V, 3], m.
        faces: [F, 3], indices.
        colour: 0 to 255.
    """

    link: str
    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colour: tuple[int, int, int]


def visible_meshes(urdf: str) -> list[Shape]:
    """Return the visual shapes, those of a link and colour in one.

    Raises:
        ValueError: a shape that is none of box, capsule, cylinder and sphere.
    """
    root = ElementTree.fromstring(urdf)
    known = {one.attrib["name"]: _colour(one) for one in root.findall("material")}
    merged: dict[tuple[str, tuple[int, int, int]], list[trimesh.Trimesh]] = {}
    for link in root.findall("link"):
        for visual in link.findall("visual"):
            material = visual.find("material")
            colour = _GREY
            if material is not None:
                colour = _colour(material) or known.get(material.attrib.get("name", "")) or _GREY
            merged.setdefault((link.attrib["name"], colour), []).append(
                _mesh(link.attrib["name"], visual)
            )
    shapes = []
    for (name, colour), parts in merged.items():
        whole: Any = trimesh.util.concatenate(parts)
        shapes.append(
            Shape(name, whole.vertices.astype(np.float32), whole.faces.astype(np.int32), colour)
        )
    return shapes


def _mesh(link: str, visual: ElementTree.Element) -> trimesh.Trimesh:
    shape = visual.find("geometry/*")
    kind = None if shape is None else shape.tag
    about = {} if shape is None else shape.attrib
    if kind == "sphere":
        mesh = trimesh.creation.icosphere(subdivisions=2, radius=float(about["radius"]))
    elif kind == "capsule":
        mesh = trimesh.creation.capsule(
            height=float(about["length"]), radius=float(about["radius"]), count=list(_ROUND)
        )
    elif kind == "cylinder":
        mesh = trimesh.creation.cylinder(
            radius=float(about["radius"]), height=float(about["length"]), sections=_ROUND[0]
        )
    elif kind == "box":
        mesh = trimesh.creation.box([float(edge) for edge in about["size"].split()])
    else:
        raise ValueError(
            f"link {link} looks like a {kind}, expected box, capsule, cylinder or sphere"
        )
    origin = visual.find("origin")
    told = {} if origin is None else origin.attrib
    place, rpy = (
        np.array([float(part) for part in told.get(key, "0 0 0").split()]) for key in ("xyz", "rpy")
    )
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = matrix_from_rpy(rpy), place
    return mesh.apply_transform(transform)


def _colour(material: ElementTree.Element) -> tuple[int, int, int] | None:
    element = material.find("color")
    if element is None:
        return None
    red, green, blue, _ = (round(255 * float(part)) for part in element.attrib["rgba"].split())
    return red, green, blue
