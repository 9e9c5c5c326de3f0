# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics of a URDF on batches of joint positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from twinloop.robots import urdf_text
from twinloop.robots.description import hand_urdf, joint_prefix

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Capsule:
    """A collision capsule or, with no length, a sphere: a segment in its link's frame.

    Attributes:
        start, end: ends of the segment [3], m.
        radius: m.
    """

    link: str
    start: Array
    end: Array
    radius: float


@dataclass(frozen=True)
class _Joint:
    name: str
    parent: str
    child: str
    origin: Array  # [3] m
    rotation: Array  # [3, 3]
    axis: Array | None  # [3], None where fixed
    slides: bool


class Chain:
    """Poses of chosen links of a tree of revolute and fixed joints, in the root link's frame.

    Args:
        urdf: robot description.
        joint_names: order of the joint vector; joints of the tree that are not named stay at zero.
        links: links whose poses are wanted, in this order.

    Raises:
        ValueError: an unknown link or joint, or a joint on the way that slides.
    """

    def __init__(self, urdf: str, joint_names: tuple[str, ...], links: tuple[str, ...]) -> None:
        joints = {joint.child: joint for joint in _joints(urdf)}
        if not links:
            raise ValueError("no links are named, expected those whose poses are wanted")
        known = {joint.name for joint in joints.values()}
        absent = [name for name in joint_names if name not in known]
        if absent:
            raise ValueError(f"the URDF has no joints {absent}; it has {sorted(known)}")
        self.links = links
        ordered = _ancestry(joints, links)
        sliding = [joint.name for joint in ordered if joint.slides]
        if sliding:
            raise ValueError(f"joints {sliding} slide, expected revolute or fixed ones")
        place = {joint.child: i for i, joint in enumerate(ordered)}
        self._wanted = [place[link] for link in links]
        column = {name: i for i, name in enumerate(joint_names)}
        self._columns = np.array([column.get(joint.name, -1) for joint in ordered])
        eye = np.eye(3)
        skew = [np.zeros((3, 3)) if j.axis is None else _cross_matrix(j.axis) for j in ordered]
        # Rodrigues: R = R0 (I + K^2) + R0 K sin q - R0 K^2 cos q
        self._constant = np.stack(
            [j.rotation @ (eye + k @ k) for j, k in zip(ordered, skew, strict=True)]
        )
        self._sine = np.stack([j.rotation @ k for j, k in zip(ordered, skew, strict=True)])
        self._cosine = np.stack([-j.rotation @ k @ k for j, k in zip(ordered, skew, strict=True)])
        self._origin = np.stack([joint.origin for joint in ordered])
        depth: list[int] = []
        for joint in ordered:
            depth.append(depth[place[joint.parent]] + 1 if joint.parent in place else 0)
        self._levels = [
            (
                np.array([i for i, d in enumerate(depth) if d == level]),
                np.array(
                    [place.get(ordered[i].parent, -1) for i, d in enumerate(depth) if d == level]
                ),
            )
            for level in range(max(depth) + 1)
        ]

    def poses(self, q: Array) -> tuple[Array, Array]:
        """Return positions [..., L, 3] and rotation matrices [..., L, 3, 3] for joints [..., J]."""
        padded = np.concatenate([q, np.zeros((*q.shape[:-1], 1))], axis=-1)
        angle = padded[..., self._columns, None, None]
        local = self._constant + self._sine * np.sin(angle) + self._cosine * np.cos(angle)
        rotation = np.empty_like(local)
        position = np.empty(local.shape[:-1])
        for index, parent in self._levels:
            if parent[0] < 0:
                rotation[..., index, :, :] = local[..., index, :, :]
                position[..., index, :] = self._origin[index]
                continue
            above = rotation[..., parent, :, :]
            rotation[..., index, :, :] = above @ local[..., index, :, :]
            offset = (above @ self._origin[index][:, :, None])[..., 0]
            position[..., index, :] = position[..., parent, :] + offset
        return position[..., self._wanted, :], rotation[..., self._wanted, :, :]


@lru_cache(maxsize=2)
def palm_chain(side: str) -> Chain:
    """Return the kinematics from the world to the palm frame; its joints are WRJ2 and WRJ1."""
    prefix = joint_prefix(side)
    wrist = tuple(f"{prefix}{name}" for name in ("WRJ2", "WRJ1"))
    return Chain(hand_urdf(side), wrist, (f"{prefix}palm",))


def fixed_transform(urdf: str, parent: str, child: str) -> Array:
    """Return the transform [4, 4] of points in one link's frame into that of another, m.

    Raises:
        ValueError: an unknown link, links of two trees, or a joint between them that can move.
    """
    up, down = _between(urdf, parent, child)
    movable = [joint.name for joint in up + down if joint.axis is not None]
    if movable:
        raise ValueError(f"link {child!r} is not fixed in {parent!r}: joints {movable} move")
    return np.linalg.inv(_product(up)) @ _product(down)


