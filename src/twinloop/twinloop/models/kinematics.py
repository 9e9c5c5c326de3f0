# SPDX-License-Identifier: Apache-2.0
"""The serial chains of a hand and the shapes of their links, read from its URDF.

Each link is taken as a rounded line (a capsule; a sphere is one of length zero), which is what the
distance from a ball to it needs. Everything is in the frame of the root link.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ChainTable:
    """Serial chains of C fingers, at most D moving joints each, and L links that they carry.

    Shorter chains are padded with joints that do nothing (index -1, axis zero).
    """

    joint_index: list[list[int]]  # [C, D], into the joint vector
    rotation: Tensor  # [C, D, 3, 3], joint frame in its parent
    translation: Tensor  # [C, D, 3] m
    axis: Tensor  # [C, D, 3]
    link_joint: list[tuple[int, int]]  # [L] (chain, depth) of the joint that moves the link
    link_center: Tensor  # [L, 3] m, in the link frame
    link_half: Tensor  # [L, 3] m, from the centre to one end of the line
    link_radius: Tensor  # [L] m
    box_center: Tensor  # [K, 3] m, boxes of the root link, axis-aligned
    box_half: Tensor  # [K, 3] m


def chain_table(urdf: str, root: str, joint_names: Sequence[str]) -> ChainTable:
    """Read the chains below link `root` from URDF text.

    Raises:
        ValueError: the URDF has no such link, a joint that is not in `joint_names`, a link that
            carries two fingers, or a shape that is not primitive.
    """
    tree = ElementTree.fromstring(urdf)
    links = {link.get("name"): link for link in tree.iter("link")}
    if root not in links:
        raise ValueError(f"URDF has no link {root!r}")
    children: dict[str, list[ElementTree.Element]] = {}
    for joint in tree.findall("joint"):
        children.setdefault(_attribute(joint.find("parent"), "link"), []).append(joint)

    chains: list[list[_Joint]] = []
    shapes: list[tuple[int, int, _Line]] = []
    boxes = _root_boxes(links[root])
    for first in children.get(root, []):
        chain, joint, link = [], first, root
        offset = np.eye(4)
        while True:
            link = _attribute(joint.find("child"), "link")
            offset = offset @ _origin(joint)
            if joint.get("type") != "fixed":
                name = joint.get("name", "")
                if name not in joint_names:
                    raise ValueError(f"URDF joint {name!r} is none of the robot's joints")
                axis = _vector(joint.find("axis"), "xyz", (1.0, 0.0, 0.0))
                chain.append(_Joint(joint_names.index(name), offset, axis))
                offset = np.eye(4)
            if chain:
                where = len(chains), len(chain) - 1
                shapes.extend((*where, line) for line in _lines(links[link], offset))
            following = children.get(link, [])
            if not following:
                break
            if len(following) > 1:
                raise ValueError(f"URDF link {link!r} carries {len(following)} joints, expected 1")
            joint = following[0]
        if chain:
            chains.append(chain)
    return _table(chains, shapes, boxes)


@dataclass(frozen=True)
class _Joint:
    index: int
    origin: NDArray[np.float64]
    axis: NDArray[np.float64]


@dataclass(frozen=True)
class _Line:
    center: NDArray[np.float64]
    half: NDArray[np.float64]
    radius: float


def _table(
    chains: list[list[_Joint]],
    shapes: list[tuple[int, int, _Line]],
    boxes: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> ChainTable:
    depth = max(map(len, chains))
    padded = [
        chain + [_Joint(-1, np.eye(4), np.zeros(3))] * (depth - len(chain)) for chain in chains
    ]

    def stack(rows: list[list[NDArray[np.float64]]]) -> Tensor:
        return torch.tensor(np.array(rows), dtype=torch.float32)

    def vectors(rows: list[NDArray[np.float64]]) -> Tensor:
        return torch.tensor(np.reshape(rows, (-1, 3)), dtype=torch.float32)

    lines = [line for _, _, line in shapes]
    return ChainTable(
        joint_index=[[joint.index for joint in chain] for chain in padded],
        rotation=stack([[joint.origin[:3, :3] for joint in chain] for chain in padded]),
        translation=stack([[joint.origin[:3, 3] for joint in chain] for chain in padded]),
        axis=stack([[joint.axis for joint in chain] for chain in padded]),
        link_joint=[(chain, depth) for chain, depth, _ in shapes],
        link_center=vectors([line.center for line in lines]),
        link_half=vectors([line.half for line in lines]),
        link_radius=torch.tensor([line.radius for line in lines], dtype=torch.float32),
        box_center=vectors([box[0] for box in boxes]),
        box_half=vectors([box[1] for box in boxes]),
    )


def _lines(link: ElementTree.Element, offset: NDArray[np.float64]) -> list[_Line]:
    result = []
    for collision in link.findall("collision"):
        pose = offset @ _origin(collision)
        geometry = collision.find("geometry")
        shape = None if geometry is None else next(iter(geometry), None)
        if shape is not None and shape.tag == "box":
            result.append(_line_in_box(pose, 0.5 * _vector(shape, "size", (0.0, 0.0, 0.0))))
            continue
        if shape is None or shape.tag not in ("capsule", "cylinder", "sphere"):
            tag = "nothing" if shape is None else shape.tag
            raise ValueError(
                f"URDF link {link.get('name')!r} has a {tag}, expected a primitive shape"
            )
        radius = float(shape.get("radius", "nan"))
        half = 0.5 * float(shape.get("length", "0"))
        if shape.tag == "cylinder":
            half = max(half - radius, 0.0)
        result.append(_Line(pose[:3, 3], pose[:3, 2] * half, radius))
    return result


def _line_in_box(pose: NDArray[np.float64], half: NDArray[np.float64]) -> _Line:
    """Return the rounded line along the longest side, as thick as the other two on average."""
    longest = int(np.argmax(half))
    radius = float(np.delete(half, longest).mean())
    return _Line(pose[:3, 3], pose[:3, longest] * max(half[longest] - radius, 0.0), radius)


def _root_boxes(link: ElementTree.Element) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    result = []
    for collision in link.findall("collision"):
        box = collision.find("geometry/box")
        pose = _origin(collision)
        if box is None or not np.allclose(pose[:3, :3], np.eye(3)):
            raise ValueError(f"URDF link {link.get('name')!r}: expected boxes along its axes")
        result.append((pose[:3, 3], 0.5 * _vector(box, "size", (0.0, 0.0, 0.0))))
    return result


def _origin(element: ElementTree.Element) -> NDArray[np.float64]:
    origin = element.find("origin")
    roll, pitch, yaw = _vector(origin, "rpy", (0.0, 0.0, 0.0))
    pose = np.eye(4)
    pose[:3, :3] = _turn(2, yaw) @ _turn(1, pitch) @ _turn(0, roll)
    pose[:3, 3] = _vector(origin, "xyz", (0.0, 0.0, 0.0))
    return pose


def _turn(axis: int, angle: float) -> NDArray[np.float64]:
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn


def _vector(
    element: ElementTree.Element | None, name: str, default: tuple[float, float, float]
) -> NDArray[np.float64]:
    text = None if element is None else element.get(name)
    return np.array(default if text is None else [float(v) for v in text.split()])


def _attribute(element: ElementTree.Element | None, name: str) -> str:
    value = None if element is None else element.get(name)
    if value is None:
        raise ValueError(f"URDF joint without {name}")
    return value
