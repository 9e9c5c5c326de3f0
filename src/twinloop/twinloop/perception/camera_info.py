# SPDX-License-Identifier: Apache-2.0
"""Camera models from and to `sensor_msgs/CameraInfo` messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinloop.perception.camera_model import DISTORTIONS, CameraModel
from twinloop.perception.image_files import check_size


def to_camera_info(camera: CameraModel, stamp: Any, frame_id: str) -> Any:
    """Return a `sensor_msgs/CameraInfo`; stamp and frame are those of the image."""
    from sensor_msgs.msg import CameraInfo

    width, height = camera.size
    message = CameraInfo(
        height=height,
        width=width,
        distortion_model=camera.distortion,
        d=camera.d.tolist(),
        k=camera.k.ravel(),
        r=camera.r.ravel(),
        p=camera.p.ravel(),
    )
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message


def uncalibrated_info(size: tuple[int, int], stamp: Any, frame_id: str) -> Any:
    """Return a `sensor_msgs/CameraInfo` that says no more than a size: its K is zero."""
    from sensor_msgs.msg import CameraInfo

    message = CameraInfo(width=size[0], height=size[1])
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message


def from_camera_info(message: Any, name: str = "") -> CameraModel:
    """Return the camera that a CameraInfo message, of ROS or a bag's reader, describes.

    Args:
        message: the message. Without coefficients its lens has no distortion.
        name: of the camera; empty for the message's frame.

    Raises:
        ValueError: it is not calibrated (its K is zero), describes a part or a smaller version of
            the image, or is not a camera at all; says which.
    """
    name = name or message.header.frame_id
    check_size(int(message.width), int(message.height))
    k = np.array(message.k, dtype=np.float64).reshape(3, 3)
    if not k.any():
        raise ValueError(f"camera {name}: its camera_info has a K of zeros: it is not calibrated")
    binning = (int(message.binning_x), int(message.binning_y))
    if max(binning) > 1:
        raise ValueError(f"camera {name}: binning is {binning}, expected none")
    region = (int(message.roi.width), int(message.roi.height))
    if region not in ((0, 0), (int(message.width), int(message.height))):
        raise ValueError(f"camera {name}: region of interest is {region}, expected the whole image")
    distortion = message.distortion_model or "plumb_bob"
    d = np.array(message.d, dtype=np.float64)
    if d.size == 0:
        d = np.zeros(DISTORTIONS.get(distortion, 0))
    return CameraModel(
        name,
        (int(message.width), int(message.height)),
        k,
        d,
        np.array(message.r, dtype=np.float64).reshape(3, 3),
        np.array(message.p, dtype=np.float64).reshape(3, 4),
        distortion,
    )