def joints_between(urdf: str, parent: str, child: str) -> tuple[str, ...]:
    """Return the joints that move one link in the frame of another.

    Raises:
        ValueError: an unknown link, or links of two trees.
    """
    up, down = _between(urdf, parent, child)
    return tuple(joint.name for joint in up + down if joint.axis is not None)


def capsules(urdf: str) -> list[Capsule]:
    """Return the capsules and spheres among the collision shapes."""
    found = []
    for link in urdf_text.parse(urdf).findall("link"):
        name = urdf_text.attribute(link, "name")
        for collision in link.findall("collision"):
            shape = collision.find("geometry/*")
            if shape is None or shape.tag not in ("capsule", "sphere"):
                continue
            origin, rotation = urdf_text.origin(collision)
            half = urdf_text.number(shape, "length", "0") / 2 * rotation[:, 2]
            radius = urdf_text.number(shape, "radius")
            found.append(Capsule(name, origin - half, origin + half, radius))
    return found


def _joints(urdf: str) -> list[_Joint]:
    result: list[_Joint] = []
    for joint in urdf_text.parse(urdf).findall("joint"):
        name, kind = urdf_text.attribute(joint, "name"), urdf_text.attribute(joint, "type")
        if kind not in ("revolute", "continuous", "prismatic", "fixed"):
            raise ValueError(f"joint {name} is {kind}, expected revolute, prismatic or fixed")
        axis = None if kind == "fixed" else _axis(joint)
        origin, rotation = urdf_text.origin(joint)
        parent, child = (
            urdf_text.attribute(urdf_text.child(joint, tag), "link") for tag in ("parent", "child")
        )
        result.append(_Joint(name, parent, child, origin, rotation, axis, kind == "prismatic"))
    _check_tree(result)
    return result


def _axis(joint: Element) -> Array:
    element = joint.find("axis")
    axis = np.array([1.0, 0.0, 0.0]) if element is None else urdf_text.numbers(element, "xyz", 3)
    length = float(np.linalg.norm(axis))
    if not 0.0 < length < np.inf:
        raise ValueError(f"the axis of joint {joint.get('name')} is {axis}, expected a direction")
    return axis / length


def _check_tree(joints: list[_Joint]) -> None:
    """Refuse links with two parents, and links that hang on themselves."""
    above: dict[str, str] = {}
    for joint in joints:
        if joint.child in above:
            raise ValueError(f"link {joint.child!r} has two parents, one by joint {joint.name}")
        above[joint.child] = joint.parent
    rooted: set[str] = set()
    for link in above:
        way: list[str] = []
        while link in above and link not in rooted:
            if link in way:
                raise ValueError(f"link {link!r} hangs on itself, by links {sorted(way)}")
            way.append(link)
            link = above[link]
        rooted.update(way)


def _ancestry(joints: dict[str, _Joint], links: tuple[str, ...]) -> list[_Joint]:
    """Joints on the ways from the root to the links, parents first."""
    ordered: dict[str, _Joint] = {}
    for link in links:
        if link not in joints:
            raise ValueError(f"the URDF has no movable link {link!r}; it has {sorted(joints)}")
        way = []
        current = link
        while current in joints:
            way.append(joints[current])
            current = joints[current].parent
        for joint in reversed(way):
            ordered[joint.child] = joint
    return list(ordered.values())


def _between(urdf: str, parent: str, child: str) -> tuple[list[_Joint], list[_Joint]]:
    """Return the joints from two links' nearest common link down to each of them."""
    joints = {joint.child: joint for joint in _joints(urdf)}
    root, to_parent = _to_root(joints, parent)
    other_root, to_child = _to_root(joints, child)
    if root != other_root:
        raise ValueError(
            f"links {parent!r} and {child!r} are of two trees, under {root!r} and {other_root!r}"
        )
    common = sum(one is other for one, other in zip(to_parent, to_child, strict=False))
    return to_parent[common:], to_child[common:]


def _to_root(joints: dict[str, _Joint], link: str) -> tuple[str, list[_Joint]]:
    """Return the root above a link, and the joints between, the root's first."""
    known = {joint.parent for joint in joints.values()} | set(joints)
    if link not in known:
        raise ValueError(f"the URDF has no link {link!r}; it has {sorted(known)}")
    way = []
    while link in joints:
        way.append(joints[link])
        link = joints[link].parent
    return link, way[::-1]


def _product(joints: list[_Joint]) -> Array:
    result = np.eye(4)
    for joint in joints:
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = joint.rotation, joint.origin
        result = result @ step
    return result


def _cross_matrix(axis: Array) -> Array:
    x, y, z = axis
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
