# SPDX-License-Identifier: Apache-2.0
"""The link of the hand that a board is fixed on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinloop.robots.kinematics import Chain, fixed_transform, joints_between

Array = NDArray[np.float64]


class Link:
    """A link of a robot, as it is seen from the hand's mount.

    Args:
        urdf: robot description.
        mount: frame that the cameras are fixed in.
        name: of the link.

    Attributes:
        joints: names of the joints [J] that move it; none where it is fixed in the mount.

    Raises:
        ValueError: an unknown link.
    """

    def __init__(self, urdf: str, mount: str, name: str) -> None:
        self.mount, self.name = mount, name
        self.joints = joints_between(urdf, mount, name)
        if not self.joints:
            self._fixed = fixed_transform(urdf, mount, name)
            return
        self._chain = Chain(urdf, self.joints, (mount, name))

    def pose(self, joints: Array) -> Array:
        """Return what turns points of the link into the mount's frame [4, 4], m.

        Args:
            joints: positions [J], rad, in the order of `joints`.
        """
        if not self.joints:
            return self._fixed
        position, rotation = self._chain.poses(np.asarray(joints, np.float64))
        back = rotation[0].T
        result = np.eye(4)
        result[:3, :3] = back @ rotation[1]
        result[:3, 3] = back @ (position[1] - position[0])
        return result
