# SPDX-License-Identifier: Apache-2.0
"""Poses, twists and paths in messages, to and from the elements of a contract's channels.

A rotation stands in a vector as the first two columns of its matrix, which, unlike a quaternion, is
the same for the same orientation (Zhou et al., arXiv 1812.07035).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def xyz(vector: Any) -> Values:
    """Return the elements [3] of a Point or Vector3."""
    return np.array([vector.x, vector.y, vector.z], dtype=np.float64)


def columns_of(quaternion: Any) -> Values:
    """Return the first two columns [6] of the matrix of a Quaternion message."""
    w, x, y, z = quaternion.w, quaternion.x, quaternion.y, quaternion.z
    return np.array(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y + z * w),
            2 * (x * z - y * w),
            2 * (x * y - z * w),
            1 - 2 * (x * x + z * z),
            2 * (y * z + x * w),
        ],
        dtype=np.float64,
    )


def quaternion_of(columns: Values) -> Values:
    """Return the unit quaternion [4] (w, x, y, z) of two columns [6] of a rotation matrix."""
    first, second = columns[:3], columns[3:]
    m = np.stack([first, second, np.cross(first, second)], axis=1)
    # Each row is the quaternion times four times one of its components; the largest is safe.
    rows = np.array(
        [
            [
                1 + m[0, 0] + m[1, 1] + m[2, 2],
                m[2, 1] - m[1, 2],
                m[0, 2] - m[2, 0],
                m[1, 0] - m[0, 1],
            ],
            [
                m[2, 1] - m[1, 2],
                1 + m[0, 0] - m[1, 1] - m[2, 2],
                m[1, 0] + m[0, 1],
                m[0, 2] + m[2, 0],
            ],
            [
                m[0, 2] - m[2, 0],
                m[1, 0] + m[0, 1],
                1 - m[0, 0] + m[1, 1] - m[2, 2],
                m[2, 1] + m[1, 2],
            ],
            [
                m[1, 0] - m[0, 1],
                m[0, 2] + m[2, 0],
                m[2, 1] + m[1, 2],
                1 - m[0, 0] - m[1, 1] + m[2, 2],
            ],
        ]
    )
    best = rows[int(np.argmax(np.diag(rows)))]
    return np.asarray(best / np.linalg.norm(best))


def read_odometry(field: str, message: Any) -> Values:
    """Return `position`, `rotation`, `linear` or `angular` of an Odometry message."""
    pose, twist = message.pose.pose, message.twist.twist
    if field == "rotation":
        return columns_of(pose.orientation)
    return xyz({"position": pose.position, "linear": twist.linear, "angular": twist.angular}[field])


def read_pose(field: str, message: Any) -> Values:
    """Return `position` or `rotation` of a PoseStamped message."""
    pose = message.pose
    return columns_of(pose.orientation) if field == "rotation" else xyz(pose.position)


def read_path(message: Any) -> Values:
    """Return x and y of each pose of a Path message, one after the other."""
    places = [(pose.pose.position.x, pose.pose.position.y) for pose in message.poses]
    return np.array(places, dtype=np.float64).ravel()
