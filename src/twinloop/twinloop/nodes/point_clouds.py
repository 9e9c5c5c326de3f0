# SPDX-License-Identifier: Apache-2.0
"""Structured arrays as point clouds, and back."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

_CODES = {
    "f4": PointField.FLOAT32,
    "f8": PointField.FLOAT64,
    "u1": PointField.UINT8,
    "u2": PointField.UINT16,
    "u4": PointField.UINT32,
}


def to_cloud(points: NDArray[np.void], stamp: Any, frame: str) -> PointCloud2:
    """Return points [P] of a structured type as a cloud, its fields by their names."""
    kinds = points.dtype
    assert kinds.fields is not None
    message = PointCloud2(
        height=1,
        width=len(points),
        point_step=kinds.itemsize,
        row_step=kinds.itemsize * len(points),
        is_dense=True,
        fields=[
            PointField(name=name, offset=int(offset), datatype=_CODES[kind.str[1:]], count=1)
            for name, (kind, offset, *_) in kinds.fields.items()
        ],
    )
    message.header.stamp, message.header.frame_id = stamp, frame
    message.data = array.array("B", points.tobytes())
    return message


def from_cloud(message: PointCloud2, kinds: np.dtype) -> NDArray[np.void]:
    """Return a cloud's points [P].

    Raises:
        ValueError: its fields are not those of `kinds`.
    """
    assert kinds.fields is not None
    found = {(field.name, field.offset, field.datatype) for field in message.fields}
    wanted = {
        (name, int(offset), _CODES[kind.str[1:]])
        for name, (kind, offset, *_) in kinds.fields.items()
    }
    size = message.point_step * message.width * message.height
    if not wanted <= found or message.point_step != kinds.itemsize or len(message.data) != size:
        names = [field.name for field in message.fields]
        raise ValueError(
            f"cloud has fields {names} in {message.point_step} bytes, and {len(message.data)} "
            f"bytes of data; expected {list(kinds.names or ())} in {kinds.itemsize}, and {size}"
        )
    return np.frombuffer(message.data, dtype=kinds)
