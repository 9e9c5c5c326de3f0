# SPDX-License-Identifier: Apache-2.0
"""What a robot looks like: the visual shapes of its URDF, as rods and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinloop.robots import urdf_text

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rod:
    """A capsule or, with no length, a sphere: a segment in its link's frame.

    Attributes:
        start, end: ends of the segment [3], m.
        radius: m.
    """

    link: str
    start: Array
    end: Array
    radius: float


@dataclass(frozen=True)
class Box:
    """A box in its link's frame.

    Attributes:
        corners: [8, 3], m.
    """

    link: str
    corners: Array


def visible_shapes(urdf: str) -> tuple[list[Rod], list[Box]]:
    """Return the visual shapes of a URDF, in its order.

    Raises:
        ValueError: a shape that is neither capsule, sphere nor box, or what is no URDF.
    """
    rods, boxes = [], []
    for link in urdf_text.parse(urdf).findall("link"):
        name = urdf_text.attribute(link, "name")
        for visual in link.findall("visual"):
            shape = visual.find("geometry/*")
            place, turn = urdf_text.origin(visual)
            if shape is not None and shape.tag in ("capsule", "sphere"):
                half = urdf_text.number(shape, "length", "0") / 2 * turn[:, 2]
                radius = urdf_text.number(shape, "radius")
                rods.append(Rod(name, place - half, place + half, radius))
            elif shape is not None and shape.tag == "box":
                half = urdf_text.numbers(shape, "size", 3) / 2
                signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3, indexing="ij"), axis=-1)
                boxes.append(Box(name, place + (signs.reshape(8, 3) * half) @ turn.T))
            else:
                kind = None if shape is None else shape.tag
                raise ValueError(f"link {name} looks like a {kind}, expected rods and boxes")
    return rods, boxes
