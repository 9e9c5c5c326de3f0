# SPDX-License-Identifier: Apache-2.0
"""Where the tool of Franka's arm is, in torch: for costs that are differentiated.

Kinematics as in urdf/panda.urdf.xacro; only numbers on the host, so that it runs on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TOOL_M = 0.107 + 0.1034  # from the last joint's frame to between the fingers' pads
# Of each joint in the frame of the one before: place [m], and quarter turns about x.
_JOINTS = (
    ((0.0, 0.0, 0.333), 0),
    ((0.0, 0.0, 0.0), -1),
    ((0.0, -0.316, 0.0), 1),
    ((0.0825, 0.0, 0.0), 1),
    ((-0.0825, 0.384, 0.0), -1),
    ((0.0, 0.0, 0.0), 1),
    ((0.088, 0.0, 0.0), 1),
)


def tool(q: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tool's position [m] and its direction, in the base's frame: [..., 7] ->
    [..., 3], [..., 3]."""
    zero = torch.zeros_like(q[..., 0])
    place = (zero, zero, zero + _TOOL_M)
    ahead = (zero, zero, zero + 1.0)
    for joint in reversed(range(len(_JOINTS))):
        origin, turns = _JOINTS[joint]
        sine, cosine = q[..., joint].sin(), q[..., joint].cos()
        x, y, z = _turned(place, sine, cosine, turns)
        place = (x + origin[0], y + origin[1], z + origin[2])
        ahead = _turned(ahead, sine, cosine, turns)
    return torch.stack(place, -1), torch.stack(ahead, -1)


def _turned(
    vector: tuple[Tensor, Tensor, Tensor], sine: Tensor, cosine: Tensor, turns: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a vector turned about z, then by quarter turns about x."""
    x, y, z = vector
    x, y = cosine * x - sine * y, sine * x + cosine * y
    if turns > 0:
        return x, -z, y
    if turns < 0:
        return x, z, -y
    return x, y, z
