# SPDX-License-Identifier: Apache-2.0
"""The topics of one camera: image, compressed image and camera_info."""

from __future__ import annotations

from typing import Any

from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from twinloop.nodes import qos
from twinloop.nodes.base import Node
from twinloop.perception.camera_info import to_camera_info, uncalibrated_info
from twinloop.perception.camera_model import CameraModel
from twinloop.perception.images import compress, to_message


class CameraTopics:
    """Publishes a camera's images to whoever listens.

    Args:
        node: that publishes.
        name: of the camera's topics, such as `stereo/left`.
        frame_id: the camera's optical frame.
        camera: its calibration; without one its camera_info says no more than the size.
        quality: of JPEG, 1 to 100.
    """

    def __init__(
        self, node: Node, name: str, frame_id: str, camera: CameraModel | None, quality: int = 90
    ) -> None:
        self.camera = camera
        self._node = node
        self._frame_id = frame_id
        self._quality = quality
        self._image = node.create_publisher(Image, f"{name}/image_raw", qos.IMAGE)
        self._compressed = node.create_publisher(
            CompressedImage, f"{name}/image_raw/compressed", qos.IMAGE
        )
        self._info = node.create_publisher(CameraInfo, f"{name}/camera_info", qos.IMAGE)

    @property
    def has_listeners(self) -> bool:
        """Somebody wants the images."""
        publishers = (self._image, self._compressed)
        return any(each.get_subscription_count() for each in publishers)

    def publish(self, pixels: Any, encoding: str, stamp_ns: int) -> None:
        """Publish an image [H, W(, 3)], exposed at `stamp_ns`."""
        stamp = Time(nanoseconds=stamp_ns).to_msg()
        size = (pixels.shape[1], pixels.shape[0])
        self._info.publish(
            to_camera_info(self.camera, stamp, self._frame_id)
            if self.camera is not None
            else uncalibrated_info(size, stamp, self._frame_id)
        )
        if self._image.get_subscription_count():
            self._image.publish(to_message(pixels, encoding, stamp, self._frame_id))
        if self._compressed.get_subscription_count():
            file_format = "png" if encoding == "16UC1" else "jpeg"
            self._compressed.publish(
                compress(pixels, encoding, stamp, self._frame_id, file_format, self._quality)
            )

    def destroy(self) -> None:
        for publisher in (self._image, self._compressed, self._info):
            self._node.destroy_publisher(publisher)
