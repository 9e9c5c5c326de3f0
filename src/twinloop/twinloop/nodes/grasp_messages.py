# SPDX-License-Identifier: Apache-2.0
"""Depth images, cameras and masks from messages, and grasps into messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from twinloop.grasping.drawing import colour, outline
from twinloop.grasping.gripper import Grasp, Gripper
from twinloop.grasping.refusals import GraspRefused, Reason
from twinloop.perception.camera_info import from_camera_info
from twinloop.perception.camera_model import CameraModel
from twinloop.perception.images import ImageRefused, to_array
from twinloop.robots.rotations import quaternion_from_matrix
from twinloop_interfaces.msg import Grasp as GraspMessage
from twinloop_interfaces.msg import GraspArray

_METRES = {"16UC1": 1e-3, "32FC1": 1.0}  # REP-118
_LINE_M = 0.0015


def depth_of(message: Any) -> NDArray[np.float32]:
    """Return an image's depths [H, W], m; 0 and NaN are holes.

    Raises:
        GraspRefused: no depth encoding, or an image that contradicts itself.
    """
    if message.encoding not in _METRES:
        raise GraspRefused(
            Reason.WRONG_ENCODING,
            f"the image's encoding is {message.encoding!r}, expected 16UC1 [mm] or 32FC1 [m]",
        )
    try:
        pixels = to_array(message)
    except ImageRefused as error:
        raise GraspRefused(Reason.BAD_IMAGE, str(error)) from error
    return (pixels * np.float32(_METRES[message.encoding])).astype(np.float32)


def camera_of(message: Any) -> CameraModel:
    """Return the camera of a `camera_info`.

    Raises:
        GraspRefused: it is not calibrated, or describes no camera.
    """
    if not np.any(message.k):
        raise GraspRefused(
            Reason.NO_INTRINSICS,
            "camera_info has a K of zeros: calibrate the camera, or wait for it",
        )
    try:
        return from_camera_info(message)
    except ValueError as error:
        raise GraspRefused(Reason.WRONG_INTRINSICS, str(error)) from error


def mask_of(mask: Any, region: Any, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return what may be grasped [H, W]: mask and region together, None for everything.

    Raises:
        GraspRefused: the mask is no mono8 or mono16 (labels) image of the depth image's size, the
            region lies outside of it, or nothing is left.
    """
    width, height = size
    found = None
    if mask.width or mask.height or len(mask.data):
        try:
            found = to_array(mask, "mono16" if mask.encoding == "mono16" else "mono8") > 0
        except ImageRefused as error:
            raise GraspRefused(Reason.BAD_MASK, f"mask: {error}") from error
        if found.shape != (height, width):
            raise GraspRefused(
                Reason.BAD_MASK,
                f"the mask is {found.shape[::-1]} pixels, and the image {size}",
            )
    if region.width or region.height:
        x, y = int(region.x_offset), int(region.y_offset)
        right, bottom = x + int(region.width), y + int(region.height)
        if right > width or bottom > height or right == x or bottom == y:
            raise GraspRefused(
                Reason.BAD_MASK,
                f"the region reaches from ({x}, {y}) to ({right}, {bottom}), and the image to "
                f"{size}",
            )
        inside = np.zeros((height, width), bool)
        inside[y:bottom, x:right] = True
        found = inside if found is None else found & inside
    if found is not None and not found.any():
        raise GraspRefused(Reason.BAD_MASK, "mask and region leave no pixel to be grasped")
    return found


def grasp_array(header: Header, grasps: Sequence[Grasp]) -> GraspArray:
    """Return grasps as a message, in their order."""
    return GraspArray(header=header, grasps=[_message(grasp) for grasp in grasps])


def _message(grasp: Grasp) -> GraspMessage:
    w, x, y, z = quaternion_from_matrix(grasp.rotation).tolist()
    return GraspMessage(
        pose=Pose(position=_point(grasp.position), orientation=Quaternion(w=w, x=x, y=y, z=z)),
        width=grasp.width_m,
        depth=grasp.depth_m,
        quality=grasp.quality,
        contacts=[_point(one) for one in grasp.contacts],
    )


def grasp_markers(header: Header, grasps: Sequence[Grasp], gripper: Gripper) -> MarkerArray:
    """Return the grippers' outlines as one marker, coloured by quality."""
    points, shades = [], []
    for grasp in grasps:
        red, green, blue = (part / 255.0 for part in colour(grasp.quality))
        for ends in outline(grasp, gripper):
            points += [_point(end) for end in ends]
            shades += [ColorRGBA(r=red, g=green, b=blue, a=0.9)] * 2
    return MarkerArray(
        markers=[
            Marker(
                header=header,
                ns="grasps",
                type=Marker.LINE_LIST,
                action=Marker.ADD if points else Marker.DELETE,
                pose=Pose(orientation=Quaternion(w=1.0)),
                scale=Vector3(x=_LINE_M),
                color=ColorRGBA(a=1.0),
                points=points,
                colors=shades,
            )
        ]
    )


def _point(place: NDArray[np.float64]) -> Point:
    x, y, z = place.tolist()
    return Point(x=x, y=y, z=z)
