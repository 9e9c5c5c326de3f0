# SPDX-License-Identifier: Apache-2.0
"""Where every link of a robot is: transforms of all joints, sliding ones and mimics included."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.robots.rotations import matrix_from_rpy

Array = NDArray[np.float64]
_TURNING, _SLIDING = ("revolute", "continuous"), ("prismatic",)


@dataclass(frozen=True)
class Link:
    """A link below another one."""

    name: str
    parent: str
    joint: str
    is_fixed: bool


class LinkTree:
    """All links of a URDF below its root, parents before children.

    Args:
        urdf: robot description.

    Raises:
        ValueError: a joint of a kind that is none of fixed, revolute, continuous and prismatic.
    """

    def __init__(self, urdf: str) -> None:
        root = ElementTree.fromstring(urdf)
        joints = _parents_first(root.findall("joint"))
        self.links = tuple(
            Link(_link(one, "child"), _link(one, "parent"), one.attrib["name"], _is_fixed(one))
            for one in joints
        )
        self.root = next(
            (link.parent for link in self.links), root.findall("link")[0].attrib["name"]
        )
        self.names = (self.root, *(link.name for link in self.links))
        at = {name: index for index, name in enumerate(self.names)}
        self._parents = [at[link.parent] for link in self.links]
        places, turns = zip(*(_origin(one.find("origin")) for one in joints), strict=True)
        self._place, self._turn = np.stack(places), np.stack(turns)
        self._axis = np.stack([_axis(one) for one in joints])
        kinds = [one.attrib["type"] for one in joints]
        self._turns = np.array([kind in _TURNING for kind in kinds], dtype=np.float64)
        self._slides = np.array([kind in _SLIDING for kind in kinds], dtype=np.float64)
        self._follows = [_mimicked(one) for one in joints]

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints that can be set."""
        return tuple(
            link.joint
            for link, (follows, *_) in zip(self.links, self._follows, strict=True)
            if not link.is_fixed and follows == link.joint
        )

    def relative(self, positions: Mapping[str, float]) -> tuple[Array, Array]:
        """Return each link's place [L, 3], m, and turn [L, 3, 3] in its parent's frame.

        Joints that have no position [rad or m] stay at zero.
        """
        q = np.array([positions.get(name, 0.0) * k + c for name, k, c in self._follows])
        angle = (q * self._turns)[:, None, None]
        cross = np.cross(np.eye(3)[None], self._axis[:, None, :])
        # Rodrigues' formula.
        turned = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
        slid = (self._turn @ (self._axis * (q * self._slides)[:, None])[..., None])[..., 0]
        return self._place + slid, self._turn @ turned

    def world(self, positions: Mapping[str, float]) -> tuple[Array, Array]:
        """Return places [L + 1, 3], m, and turns [L + 1, 3, 3] in the root's frame, root first."""
        place, turn = self.relative(positions)
        places = np.zeros((len(self.names), 3))
        turns = np.empty((len(self.names), 3, 3))
        turns[0] = np.eye(3)
        for index, parent in enumerate(self._parents):
            places[index + 1] = places[parent] + turns[parent] @ place[index]
            turns[index + 1] = turns[parent] @ turn[index]
        return places, turns


def _parents_first(joints: list[ElementTree.Element]) -> list[ElementTree.Element]:
    for one in joints:
        if one.attrib["type"] not in ("fixed", *_TURNING, *_SLIDING):
            raise ValueError(
                f"joint {one.attrib['name']} is {one.attrib['type']}, expected fixed, revolute, "
                "continuous or prismatic"
            )
    above = {_link(one, "child"): one for one in joints}
    ordered: dict[str, ElementTree.Element] = {}

    def add(joint: ElementTree.Element) -> None:
        parent = above.get(_link(joint, "parent"))
        if parent is not None and parent.attrib["name"] not in ordered:
            add(parent)
        ordered[joint.attrib["name"]] = joint

    for one in joints:
        if one.attrib["name"] not in ordered:
            add(one)
    return list(ordered.values())


def _link(joint: ElementTree.Element, tag: str) -> str:
    element = joint.find(tag)
    assert element is not None
    return element.attrib["link"]


def _is_fixed(joint: ElementTree.Element) -> bool:
    return joint.attrib["type"] == "fixed"


def _axis(joint: ElementTree.Element) -> Array:
    element = joint.find("axis")
    axis = _numbers("1 0 0" if element is None else element.attrib["xyz"])
    length = np.linalg.norm(axis)
    return axis / length if length else axis


def _mimicked(joint: ElementTree.Element) -> tuple[str, float, float]:
    """Return the joint that one follows, itself mostly, with factor and offset."""
    element = joint.find("mimic")
    if element is None:
        return joint.attrib["name"], 1.0, 0.0
    about = element.attrib
    return about["joint"], float(about.get("multiplier", 1.0)), float(about.get("offset", 0.0))


def _origin(element: ElementTree.Element | None) -> tuple[Array, Array]:
    about = {} if element is None else element.attrib
    return (
        _numbers(about.get("xyz", "0 0 0")),
        matrix_from_rpy(_numbers(about.get("rpy", "0 0 0"))),
    )


def _numbers(text: str) -> Array:
    return np.array([float(part) for part in text.split()])
